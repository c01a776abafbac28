"""The laws of features.

`check(Specimen(Feature.load({"type": "acme.colour"}), (column,)))` judges a feature by its author's own
columns: a feature cannot be judged without data that it understands, so its author brings some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.features import (
    DecidingFeature,
    Feature,
    Fitted,
    SequenceFeature,
    SeriesFeature,
    Stored,
    TargetFeature,
    collated,
)
from penstock.contracts.summary import Summary
from penstock.contracts.tensors import TensorSpec


@dataclass(frozen=True)
class Specimen:
    """A declared feature, with raw columns to judge it by."""

    feature: Feature
    columns: tuple[pa.Array, ...]
    """What it learns from: one array a raw column, all of one length.

    Good ones have missing values and rows to refuse.
    """
    target: bool = False
    """Judge it as a target."""
    served: tuple[pa.Array, ...] | None = None
    """Other rows that it meets afterwards: unseen values, extremes, other Arrow types."""
    answers: Callable[[Stored, Fitted], Mapping[str, np.ndarray]] | None = None
    """What a perfect decoder would answer for stored targets; known for the decoders `number`, `binary` and
    `category`.
    """

    def __str__(self) -> str:
        options = {
            word: value
            for word, value in self.feature.to_dict().items()
            if word != "type"
            and value != type(self.feature).model_fields.get(word, _NOTHING).default
        }
        return "-".join(
            [
                self.feature.type,
                "target" if self.target else "input",
                *(f"{word}={value}" for word, value in options.items()),
            ]
        )


class _NOTHING:
    default = None


Law = Callable[[Specimen], None]


def ids(rows: int) -> pa.Array:
    """Row ids: any 32 hexadecimal digits."""
    rng = np.random.default_rng(rows)
    return pa.array(
        [f"{a:016x}{b:016x}" for a, b in rng.integers(0, 2**63, (rows, 2)).tolist()],
        pa.string(),
    )


def fit(specimen: Specimen) -> tuple[pa.Array, Fitted]:
    """The accepted rows' canonical column, and what is learnt from it."""
    column, refused = specimen.feature.accept(specimen.columns)
    keep = np.setdiff1d(np.arange(len(column)), refused.rows)
    if specimen.target:
        keep = keep[
            np.asarray(
                column.take(pa.array(keep)).is_valid().to_numpy(zero_copy_only=False),
                bool,
            )
        ]
    usable = column.take(pa.array(keep))
    summary = specimen.feature.summary()
    summary.update(usable, ids(len(usable)))
    return usable, json.loads(
        json.dumps(specimen.feature.fit(summary.result(), target=specimen.target))
    )


def _slices(columns: Sequence[pa.Array], start: int, stop: int) -> list[pa.Array]:
    return [column.slice(start, stop - start) for column in columns]


def _all(specimen: Specimen) -> list[tuple[pa.Array, ...]]:
    return [specimen.columns, *([specimen.served] if specimen.served else [])]


def declared_and_back(specimen: Specimen) -> None:
    """Declared, loaded and declared again it is the same; it has an encoder or a decoder, and columns."""
    feature = specimen.feature
    again = Feature.load(json.loads(json.dumps(feature.to_dict())))
    assert again == feature and again.to_dict() == feature.to_dict(), (
        f"declared_and_back: {feature.to_dict()} became {again.to_dict()}"
    )
    if specimen.target:
        assert isinstance(feature, TargetFeature), (
            "declared_and_back: the specimen is a target; derive its class from TargetFeature"
        )
        assert feature.decoder, (
            "declared_and_back: a target names a decoder, and this one names none"
        )
    else:
        assert feature.encoder, (
            "declared_and_back: an input names an encoder, and this one names none"
        )
    assert len(feature.columns("name")) == len(specimen.columns), (
        f"declared_and_back: it reads {feature.columns('name')}, the specimen has {len(specimen.columns)}"
        " columns"
    )


