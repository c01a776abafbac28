"""How figures are written for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.wording import age, counted, duration, of_100, short, without_values

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone(timedelta(hours=-3)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (52, "52 s"),
        (119, "119 s"),
        (252, "4 min 12 s"),
        (3_599.7, "1 h"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_in_units_that_suit_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(minutes=59, seconds=40), "1 hour ago"),
        (timedelta(hours=23, minutes=50), "1 day ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=300), "2026-01-25"),
    ],
)
def test_ages_are_the_same_in_every_zone(before: timedelta, text: str) -> None:
    moment = (NOW - before).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert age(moment, NOW) == text


def test_what_is_no_moment_is_shown_as_it_is() -> None:
    assert age("yesterday", NOW) == "yesterday"
    assert age("2026-11-21T07:50:24", NOW) == "2026-11-21T07:50:24"


def test_one_is_no_plural() -> None:
    assert counted(1, "row") == "1 row" and counted(0, "row") == "0 rows"
    assert counted(1_234, "class", "classes") == "1,234 classes"


@given(st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), unique=True))
def test_a_short_reference_begins_one_alone(ids: list[str]) -> None:
    known = [f"bundle-{id}" for id in ids]
    for reference in known:
        beginning = short(reference, known)
        assert [each for each in known if each.startswith(beginning)] == [reference]


def test_references_are_shortened_by_their_kind() -> None:
    run = "run-01m7yr15kgs963sy5yw1k7xsa4"
    assert short(run, [run]) == "run-01m7yr15kg"
    assert short("adult@0123456789abcdef", []) == "adult@01234567"
    assert short("no id: at all", []) == "no id: at all"


@given(st.floats(0, 1))
@example(0.9995)
@example(0.0005)
@example(0.9994999999999999)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float) -> None:
    assert (of_100(share) == "0") == (share == 0)
    assert (of_100(share) == "100") == (share == 1)
    assert of_100(share) not in ("0.0", "100.0")


def test_like_reasons_are_counted_together() -> None:
    one = "found 'x', expected one of a, b"
    assert without_values(one) == without_values("found 'it\\'s', expected one of a, b")
    assert without_values("age is 12.5") == without_values("age is -7e3")
    assert without_values("is missing") != without_values("is too long")
