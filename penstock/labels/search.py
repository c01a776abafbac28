"""The search for wrong labels, from rows to suspects; each step streams, and what it holds is bounded.

    rows ─ classes, quantiles of numbers ─▶ hashed rows, on disk ─ some passes ─▶ one model a fold
    hashed rows ─ each by the model of its fold ─▶ probabilities, on disk, and the thresholds
    probabilities ─▶ confident joint ─▶ rule ─ once more ─▶ suspects, on disk and ranked

A row's fold is a hash of its id and the seed, so that it does not depend on the rows beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import Frequencies, Quantiles, id_halves, sample_keys
from penstock.core.errors import ContractError
from penstock.labels.confident import MOST_CLASSES, ConfidentJoint, Rule, SelfConfidence
from penstock.labels.hashed import BINS, hashed, is_number, numbers, reads
from penstock.labels.quick_model import AT_ONCE, FoldModels, width_for
from penstock.labels.ranked import Ranked
from penstock.labels.spool import Spool, regrouped, row_spool, sparse_of

Rank = Literal["self_confidence", "normalised_margin"]
RANKS: tuple[Rank, ...] = ("self_confidence", "normalised_margin")
MOST_LISTED = 1_000_000
"""Rows of a ranked list at most."""
MOST_FOLDS = 20
_LEAST_ROWS = 20
_PIECE_BYTES = 8 << 20
_PIECE_ROWS = 8_192
STEPS = 32
"""Steps of learning whose rows are held at once."""
_ANSWER_CELLS = 1 << 20
_VISITS = 150_000
"""Rows to learn from, counted as often as they are visited."""
_PASSES = (2, 10)
SUSPECT = pa.schema(
    [
        (ROW_ID, pa.string()),
        ("given", pa.string()),
        ("suggested", pa.string()),
        ("self_confidence", pa.float32()),
        ("normalised_margin", pa.float32()),
    ]
)
"""Of a suspect: its row, the label it has, the one that the model would give, and how bad it is."""

Read = Callable[[list[str]], Iterator[pa.RecordBatch]]
"""Given columns, the batches of rows with them and `ROW_ID`, in the order of the row ids."""


@dataclass(frozen=True)
class Options:
    """How wrong labels are searched."""

    target: str
    inputs: tuple[str, ...]
    """Columns that the quick model may read; those that it cannot are left out."""
    folds: int = 5
    seed: int = 0
    rank: Rank = "self_confidence"
    listed: int = 50
    """Suspects that are ranked at most."""


@dataclass(frozen=True)
class LabelErrors:
    """What a search says."""

    classes: list[str]
    """As texts, sorted."""
    rows: int
    """With a label, all of which were judged."""
    unlabelled: int
    rule: Rule
    agreement: float
    """The share of rows whose label is the one that the model, which did not see them, finds likeliest."""
    commonest: float
    """The share of the commonest class: what a model that knows nothing would reach."""
    suspects: int
    ranked: pa.Table
    """The worst suspects, of the schema `SUSPECT`."""
    file: Path
    """All suspects, as Parquet, in the order of the row ids."""
    inputs: tuple[str, ...]
    """Columns that the model read."""
    unread: tuple[str, ...]
    """Columns that it cannot read."""

    def is_blind(self) -> bool:
        """Whether the model knows no more than the commonest class, within chance: then nothing can be said.

        A model that always answers the commonest class agrees with that share of rows, give or take twice
        the standard deviation of a share of so many rows.
        """
        spread = math.sqrt(self.commonest * (1 - self.commonest) / max(self.rows, 1))
        return self.agreement <= self.commonest + 2 * spread

    def is_unsure(self) -> bool:
        """Whether the model undoes less than half of the errors of the commonest class. What it disagrees
        with is then as likely its own mistake, and the estimate a bound from above.
        """
        return self.agreement - self.commonest < (1 - self.commonest) / 2

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the suspects themselves."""
        wrong = self.rule.wrong()
        given = self.rule.joint.sum(axis=1)
        return {
            "rows": self.rows,
            "unlabelled": self.unlabelled,
            "suspects": self.suspects,
            "estimated_wrong": round(wrong),
            "estimated_share": wrong / self.rows,
            "estimate": "none"
            if self.is_blind()
            else "at_most"
            if self.is_unsure()
            else "about",
            "classes": [
                {
                    "class": name,
                    "rows": round(float(given[i])),
                    "estimated_wrong": round(float(given[i] - self.rule.joint[i, i])),
                }
                for i, name in enumerate(self.classes)
            ],
            "pairs": [
                {
                    "given": self.classes[i],
                    "suggested": self.classes[k],
                    "rows": round(rows),
                    "share": rows / self.rows,
                }
                for i, k, rows in self.rule.pairs()
                if round(rows)
            ],
            "model": {
                "inputs": list(self.inputs),
                "unread": list(self.unread),
                "agreement": self.agreement,
                "commonest_class": self.commonest,
            },
        }


