"""Every quirk that a README of the public data lists is told by `profile`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core.errors import SourceError

DATA = Path(__file__).parents[3] / "shared" / "data"
Facts = dict[str, Any]
Quirk = Callable[[Facts], bool]


@cache
def profile_of(path: str, target: str | None = None) -> Facts:
    """The profile of public data, once for all its quirks."""
    if not (DATA / path).exists():
        pytest.skip(f"{DATA / path} is not on this machine")
    return penstock.profile(str(DATA / path), target=target).to_dict()


def found(facts: Facts, kind: str, column: str = "", *words: str) -> bool:
    """Whether a finding of a kind is there, with some words in its sentence or its recipe."""
    return any(
        each["kind"] == kind
        and each["column"] == column
        and all(word in each["sentence"] + each["recipe"] for word in words)
        for each in facts["findings"]
    )


def column(facts: Facts, name: str) -> Facts:
    return next(each for each in facts["columns"] if each["name"] == name)


def evidence(facts: Facts, kind: str, name: str) -> Facts:
    return next(
        each["evidence"]
        for each in facts["findings"]
        if each["kind"] == kind and each["column"] == name
    )


ADULT = {
    "? stands for missing": lambda f: all(
        found(f, "markers", f"column_{i}", '"?"') for i in (2, 7, 14)
    ),
    "a space behind each comma": lambda f: found(
        f, "source", "", "a space follows every"
    ),
    "dots behind the test's labels": lambda f: found(f, "source", "", "trim_end"),
    "the first line of the test is no data": lambda f: found(
        f, "source", "", "skip_rows: 1"
    ),
    "no header": lambda f: found(f, "source", "", "header: false"),
    "education says education-num": lambda f: found(f, "same", "column_4", "column_5"),
    "24 duplicates in train": lambda f: f["equal_rows"]["duplicates"]["train"] == 24,
    "sex is protected": lambda f: found(f, "protected", "column_10"),
    "race is protected": lambda f: found(f, "protected", "column_9"),
}
GOEMOTIONS = {
    "no header": lambda f: (
        f["rows"] == 54_263 and found(f, "source", "", "header: false")
    ),
    "quotes are literal": lambda f: f["rejected"] == 0 and f["splits"]["train"] == 43_410,
    "labels are unequal": lambda f: (
        (e := evidence(f, "balance", "column_2"))["labels"] == 28
        and e["smallest"] < 0.01 * e["largest"]
    ),
    "[NAME] masks": lambda f: found(f, "placeholders", "column_1"),
    "16 % have several labels": lambda f: (
        0.15 < evidence(f, "balance", "column_2")["several"] / f["rows"] < 0.18
    ),
}
HOSPITAL = {
    "typos are an x for a letter": lambda f: all(
        found(f, "variants", name) for name in ("condition", "city", "county", "name")
    ),
    "an x in numbers": lambda f: found(f, "mixed", "zip") and found(f, "mixed", "phone"),
    "empty stands for missing": lambda f: found(f, "markers", "score", "empty"),
}
BEERS = {
    "ounces carry units": lambda f: found(f, "units", "ounces", "oz"),
    "abv has percent signs": lambda f: found(f, "mixed", "abv", "%"),
    "ibu has N/A": lambda f: found(f, "markers", "ibu", "N/A"),
}
ETT = {
    "must not be shuffled in time": lambda f: found(
        f, "time order", "date", "split: {by: time"
    ),
    "hourly": lambda f: column(f, "date")["order"]["step_seconds"] == 3600,
}
RESTAURANT = {
    "Not yet rated among numbers": lambda f: found(
        f, "markers", "rating", "Not yet rated"
    ),
    "MongoDB wrappers": lambda f: found(f, "identifier", "_id.$oid"),
    "lines": lambda f: f["rows"] == 2_548 and f["rejected"] == 0,
}
BOOKS = {
    "{$date} is read as a moment": lambda f: (
        column(f, "publishedDate.$date")["measured_as"] == "moment"
    ),
    "fields are missing": lambda f: all(
        found(f, "missing", name) for name in ("isbn", "thumbnailUrl", "longDescription")
    ),
    "the schema differs between lines": lambda f: found(f, "mixed", "_id", "$oid"),
}
COUNTRIES = {
    "a BOM in a key": lambda f: found(f, "source", "", "byte order mark", "ISO"),
}
NAB = {
    "labels lie in a JSON": lambda f: found(
        f, "source", "", "combined_windows.json", "116"
    ),
    "some series have none": lambda f: found(
        f, "source", "", "52 of 58 files (6 have none)"
    ),
}
FASHION = {
    "two resolutions": lambda f: found(f, "sizes", "image", "120 × 160", "60 × 80"),
    "long-tailed classes": lambda f: found(f, "balance", "articleType", "fewer than 10"),
    "missing season and usage": lambda f: (
        found(f, "missing", "season") and found(f, "missing", "usage")
    ),
    # The table as published begins with them; in this part of it they are everywhere.
    "t-shirts dominate": lambda f: found(f, "balance", "articleType", "Tshirts"),
}
FASHION_GENDER = {
    "the name states the gender": lambda f: found(
        f, "look", "productDisplayName", "the class's own word"
    ),
}
NUCLEI = {
    "dark": lambda f: found(f, "dark", "image"),
    "masks": lambda f: found(f, "identifier", "mask", "masks"),
    "one to over a hundred": lambda f: (
        column(f, "nuclei")["min"] == 1 and column(f, "nuclei")["max"] > 100
    ),
}
DIGITS = {
    "the label is in the name": lambda f: found(f, "path", "path", "label"),
    "the speaker is in the name": lambda f: found(f, "path", "part_2", "theo"),
}
CIFAR = {
    "JPEG, compressed again": lambda f: found(f, "compressed", "content", "JPEG"),
    "a tar of 13,000 files": lambda f: f["rows"] == 13_000,
}
QUICK = (
    ("dirty/hospital/dirty.csv", None, HOSPITAL),
    ("dirty/beers/dirty.csv", None, BEERS),
)
SLOW = (
    ("adult", None, ADULT),
    ("goemotions", None, GOEMOTIONS),
    ("ett/ETTh1.csv", None, ETT),
    ("nested_json/restaurant.json", None, RESTAURANT),
    ("nested_json/books.json", None, BOOKS),
    ("nested_json/countries-big.json", None, COUNTRIES),
    ("nab", None, NAB),
    ("fashion/styles.csv", None, FASHION),
    ("fashion/styles.csv", "gender", FASHION_GENDER),
    ("nuclei/nuclei.csv", None, NUCLEI),
    ("spoken_digits/recordings.tar.gz", None, DIGITS),
    ("cifar10/cifar10_jpg_subset.tar.gz", None, CIFAR),
)


def _untold(
    path: str, target: str | None, quirks: dict[str, Quirk]
) -> dict[str, list[str]]:
    """The quirks that the profile does not tell, each with all that it does."""
    facts = profile_of(path, target)
    lines = [
        f"{each['kind']} | {each['column']} | {each['sentence']}"
        for each in facts["findings"]
    ]
    return {what: lines for what, is_told in quirks.items() if not is_told(facts)}


@pytest.mark.parametrize(
    ("path", "target", "what", "quirk"),
    [
        pytest.param(path, target, what, quirk, id=f"{path.split('/')[0]}: {what}")
        for path, target, quirks in QUICK
        for what, quirk in quirks.items()
    ],
)
def test_a_quirk_is_told(path: str, target: str | None, what: str, quirk: Quirk) -> None:
    assert not _untold(path, target, {what: quirk})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "target", "quirks"),
    [
        pytest.param(
            *row,
            id=f"{row[0]}{f', {row[1]}' if row[1] else ''}",
            # Pictures take longest.
            marks=[pytest.mark.long] if row[0].startswith("cifar10") else [],
        )
        for row in SLOW
    ],
)
def test_all_quirks_of_a_larger_table_are_told(
    path: str, target: str | None, quirks: dict[str, Quirk]
) -> None:
    """One test a table, so that its profile is taken once, whatever process runs which test."""
    assert not _untold(path, target, quirks)


@pytest.mark.slow
def test_other_names_in_the_clean_table_are_told_by_diff():
    for name in ("hospital", "beers"):
        folder = DATA / "dirty" / name
        if not folder.exists():
            pytest.skip(f"{folder} is not on this machine")
        columns = penstock.diff(str(folder / "dirty.csv"), str(folder / "clean.csv"))[
            "columns"
        ]
        assert columns["added"] and columns["removed"]


def test_files_that_go_together_line_by_line_are_told():
    folder = DATA / "multi30k"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    with pytest.raises(
        SourceError, match=r"go together line by line \(29,000 lines each\)"
    ):
        penstock.profile(str(folder))