def accepted_alone(specimen: Specimen) -> None:
    """Canonical type (text may keep the dictionary it came with); refused rows ascend, hold null and have a
    reason each; a row is accepted or refused alone as in a batch.
    """
    feature = specimen.feature
    for columns in _all(specimen):
        canonical, refused = feature.accept(columns)
        kind = (
            canonical.type.value_type
            if pa.types.is_dictionary(canonical.type)
            else canonical.type
        )
        assert kind == feature.canonical, (
            f"accepted_alone: accept gave {canonical.type}, declared is {feature.canonical}"
        )
        assert len(canonical) == len(columns[0]) and len(refused.rows) == len(
            refused.reasons
        ), "accepted_alone: a row or a reason is missing"
        assert (np.diff(refused.rows) > 0).all(), (
            "accepted_alone: refused rows must ascend"
        )
        assert all(not canonical[int(row)].is_valid for row in refused.rows), (
            "accepted_alone: a refused row must hold null"
        )
        reasons = dict(zip(refused.rows.tolist(), refused.reasons, strict=True))
        for row in range(len(canonical)):
            alone, alone_refused = feature.accept(_slices(columns, row, row + 1))
            assert alone.equals(canonical.slice(row, 1)) or (
                alone.to_pylist() == canonical.slice(row, 1).to_pylist()
            ), (
                f"accepted_alone: row {row} is {alone[0]} alone and {canonical[row]} in a batch"
            )
            assert alone_refused.reasons == ([reasons[row]] if row in reasons else []), (
                f"accepted_alone: row {row} is refused for {alone_refused.reasons} alone, {reasons.get(row)}"
                " in a batch"
            )