def find_label_errors(
    read: Read, schema: Mapping[str, pa.DataType], options: Options, scratch: Path
) -> LabelErrors:
    """Search the rows for wrong labels.

    Args:
        read: the rows; called more than once.
        schema: the types of the columns.
        scratch: an empty folder, for what is too large to hold.

    Raises:
        ContractError: the target is no class, or there is nothing to learn.
        MissingPackage: scipy is not installed.
    """
    target = options.target
    _refuse_kind(target, schema[target])
    inputs = tuple(name for name in options.inputs if reads(schema[name]))
    unread = tuple(name for name in options.inputs if name not in inputs)
    if not inputs:
        raise ContractError(
            f"no column is left that says something of {target!r}: the quick model reads numbers, truth"
            " values, times, texts and lists of texts, not"
            f" {', '.join(map(repr, unread)) or 'anything else'}."
        )
    kinds = {name: schema[name] for name in inputs}
    classes, unlabelled, edges = _measured(read, target, kinds)
    number = len(classes)
    width = width_for(number, options.folds)
    encoded = _encoded(read, target, inputs, classes, edges, width)
    with row_spool(scratch / "rows.arrow") as rows:
        # Steps of learning are of the same rows, whatever the batches were.
        for piece in regrouped(encoded, STEPS * AT_ONCE):
            rows.write(**piece)
    models = FoldModels(width, number, options.folds)
    total = sum(len(piece["given"]) for piece in rows)
    for _ in range(int(np.clip(-(-_VISITS // total), *_PASSES))):
        for piece in rows:
            models.learn(sparse_of(piece), piece["given"], _folds(piece["keys"], options))
    confidence = SelfConfidence(number)
    answers = _answered(models, rows, confidence, options, scratch / "answers.arrow")
    joint = ConfidentJoint(confidence.thresholds(), confidence.rows)
    for piece in answers:
        joint.update(piece["shares"].reshape(-1, number), piece["given"])
    rule = joint.rule()
    ranked, file = _suspects(rule, answers, classes, options, scratch)
    return LabelErrors(
        classes=classes,
        rows=total,
        unlabelled=unlabelled,
        rule=rule,
        agreement=confidence.agreed / total,
        commonest=float(confidence.rows.max()) / total,
        suspects=ranked.count,
        ranked=_listed(ranked, classes),
        file=file,
        inputs=inputs,
        unread=unread,
    )


def _refuse_kind(target: str, kind: pa.DataType) -> None:
    if pa.types.is_nested(kind):
        raise ContractError(
            f"the column {target!r} holds {kind}: wrong labels are searched where each row has one class, not"
            " a set of labels or a label for each step. Give a column with one class a row."
        )
    simple = (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
    )
    if not simple:
        raise ContractError(
            f"the column {target!r} holds {kind}: wrong labels are searched among classes, which are texts,"
            " whole numbers or truth values."
        )


def _measured(
    read: Read, target: str, kinds: Mapping[str, pa.DataType]
) -> tuple[list[str], int, dict[str, np.ndarray]]:
    """The classes, how many rows have none, and the edges of the bins of each number."""
    labels = Frequencies(limit=100_000)
    binned = {name: Quantiles() for name, kind in kinds.items() if is_number(kind)}
    for batch in read([target, *binned]):
        ids = pa.array(sample_keys(batch.column(ROW_ID)))
        labels.update(batch.column(target).cast(pa.string()), ids)
        for name, summary in binned.items():
            summary.update(numbers(batch.column(name)), ids)
    facts = labels.result()
    classes = sorted(value for value, _ in facts["values"])
    if len(classes) > MOST_CLASSES or not facts["exact"]:
        raise ContractError(
            f"the column {target!r} has {len(classes):,} different values, more than the {MOST_CLASSES}"
            " classes among which wrong labels are searched. Is it a number, or a text?"
        )
    if len(classes) < 2 or facts["count"] < _LEAST_ROWS:
        raise ContractError(
            f"the column {target!r} has {len(classes)} different values in {facts['count']:,} rows: at least"
            f" 2 classes and {_LEAST_ROWS} rows are needed to say which labels are wrong."
        )
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = {n: np.unique(s.quantiles(inner)) for n, s in binned.items()}
    return classes, int(facts["missing"]), edges


def _pieces(batches: Iterator[pa.RecordBatch], target: str) -> Iterator[pa.RecordBatch]:
    """The rows with a label, in pieces that can be taken apart in memory."""
    for whole in batches:
        batch = whole.filter(whole.column(target).is_valid())
        bytes_a_row = max(1, batch.nbytes // max(1, len(batch)))
        rows = int(np.clip(_PIECE_BYTES // bytes_a_row, 64, _PIECE_ROWS))
        for start in range(0, len(batch), rows):
            yield batch.slice(start, rows)


def _encoded(
    read: Read,
    target: str,
    inputs: Sequence[str],
    classes: list[str],
    edges: Mapping[str, np.ndarray],
    width: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Rows as a spool of rows takes them."""
    for batch in _pieces(read([target, *inputs]), target):
        sparse = hashed({name: batch.column(name) for name in inputs}, edges, width)
        yield {
            "keys": id_halves(batch.column(ROW_ID)),
            "given": _given(batch.column(target), classes),
            "starts": sparse.starts,
            "places": sparse.places,
            "weights": sparse.weights,
        }


def _given(column: pa.Array, classes: list[str]) -> np.ndarray:
    """The places of the labels among the classes."""
    places = pc.index_in(column.cast(pa.string()), pa.array(classes, pa.string()))
    return np.asarray(places, np.int64)


def _folds(keys: np.ndarray, options: Options) -> np.ndarray:
    """The fold of each row, by its id and the seed alone."""
    mixed = keys.reshape(-1, 2)[:, 1] ^ np.uint64(options.seed % 2**63)
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray(mixed % np.uint64(options.folds), np.int64)


def _answered(
    models: FoldModels,
    rows: Spool,
    confidence: SelfConfidence,
    options: Options,
    path: Path,
) -> Spool:
    """The probabilities of every row by the model that has not seen it; adds up the thresholds."""
    names, kinds = ["keys", "given", "shares"], [pa.uint64(), pa.int64(), pa.float32()]
    with Spool(path, names, kinds) as answers:
        for piece in rows:
            keys, given = piece["keys"], piece["given"]
            shares = models.answer(sparse_of(piece), _folds(keys, options))
            confidence.update(shares, given)
            # Where there are many classes, fewer rows at once from here on.
            step = max(64, _ANSWER_CELLS // models.classes)
            for start in range(0, len(given), step):
                span = slice(start, start + step)
                answers.write(
                    keys=keys.reshape(-1, 2)[span], given=given[span], shares=shares[span]
                )
    return answers


def _suspects(
    rule: Rule, answers: Spool, classes: list[str], options: Options, scratch: Path
) -> tuple[Ranked, Path]:
    ranked, file = Ranked(options.listed), scratch / "suspects.parquet"
    with pq.ParquetWriter(file, SUSPECT) as writer:
        for piece in answers:
            given, keys = piece["given"], piece["keys"].reshape(-1, 2)
            judged = rule.judge(piece["shares"].reshape(-1, len(classes)), given)
            bad = judged.suspect
            facts = {
                "given": given[bad],
                "suggested": judged.likely[bad],
                "self_confidence": judged.self_confidence[bad],
                "normalised_margin": judged.margin[bad],
            }
            ranked.update(facts[options.rank], keys[bad], facts)
            columns = {"high": keys[bad, 0], "low": keys[bad, 1], **facts}
            writer.write_table(_table(columns, classes))
    return ranked, file


def _listed(ranked: Ranked, classes: list[str]) -> pa.Table:
    columns = ranked.rows()
    return _table(columns, classes) if columns else SUSPECT.empty_table()


def _table(columns: Mapping[str, np.ndarray], classes: list[str]) -> pa.Table:
    """Suspects as the schema has them."""
    names = pa.array(classes, pa.string())
    pairs = zip(columns["high"].tolist(), columns["low"].tolist(), strict=True)
    ids = [f"{high:016x}{low:016x}" for high, low in pairs]
    return pa.table(
        [
            pa.array(ids, pa.string()),
            names.take(pa.array(columns["given"])),
            names.take(pa.array(columns["suggested"])),
            pa.array(columns["self_confidence"], pa.float32()),
            pa.array(columns["normalised_margin"], pa.float32()),
        ],
        schema=SUSPECT,
    )
