"""Encoding: the one encoding of a row, used in training, batch prediction, serving and streams.

    raw columns ─accept→ canonical columns ─encode→ stored arrays ─collate→ arrays for the program … ─decode→
    the user's words

It is made of features and of what they learnt, goes into `fitted.json` of a feed and of a bundle, and comes
back equal. Fitting is `encode.feed`'s; this file reads no data but the rows it is given, and knows neither
torch nor the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from penstock.contracts.features import (
    DOUBT,
    CollatedFeature,
    Feature,
    Fitted,
    Refused,
    SequenceFeature,
    TargetFeature,
)
from penstock.contracts.ragged import Ragged
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import BundleError, Problem, RecipeError, RequestError
from penstock.core.identity import fingerprint
from penstock.core.near import WRITTEN, Hints
from penstock.core.sound import number_of

FORMAT = 1
WEIGHT = "weight"
_PIECE_BYTES = 32 * 2**20
"""About what rows that are worked on at once may take, where they are large (pictures)."""
# What a feature takes a row unless it says otherwise (`Feature.row_bytes`).
_PLAIN_BYTES = 64
# So many rows are taken at a time, however large they are.
_FEWEST = 16
_MANY_CLASSES = 1_000
"""Of a target, from which on a row's answers count as large: each class is a number in them."""


