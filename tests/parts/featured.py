"""What tests of features share."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.contracts.data import Feature
from penstock.testing.laws.features import Specimen, fit


def part(type: str, **options: Any) -> Feature:
    return Feature.load({"type": type, **options})


NUMBERS = pa.array(
    [1.5, None, -3.0, 7.25, 1e9, float("nan"), float("inf"), 0.0, 0.1, 1.5, 1.5, -2.0]
)
NUMBERS_IN_TEXT = pa.array(
    [" 1.5", "abc", "", None, "-3e2", "+7", ".5", "1e999", "?", "nan", "0x10", "1,5"]
)
WORDS = pa.array(["a", " b", "b", None, "", "c", "a", "a", "10", "2", "2", "10", "b"])
TWO = pa.array(["<=50K", ">50K", None, "<=50K ", "<=50K", "?", ">50K"])


def reasons(feature: Feature, *columns: pa.Array) -> dict[int, str]:
    _, refused = feature.accept(columns)
    return dict(zip(refused.rows.tolist(), refused.reasons, strict=True))


def encode(
    feature: Feature, train: pa.Array, served: pa.Array, *, target: bool = False
) -> dict[str, list[Any]]:
    _, fitted = fit(Specimen(feature, (train,), target))
    return {
        name: values.tolist()
        for name, values in feature.encode(feature.accept([served])[0], fitted).items()
    }
