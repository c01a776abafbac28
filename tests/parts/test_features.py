"""Every feature on the shelf by every law, with specimens of each; and what laws cannot say."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import pkgutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from penstock.contracts.data import Feature
from penstock.testing.laws import features as laws
from penstock.testing.laws.features import Specimen, fit
from tests.parts.featured import (
    NUMBERS,
    NUMBERS_IN_TEXT,
    TWO,
    WORDS,
    encode,
    part,
    reasons,
)

EXTREMES = pa.array([1.7e308, -1.7e308, None, 5e-324, 0.0, float("-inf")])
MOMENTS = pa.array(
    [0, 3_600, None, 86_400 * 200 + 7, 86_400 * 900, -5, 10**15], pa.timestamp("s")
)
ISO = pa.array(
    [
        "2024-05-31",
        "2024-02-30",
        "2024-05-31T13:00:00.25+02:00",
        None,
        "yesterday",
        "2021-01",
        "2022-12-31 23:59:59Z",
        "",
    ]
)
STEPS = pa.array(
    [
        [[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]],
        [[1.5, None], None, [None, 4.0]],
        None,
        [[1.0, 2.0]],
        [[1.0, 2.0], [1.0], [3.0, 4.0]],
        [[1.0, 2.0], [float("inf"), 0.0], [1.0, 1.0]],
        [[0.0, 1.0], [2.0, float("nan")], [9.0, 9.0]],
    ]
)
RUNS = pa.array(
    [
        [1.0, 2.0, 3.0],
        [None, 4.0, None],
        None,
        [1.0, 2.0],
        [5.0, 9.0, -4.0],
        [None, None, None],
    ]
)
WORDY_RUNS = pa.array(
    [
        ["1", " 2", "3"],
        ["x", "1", "2"],
        ["", "nan", "-"],
        None,
        ["7", "8", "9.5"],
        ["1", "2", "3"],
    ]
)
LISTS = pa.array(
    [
        [1.0, 2.0, 3.0],
        [4.0, None, 6.0],
        None,
        [1.0, 2.0],
        [7.0, 8.0, 1e9],
        [0.0, float("inf"), 1.0],
        [],
    ]
)
SPECIMENS = [
    *(
        Specimen(part("number", missing=missing), (NUMBERS,), served=(EXTREMES,))
        for missing in ("mean", "median", "zero")
    ),
    Specimen(
        part("number", na=["?"]),
        (NUMBERS_IN_TEXT,),
        served=(pa.array([True, None, False]),),
    ),
    Specimen(
        part("number"),
        (NUMBERS,),
        target=True,
        served=(pa.array([2**53 + 1, None, -4], pa.int64()),),
    ),
    Specimen(
        part("number"),
        (pa.array([3, 3, 3], pa.int8()),),
        served=(pa.array([Decimal("3.50"), None]),),
    ),
    Specimen(
        part("binary", na=["?"]),
        (TWO,),
        served=(pa.array([">50K", "other", None, "<=50k"]),),
    ),
    Specimen(part("binary", na=["?"]), (TWO,), target=True),
    Specimen(
        part("binary", positive=False),
        (pa.array([True, False, None]),),
        target=True,
        served=(pa.array(["no", "YES", "perhaps"]),),
    ),
    Specimen(
        part("binary"), (pa.array([1.0, 0.0, None, 1.0]),), served=(pa.array([1, 0, 2]),)
    ),
    Specimen(part("category"), (WORDS,), served=(pa.array([1.0, 2.0, None, 10.5]),)),
    Specimen(
        part("category", rare=1, limit=2), (WORDS,), served=(WORDS.dictionary_encode(),)
    ),
    Specimen(
        part("category"), (WORDS,), target=True, served=(pa.array([b"a", b"\xff", None]),)
    ),
    Specimen(
        part("category"), (pa.array([2, 10, 2, 10, None, 3], pa.int64()),), target=True
    ),
    Specimen(
        part("timestamp"), (MOMENTS,), served=(pa.array([dt.date(1999, 1, 1), None]),)
    ),
    Specimen(
        part("timestamp"),
        (ISO,),
        served=(pa.array([1, None], pa.timestamp("ns", "Asia/Tokyo")),),
    ),
    Specimen(
        part("timestamp", format="%d.%m.%Y %H:%M"),
        (pa.array(["31.05.2024 13:00", "31.02.2024 13:00", None, "1.1.2020 00:30"]),),
    ),
    Specimen(
        part("timestamp", unit="ms"),
        (pa.array([0, 10**11, None, 10**12, 2**62], pa.int64()),),
        served=(pa.array(["1000", "1e3", "x", "2024-01-01", None, "1e30"]),),
    ),
    *(
        Specimen(
            part("vector", length=3, missing=missing),
            (LISTS,),
            served=(pa.array([[1e300, -1e300, None], None]),),
        )
        for missing in ("mean", "zero")
    ),
    Specimen(
        part("vector", columns=["x", "y"], na=["-"]),
        (pa.array([1, 2, None, 4]), pa.array(["1", "-", "oops", " 4 "])),
    ),
    Specimen(
        part("vector", length=2),
        (pa.array([[1, 2], None, [3, 5]], pa.list_(pa.int32(), 2)),),
        served=(pa.array([["1", "2"], ["x", "2"]]),),
    ),
    *(
        Specimen(
            part(
                "series", window=3, column="past", variables=["a", "b"], missing=missing
            ),
            (STEPS,),
            served=(
                pa.array([[[1e300, None]] * 3, [None] * 3]),
                pa.array(["no list", None]),
            ),
        )
        for missing in ("previous", "mean")
    ),
    Specimen(
        part("series", columns=["x", "y"], window=2, horizon=1, na=["-"]),
        (RUNS, WORDY_RUNS),
        served=(pa.array([3.5, None]), pa.array([[1, 2, 3], [1, 2, 3]])),
    ),
    Specimen(
        part("series", window=3),
        (RUNS,),
        served=(pa.array([[[1.0], [2.0], [3.0]], [[1.0], None, [2.0, 3.0]], None]),),
    ),
    Specimen(
        part("series", columns=["x", "y"], window=2).step(),
        (NUMBERS, NUMBERS_IN_TEXT),
        served=(EXTREMES, EXTREMES),
    ),
    Specimen(
        part("series", horizon=3, variables=["a", "b"]),
        (STEPS,),
        target=True,
        served=(pa.array([[[1.0, 2.0]] * 3], pa.list_(pa.list_(pa.float32(), 2), 3)),),
    ),
    Specimen(part("series", horizon=3, quantiles=[0.1, 0.5, 0.9]), (RUNS,), target=True),
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_laws(specimen: Specimen, law: laws.Law) -> None:
    law(specimen)


def test_every_feature_on_the_shelf_has_specimens() -> None:
    """Here, or as `SPECIMENS` of a test file beside this one."""
    modules = [
        importlib.import_module(f"tests.parts.{m.name}")
        for m in pkgutil.iter_modules([str(Path(__file__).parent)])
        if m.name.startswith("test_")
    ]
    assert {
        s.feature.type for module in modules for s in getattr(module, "SPECIMENS", ())
    } == set(Feature.types())


def test_a_feature_that_breaks_a_law_is_caught() -> None:
    class Centred(type(part("number"))):  # type: ignore[misc]
        def encode(self, column: pa.Array, fitted: Any) -> Any:
            stored = super().encode(column, fitted)
            return {**stored, "value": stored["value"] - stored["value"].mean()}

    with pytest.raises(AssertionError, match="encoded_alone"):
        laws.encoded_alone(Specimen(Centred(), (pa.array([1.0, 2.0, 4.0]),)))


def test_moments_are_read_from_whatever_type_and_refused_with_a_hint() -> None:
    found, _ = part("timestamp").accept([ISO])
    texts = [None if v is None else v.isoformat() for v in found.to_pylist()]
    assert texts == [
        "2024-05-31T00:00:00+00:00",
        None,
        "2024-05-31T11:00:00.250000+00:00",
        None,
        None,
        "2021-01-01T00:00:00+00:00",
        "2022-12-31T23:59:59+00:00",
        None,
    ]
    assert set(reasons(part("timestamp"), ISO)) == {1, 4}
    assert "declare `unit" in reasons(part("timestamp"), pa.array([5]))[0]
    assert reasons(part("timestamp", format="%Y"), pa.array(["2024", "x"])) == {
        1: "'x' does not match the format '%Y', as in '2024'"
    }
    assert reasons(part("timestamp", unit="s"), pa.array([10**18])) == {
        0: "1000000000000000000 lies outside the years 1 to 9999"
    }
    assert part("timestamp", unit="ms").accept([pa.array(["1500"])])[0].cast(
        pa.int64()
    ).to_pylist() == [1_500_000]


@settings(deadline=None, max_examples=80)
@given(
    st.datetimes(
        dt.datetime(1, 1, 2),
        dt.datetime(9999, 12, 30),
        timezones=st.sampled_from(
            [
                dt.UTC,
                dt.timezone(dt.timedelta(hours=5, minutes=30)),
                dt.timezone(-dt.timedelta(hours=8)),
            ]
        ),
    )
)
def test_iso_text_is_the_moment_it_says(moment: dt.datetime) -> None:
    for text in (moment.isoformat(), str(moment)):
        assert (
            part("timestamp").accept([pa.array([text])])[0].cast(pa.int64()).to_pylist()
            == pa.array([moment], pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
        )


def test_only_parts_that_vary_over_a_whole_period_are_learnt() -> None:
    feature = part("timestamp")
    daily = pa.array([dt.datetime(2020, 1, 1) + dt.timedelta(days=i) for i in range(900)])
    assert fit(Specimen(feature, (daily,)))[1]["parts"] == [
        "day_of_week",
        "day_of_month",
        "day_of_year",
    ]
    hours = pa.array([dt.datetime(2020, 1, 1) + dt.timedelta(hours=i) for i in range(72)])
    _, fitted = fit(Specimen(feature, (hours,)))
    assert fitted["parts"] == ["hour_of_day"]
    cyclic = feature.encode(feature.accept([hours])[0], fitted)["cyclic"]
    assert cyclic.shape == (72, 2) and cyclic[6] == pytest.approx([1, 0], abs=1e-6)
    once = pa.array([dt.datetime(2020, 1, 1)] * 3)
    assert "cyclic" not in feature.spec(fit(Specimen(feature, (once,)))[1])


def test_vectors_of_the_wrong_length_are_refused() -> None:
    assert reasons(part("vector", length=3), LISTS) == {
        3: "has 2 components, expected 3",
        5: "component 1: inf is not a finite number",
        6: "has 0 components, expected 3",
    }
    assert reasons(part("vector", length=2), pa.array([1.0])) == {
        0: "expected a list of 2 numbers, found 1.0"
    }
    assert reasons(
        part("vector", columns=["x", "y"]), pa.array([1]), pa.array(["oops"])
    ) == {0: "y: 'oops' is not a number"}
    assert part("vector", columns=["x", "y"]).columns("where") == ("x", "y")
    found = encode(
        part("vector", length=2),
        pa.array([[0.0, 5.0], [2.0, 5.0]]),
        pa.array([[None, 5.0], [2.0, 7.0]]),
    )
    assert found == {"value": [[0.0, 0.0], [1.0, 0.0]], "missing": [1.0, 0.0]}


def test_a_vector_of_absurd_numbers_stays_finite() -> None:
    train = pa.array([[1.7e308, 1e200], [-1.7e308, -1e200], [1.0, 1.0]])
    assert np.isfinite(encode(part("vector", length=2), train, train)["value"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"columns": ["x"], "column": "y"},
        {"columns": ["x", "y"], "length": 3},
        {"columns": ["x"], "lenght": 1},
    ],
)
def test_a_vector_declares_one_form(options: dict[str, Any]) -> None:
    with pytest.raises((PydanticCustomError, ValidationError)):
        part("vector", **options)


def test_what_is_learnt_is_plain_data() -> None:
    for specimen in SPECIMENS:
        _, fitted = fit(specimen)
        json.dumps(fitted, allow_nan=False)


def test_a_vector_reads_delimited_texts_as_it_reads_lists():
    places = Feature.load({"type": "vector", "length": 2, "delimiter": ",", "na": ["?"]})
    column, refused = places.accept(
        [pa.array(["(40.5, -74)", "1,2", "[3,4]", "?", None, "1,2,3", "1,x"])]
    )
    assert column.to_pylist() == [[40.5, -74.0], [1.0, 2.0], [3.0, 4.0], *[None] * 4]
    assert refused.rows.tolist() == [5, 6]
    assert refused.reasons == [
        "has 3 components, expected 2",
        "component 1: 'x' is not a number",
    ]
    assert places.accept([pa.array([[40.5, -74.0]])])[0].to_pylist() == [[40.5, -74.0]]
    # Without the word a text is refused, and the declaration is what it was.
    lists = Feature.load({"type": "vector", "length": 2})
    assert "delimiter" not in lists.to_dict()
    assert lists.accept([pa.array(["1,2"])])[1].rows.tolist() == [0]