@dataclass
class Accepted:
    """Rows as canonical columns, and those that were refused."""

    rows: int
    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Feature → canonical column `[rows]`; a refused row holds null."""
    refused: dict[int, list[Problem]] = field(default_factory=dict)
    """Row → what is wrong with it, each with the path (raw column,)."""
    weight: np.ndarray | None = None
    """float32 `[rows]`, if the encoding has a weight and targets were asked for; 0 for a refused row."""

    def usable(self) -> Accepted:
        """The rows that were not refused, in order."""
        if not self.refused:
            return self
        # `refused` is keyed by row; what is kept stays in order.
        keep = np.setdiff1d(
            np.arange(self.rows), np.fromiter(self.refused, np.int64, len(self.refused))
        )
        taken = {
            name: column.take(pa.array(keep)) for name, column in self.columns.items()
        }
        return Accepted(
            len(keep), taken, {}, None if self.weight is None else self.weight[keep]
        )


class Encoding:
    """Features, and what they learnt from the training split.

    Args:
        inputs: the features that the model sees, in order.
        targets: the features that it answers.
        fitted: what each feature learnt; a feature that is absent is not fitted yet, and only `accept` knows
            it.
        weight: the raw column of row weights.
    """

    def __init__(
        self,
        inputs: Mapping[str, Feature],
        targets: Mapping[str, Feature],
        fitted: Mapping[str, Fitted] | None = None,
        *,
        weight: str | None = None,
    ) -> None:
        self.inputs = dict(inputs)
        self.targets = _as_targets(targets)
        self.fitted: dict[str, Fitted] = dict(fitted or {})
        self.weight = weight
        self._features: dict[str, Feature] = {**self.inputs, **self.targets}
        # Picked out once, since `collate` runs for every batch.
        self._collated = {
            name: feature
            for name, feature in self._features.items()
            if isinstance(feature, CollatedFeature)
        }
        # A weight is read as a number feature reads, so "3" in CSV and 3 in JSON weigh
        # the same.
        self._weigh = Feature.load({"type": "number"}) if weight else None

    # -- a row's way in --------------------------------------------------------------------------------------

    def columns(self, *, targets: bool) -> list[str]:
        """The raw columns that are read, each once, in order; those of the targets and of the weight too if
        `targets`.
        """
        features = self._features if targets else self.inputs
        names = [
            column
            for name, feature in features.items()
            for column in feature.columns(name)
        ]
        weight = [self.weight] if targets and self.weight else []
        return list(dict.fromkeys([*names, *weight]))

    def rows_at_once(self, most: int) -> int:
        """How many rows to take at a time so that memory stays bounded: `most`, or fewer where rows are large
        (pictures, answers of thousands of classes).
        """
        # Plain features are what `most` allows for; only larger ones count.
        large = sum(
            size
            for feature in self._features.values()
            if (size := feature.row_bytes()) > _PLAIN_BYTES
        )
        # A float32 for each class of an answer.
        large += sum(
            4 * classes
            for name in self.targets
            if (classes := self._classes(name)) > _MANY_CLASSES
        )
        return min(most, max(_PIECE_BYTES // large, _FEWEST)) if large else most

    def _classes(self, target: str) -> int:
        """How many classes or labels a target learnt; 0 for what has none, or is not fitted yet."""
        if target not in self.fitted:
            return 0
        specs = self.targets[target].spec(self.fitted[target]).values()
        return max((len(spec.facts.get("classes") or ()) for spec in specs), default=0)

    def accept(self, table: pa.Table, *, targets: bool) -> Accepted:
        """Raw columns of whatever type → canonical columns, and the rows that cannot be taken.

        With `targets`, a row whose target is missing, or is a class that the training split lacks, is refused
        too: it can neither be learnt from nor judged.

        Raises:
            RequestError: a column is not there at all.
        """
        present = set(table.column_names)
        absent = [name for name in self.columns(targets=targets) if name not in present]
        if absent:
            wanted = set(self.columns(targets=targets))
            # A column that a feature reads already is no misspelling of another.
            hint = Hints(
                [name for name in table.column_names if name not in wanted], text=WRITTEN
            )
            problems = tuple(
                Problem((name,), f"is required but missing.{hint(name)}")
                for name in absent
            )
            raise RequestError(
                "\n".join(
                    [
                        "the rows lack columns:",
                        *(f"  - {problem}" for problem in problems),
                    ]
                ),
                problems,
            )
        accepted = Accepted(table.num_rows)
        for name, feature in self._features.items() if targets else self.inputs.items():
            raw = feature.columns(name)
            column, refused = feature.accept([whole_column(table, each) for each in raw])
            accepted.columns[name] = column
            _note(accepted, raw, refused)
            if name in self.targets:
                # After the feature's own refusals: a refused target must not be told as
                # missing, too.
                self._judge(accepted, name, raw)
            elif name in self.fitted:
                _note(accepted, raw, feature.strange(column, self.fitted[name]))
        if targets:
            # Once all columns are there, since labels are counted against the steps of
            # an input.
            self._judge_steps(accepted)
        if targets and self.weight:
            self._accept_weight(accepted, whole_column(table, self.weight))
        return accepted

    def _judge(self, accepted: Accepted, name: str, raw: tuple[str, ...]) -> None:
        column = accepted.columns[name]
        absent = [
            row
            for row in np.flatnonzero(~_present(column)).tolist()
            if not any(p.path[0] in raw for p in accepted.refused.get(row, ()))
        ]
        _note(
            accepted,
            raw,
            Refused(np.array(absent, np.int64), ["target is missing"] * len(absent)),
        )
        # Before fitting, no value is unknown.
        if name in self.fitted:
            _note(accepted, raw, self.targets[name].unknown(column, self.fitted[name]))

    def _judge_steps(self, accepted: Accepted) -> None:
        """Rows with more or fewer labels than the steps they are for are refused."""
        for name, feature in self.targets.items():
            over = feature.labels_steps_of()
            if over is None or over not in self.inputs:
                continue
            steps = _steps(self.inputs[over], accepted.columns[over])
            labels = _steps(feature, accepted.columns[name])
            if steps is None or labels is None:
                raise RecipeError.of(
                    [
                        Problem(
                            ("targets", name, "over"),
                            f"names {over!r}, whose rows have no steps to label",
                        )
                    ],
                    where="the recipe",
                )
            # A missing target has no labels to count, and its own reason.
            there = _present(accepted.columns[name])
            rows = [
                row
                for row in np.flatnonzero(there & (steps != labels)).tolist()
                # A refused row holds null, whose steps mean nothing.
                if row not in accepted.refused
            ]
            _note(
                accepted,
                feature.columns(name),
                Refused(
                    np.array(rows, np.int64),
                    [
                        f"has {labels[row]} labels for the {steps[row]} steps of {over!r}"
                        for row in rows
                    ],
                ),
            )

    def _accept_weight(self, accepted: Accepted, raw: pa.Array) -> None:
        assert self._weigh is not None and self.weight is not None
        column, refused = self._weigh.accept([raw])
        path = (self.weight,)
        _note(accepted, path, refused)
        values = np.asarray(
            pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False), np.float64
        )
        # A refused weight is null as well; one reason is enough.
        bad = {int(row) for row in refused.rows}
        missing = np.array(
            [row for row in np.flatnonzero(~_present(column)).tolist() if row not in bad],
            np.int64,
        )
        _note(accepted, path, Refused(missing, ["weight is missing"] * len(missing)))
        negative = np.flatnonzero(values < 0)
        _note(
            accepted,
            path,
            Refused(
                negative, [f"weight is negative: {values[row]:g}" for row in negative]
            ),
        )
        # A double beyond float32 becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            weights = np.maximum(values, 0).astype(np.float32)
        huge = np.flatnonzero(~np.isfinite(weights))
        _note(
            accepted,
            path,
            Refused(huge, [f"weight is too large: {values[row]:g}" for row in huge]),
        )
        # A row whose weight was refused weighs 0.
        accepted.weight = np.where(np.isfinite(weights), weights, np.float32(0))

    def encode(self, accepted: Accepted) -> dict[str, np.ndarray]:
        """Canonical columns → stored arrays `<feature>.<array>` `[n, …]`, and `weight` if there is one.

        Row by row.
        """
        stored: dict[str, np.ndarray] = {}
        for name, column in accepted.columns.items():
            for array, values in (
                self._features[name].encode(column, self.fitted[name]).items()
            ):
                stored[f"{name}.{array}"] = values
        if accepted.weight is not None:
            stored[WEIGHT] = accepted.weight
        return stored

    def collate(
        self, stored: Mapping[str, Any], keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Stored rows → what the program takes.

        What belongs to no feature (`weight`, `row_id`) passes through.

        Args:
            keys: one uint64 a row to augment with; None for no augmentation.
        """
        batch: dict[str, np.ndarray] = {}
        grouped: dict[str, dict[str, np.ndarray]] = {}
        for key, values in stored.items():
            # From the right: a feature's name may have dots, the name of an array has
            # none.
            name, dot, array = key.rpartition(".")
            if dot and name in self._features:
                feature = self._collated.get(name)
                if feature is None:
                    batch[key] = (
                        values  # stored as it is collated: the usual case, and the fast one
                    )
                    continue
                if isinstance(values, Ragged) and not feature.takes_ragged:
                    values = values.objects()
                grouped.setdefault(name, {})[array] = values
            else:
                batch[key] = values
        for name, arrays in grouped.items():
            feature = self._collated[name]
            # a key of its own for each feature: two pictures of a row must not be changed alike
            own = (
                None
                if keys is None or not feature.augments()
                else keys ^ np.uint64(int(fingerprint(name), 16))
            )
            for array, values in feature.collate(arrays, self.fitted[name], own).items():
                batch[f"{name}.{array}"] = values
        return batch

    @property
    def augments(self) -> bool:
        """Whether any feature does anything with the keys given to `collate`."""
        return any(feature.augments() for feature in self._collated.values())

    @property
    def plain(self) -> bool:
        """Whether rows are stored as they are collated: `collate` then changes nothing."""
        return not self._collated

    @property
    def decodes(self) -> bool:
        """Whether any feature's `collate` is work for several threads."""
        return any(feature.decodes() for feature in self._collated.values())

    # -- and out ---------------------------------------------------------------------------------------------

    def specs(self, side: Literal["inputs", "targets"]) -> FeatureSpecs:
        """The arrays of one side's features, as the model will see them."""
        return {
            name: feature.spec(self.fitted[name])
            for name, feature in (
                self.inputs if side == "inputs" else self.targets
            ).items()
        }

    def decode(
        self, answers: Mapping[str, np.ndarray], decision: Mapping[str, Mapping[str, Any]]
    ) -> pa.Table:
        """The program's answers `<target>.<answer>` → columns `<target>`, `<target>_probabilities` and the
        like.

        Args:
            decision: by target, what was decided after training, such as `{"threshold": 0.4}`.
        """
        columns: dict[str, pa.Array] = {}
        for name, feature in self.targets.items():
            own = {
                key.rpartition(".")[2]: values
                for key, values in answers.items()
                if key.rpartition(".")[0] == name
            }
            for word, column in feature.decode(
                own, self.fitted[name], decision.get(name, {})
            ).items():
                columns[f"{name}_{word}" if word else name] = column
            # Only the program of an ensemble says it.
            if DOUBT in own:
                columns[f"{name}_{DOUBT}"] = feature.doubt(own[DOUBT], self.fitted[name])
        return pa.table(columns)

    def truth(self, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The targets' stored rows as metrics want them: class indices, or numbers in the user's units."""
        truths: dict[str, np.ndarray] = {}
        for name, feature in self.targets.items():
            own = {
                key.rpartition(".")[2]: values
                for key, values in stored.items()
                if key.rpartition(".")[0] == name
            }
            truths[name] = feature.truth(own, self.fitted[name])
        return truths

    # -- as data ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data: `Encoding.load(encoding.to_dict())` is equal to it."""
        return {
            "format": FORMAT,
            "inputs": {name: feature.to_dict() for name, feature in self.inputs.items()},
            "targets": {
                name: feature.to_dict() for name, feature in self.targets.items()
            },
            "weight": self.weight,
            "fitted": self.fitted,
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Encoding:
        """The encoding that `to_dict` wrote.

        Within `no_foreign_code`, features that did not come with Penstock are refused.

        Raises:
            BundleError: it is of a newer format, or does not hold.
        """
        # Formats that were written before are read; a later one may mean other things
        # by the same words.
        if number_of(data.get("format", 0)) > FORMAT:
            raise BundleError(
                f"the encoding has format {str(data['format'])[:40]}; this Penstock reads formats up to"
                f" {FORMAT}. Upgrade Penstock."
            )
        try:
            sides = [
                {name: Feature.load(feature) for name, feature in data[side].items()}
                for side in ("inputs", "targets")
            ]
            return cls(sides[0], sides[1], data["fitted"], weight=data["weight"])
        except (PydanticCustomError, ValidationError) as error:
            raise BundleError(
                f"the encoding's features cannot be read: {error}"
            ) from None
        # Whatever shape a changed file has, it is one sentence to the user.
        except (KeyError, AttributeError, TypeError):
            raise BundleError(
                "the encoding cannot be read: it was changed, or is not one of Penstock's"
            ) from None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the features and of what they learnt."""
        return fingerprint(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it holds dicts


def _as_targets(targets: Mapping[str, Feature]) -> dict[str, TargetFeature]:
    """The same features, each of which can be a target.

    Raises:
        RecipeError: one cannot.
    """
    checked: dict[str, TargetFeature] = {}
    for name, feature in targets.items():
        if not isinstance(feature, TargetFeature):
            raise RecipeError(
                f"the feature {feature.type!r} cannot be a target; choose another type for {name!r} under"
                " `targets`"
            )
        checked[name] = feature
    return checked


def _steps(feature: Feature, column: pa.Array) -> np.ndarray | None:
    return feature.steps(column) if isinstance(feature, SequenceFeature) else None


def whole_column(table: pa.Table, name: str) -> pa.Array:
    """A column of a table in one piece."""
    column = table.column(name)
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def _present(column: pa.Array) -> np.ndarray:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def _note(accepted: Accepted, raw: Iterable[str], refused: Refused) -> None:
    # A refusal of several columns is told of the first.
    path = (next(iter(raw)),)
    for row, reason in zip(refused.rows.tolist(), refused.reasons, strict=True):
        accepted.refused.setdefault(row, []).append(Problem(path, reason))