def halves_equal_the_whole(specimen: Specimen) -> None:
    """Parts summarised and merged, in whatever order, equal the whole."""
    column, _ = specimen.feature.accept(specimen.columns)
    names = ids(len(column))

    def summarise(start: int, stop: int) -> Summary:
        summary = specimen.feature.summary()
        summary.update(
            column.slice(start, stop - start), names.slice(start, stop - start)
        )
        return summary

    whole = summarise(0, len(column)).result()
    for cut in {0, 1, len(column) // 3, len(column) - 1, len(column)}:
        for turned in (False, True):
            first, second = summarise(0, cut), summarise(cut, len(column))
            if turned:
                first, second = second, first
            first.merge(second)
            assert first.result() == whole, (
                f"halves_equal_the_whole: cut at {cut}, the merged summary is {first.result()}, the whole"
                f" {whole}"
            )


def learns_plain_data(specimen: Specimen) -> None:
    """What is learnt survives JSON, and so does its spec."""
    column, fitted = fit(specimen)
    summary = specimen.feature.summary()
    summary.update(column, ids(len(column)))
    fresh = specimen.feature.fit(summary.result(), target=specimen.target)
    assert specimen.feature.spec(fresh) == specimen.feature.spec(fitted), (
        "learns_plain_data: the spec changes when what was learnt is written and read back"
    )
    for name, spec in specimen.feature.spec(fitted).items():
        assert (
            TensorSpec.load(json.loads(json.dumps(spec.to_dict()))).to_dict()
            == spec.to_dict()
        ), f"learns_plain_data: the spec of {name} is not plain data"


def encoded_alone(specimen: Specimen) -> None:
    """A row encodes alone as in a batch, and from the middle of a longer column, bit for bit."""
    _, fitted = fit(specimen)
    for columns in _all(specimen):
        column, _ = specimen.feature.accept(columns)
        stored = specimen.feature.encode(column, fitted)
        for row in range(len(column)):
            alone = specimen.feature.encode(column.slice(row, 1), fitted)
            assert list(alone) == list(stored), (
                f"encoded_alone: arrays {list(alone)} alone, {list(stored)} in a batch"
            )
            for name, values in alone.items():
                same = (
                    values[0] == stored[name][row]
                    if isinstance(values[0], bytes)
                    else np.array_equal(values[0], stored[name][row])
                )
                assert values.dtype == stored[name].dtype and same, (
                    f"encoded_alone: {name} of row {row} is {values[0]} alone, {stored[name][row]} in a batch"
                )


def keeps_its_spec(specimen: Specimen) -> None:
    """The arrays of a batch are those of `spec`, with its dtypes and shapes, finite, below their
    cardinality; also for no rows.
    """
    _, fitted = fit(specimen)
    spec = specimen.feature.spec(fitted)
    roles = {entry.role for entry in spec.values()}
    assert ("target" in roles) == specimen.target, (
        f"keeps_its_spec: a{' target' if specimen.target else 'n input'} has arrays in the roles {roles}"
    )
    for columns in _all(specimen):
        for rows in {len(columns[0]), 1, 0}:
            column, _ = specimen.feature.accept(_slices(columns, 0, rows))
            stored = specimen.feature.encode(column, fitted)
            arrays = collated(specimen.feature, stored, fitted)
            assert list(arrays) == list(spec), (
                f"keeps_its_spec: the arrays are {list(arrays)}, the spec has {list(spec)}"
            )
            for name, entry in spec.items():
                values = arrays[name]
                assert values.dtype == np.dtype(entry.dtype), (
                    f"keeps_its_spec: {name} is {values.dtype}, the spec says {entry.dtype}"
                )
                assert (
                    len(values) == rows and len(values.shape) == len(entry.shape) + 1
                ), (
                    f"keeps_its_spec: {name} has shape {values.shape} for {rows} rows; the spec says"
                    f" {entry.shape}"
                )
                assert all(
                    size in (None, length)
                    for size, length in zip(entry.shape, values.shape[1:], strict=True)
                ), (
                    f"keeps_its_spec: {name} has shape {values.shape}, the spec says {entry.shape}"
                )
                if values.dtype.kind == "f":
                    assert np.isfinite(values).all(), (
                        f"keeps_its_spec: {name} has values that are not finite"
                    )
                if entry.cardinality is not None and rows:
                    assert values.min() >= 0 and values.max() < entry.cardinality, (
                        f"keeps_its_spec: {name} goes from {values.min()} to {values.max()}, its cardinality"
                        f" is {entry.cardinality}"
                    )


def decodes_what_it_encodes(specimen: Specimen) -> None:
    """For a target: the answer of a perfect decoder is the user's own word; truth has a row each; what it
    learnt from is not unknown.
    """
    if not specimen.target:
        return
    feature = _target(specimen)
    column, fitted = fit(specimen)
    assert not len(feature.unknown(column, fitted).rows), (
        "decodes_what_it_encodes: rows it learnt from are unknown to it"
    )
    stored = feature.encode(column, fitted)
    assert len(feature.truth(stored, fitted)) == len(column), (
        "decodes_what_it_encodes: truth must have a row each"
    )
    answers = (specimen.answers or _perfect(specimen))(stored, fitted)
    decoded = feature.decode(answers, fitted, {})
    assert "" in decoded and all(len(c) == len(column) for c in decoded.values()), (
        'decodes_what_it_encodes: the prediction goes under "", with a row each'
    )
    _alike(decoded[""].to_pylist(), column.to_pylist())
    if isinstance(feature, DecidingFeature):
        decision = feature.decide(answers, feature.truth(stored, fitted), None, fitted)
        assert json.loads(json.dumps(decision)) == decision, (
            f"decodes_what_it_encodes: what it decides is not plain data: {decision}"
        )
        decided = feature.decode(answers, fitted, decision)
        assert list(decided) == list(decoded), (
            f"decodes_what_it_encodes: it answers {list(decided)} once decided, {list(decoded)} before"
        )
    none = feature.decode(
        {name: values[:0] for name, values in answers.items()}, fitted, {}
    )
    assert {word: c.type for word, c in none.items()} == {
        word: c.type for word, c in decoded.items()
    }, "decodes_what_it_encodes: no rows decode to other types"


def counts_its_steps(specimen: Specimen) -> None:
    """Where rows have steps, a row has as many alone as in a batch; of a sample with steps it reads some, and
    a request holds them all in one column.
    """
    feature = specimen.feature
    if isinstance(feature, SequenceFeature):
        column, _ = feature.accept(specimen.columns)
        counts = feature.steps(column)
        for row in range(len(column) if counts is not None else 0):
            alone = feature.steps(column.slice(row, 1))
            assert (
                counts is not None
                and alone is not None
                and alone.tolist() == [counts[row]]
            ), (
                f"counts_its_steps: row {row} has other steps alone ({alone}) than in a batch ({counts})"
            )
    if isinstance(feature, SeriesFeature):
        start, stop = feature.reach(target=specimen.target)
        assert start < stop, (
            f"counts_its_steps: it reads the steps from {start} to {stop}, which are none"
        )
        assert feature.whole("name").columns("name") == ("name",), (
            "counts_its_steps: a request has one column for it, called as the feature is"
        )


def _target(specimen: Specimen) -> TargetFeature:
    assert isinstance(specimen.feature, TargetFeature), (
        "the specimen is a target; its class is none"
    )
    return specimen.feature


def _flat(value: Any) -> list[Any]:
    return (
        [item for part in value for item in _flat(part)]
        if isinstance(value, list)
        else [value]
    )


def _alike(answers: list[Any], wanted: list[Any]) -> None:
    # series, whose missing values are answered as well
    if any(
        isinstance(value, list) and any(isinstance(item, float) for item in _flat(value))
        for value in wanted
    ):
        rows = [
            [
                pair
                for pair in zip(_flat(one), _flat(other), strict=True)
                if pair[1] is not None
            ]
            for one, other in zip(answers, wanted, strict=True)
        ]
        answers, wanted = (
            [pair[side] for row in rows for pair in row] for side in (0, 1)
        )
    numbers = [value for value in wanted if isinstance(value, float)]
    # arrays are float32: exact to so much of the spread
    spread = max(numbers, default=0.0) - min(numbers, default=0.0)
    for row, (one, other) in enumerate(zip(answers, wanted, strict=True)):
        same = (
            np.isclose(one, other, rtol=1e-5, atol=1e-6 * spread)
            if isinstance(other, float)
            else one == other
        )
        assert same, (
            f"decodes_what_it_encodes: row {row} was {other!r} and is decoded as {one!r}"
        )


def _perfect(specimen: Specimen) -> Callable[[Stored, Fitted], Mapping[str, np.ndarray]]:
    feature = _target(specimen)

    def category(stored: Stored, fitted: Fitted) -> Mapping[str, np.ndarray]:
        classes = feature.spec(fitted)["index"].cardinality or 0
        return {"probabilities": np.eye(classes, dtype=np.float32)[stored["index"]]}

    def series(stored: Stored, fitted: Fitted) -> Mapping[str, np.ndarray]:
        values = np.nan_to_num(feature.truth(stored, fitted))
        levels = len(feature.spec(fitted)["values"].facts["quantiles"])
        return (
            {"values": values, "quantiles": np.repeat(values[..., None], levels, axis=-1)}
            if levels
            else {"values": values}
        )

    known: dict[str, Callable[[Stored, Fitted], Mapping[str, np.ndarray]]] = {
        "number": lambda stored, fitted: {
            "value": feature.truth(stored, fitted).astype(np.float32)
        },
        "series": series,
        "binary": lambda stored, fitted: {"probability": stored["label"]},
        "category": category,
    }
    assert feature.decoder in known, (
        f"decodes_what_it_encodes: give the specimen `answers`, since the decoder {feature.decoder!r} is not"
        " known here"
    )
    return known[feature.decoder]


def errors_refuse_the_missing(specimen: Specimen) -> None:
    """With `missing: error`, where a feature has that word, a missing value is refused and nothing else
    is.
    """
    if "missing" not in type(specimen.feature).model_fields:
        return
    declared = {**specimen.feature.to_dict(), "missing": "error"}
    strict = Feature.load(declared)
    for columns in _all(specimen):
        usual, refused = Feature.load(
            {word: value for word, value in declared.items() if word != "missing"}
        ).accept(columns)
        strict_column, more = strict.accept(columns)
        assert set(refused.rows.tolist()) <= set(more.rows.tolist()), (
            "errors_refuse_the_missing: a row is no longer refused"
        )
        assert set(
            np.flatnonzero(
                ~np.asarray(strict_column.is_valid().to_numpy(zero_copy_only=False), bool)
            ).tolist()
        ) == set(more.rows.tolist()), (
            "errors_refuse_the_missing: a missing row is let through"
        )
        assert all(
            usual[row].equals(strict_column[row])
            for row in range(len(strict_column))
            if strict_column[row].is_valid
        ), "errors_refuse_the_missing: values change"


LAWS: tuple[Law, ...] = (
    declared_and_back,
    accepted_alone,
    halves_equal_the_whole,
    learns_plain_data,
    encoded_alone,
    keeps_its_spec,
    decodes_what_it_encodes,
    counts_its_steps,
    errors_refuse_the_missing,
)


def check(specimen: Specimen) -> None:
    """Judge a feature by every law.

    Raises:
        AssertionError: names the law and the difference.
    """
    for law in LAWS:
        law(specimen)
