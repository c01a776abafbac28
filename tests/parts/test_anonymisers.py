"""What hides a person in a column: the laws, and what each kind makes of a value."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest
from pydantic_core import PydanticCustomError

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import ContractError, UserError
from penstock.testing.laws import anonymisers as laws
from penstock.testing.laws.cleaners import engine

KEY = "a key of the laws, long enough"

DECLARED = [
    {"type": name, **specimen}
    for name in Anonymiser.types()
    for specimen in Anonymiser.find(name).specimens
]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LAWS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_KEY", KEY)


@pytest.fixture(scope="module")
def session() -> Iterator[EngineSession]:
    with engine() as opened:
        yield opened


def hidden(session: EngineSession, how: Any, values: Any, kind: Any = None) -> list[Any]:
    array = pa.array(values, kind)
    table = pa.table({ROW_ID: [f"{i:032x}" for i in range(len(array))], "x": array})
    made = session.table(table)
    value = Anonymiser.load(how).protect(made["x"], made[ROW_ID])
    rows = made.select(ROW_ID, x=value).order_by(ROW_ID)
    return pa.Table.from_batches(session.batches(rows))["x"].to_pylist()


@pytest.mark.parametrize("specimen", DECLARED, ids=str)
def test_the_laws(specimen: dict[str, Any]) -> None:
    laws.check(Anonymiser.load(specimen))


def test_a_mask_has_one_length_and_covers_short_texts_whole(
    session: EngineSession,
) -> None:
    texts = ["DE89370400440532013000", "12345678", "123456789", "", None]
    masked = hidden(session, {"type": "mask", "keep_last": 4}, texts)
    assert masked == ["***3000", "***", "***6789", "***", None]
    assert hidden(session, "mask", [12345, None]) == ["***", None]


def test_a_pseudonym_is_the_hash_that_the_page_says(session: EngineSession) -> None:
    def derived(half: str) -> str:
        text = f"pseudonym {half} visits"
        return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()

    def expected(value: str) -> str:
        once = hashlib.sha256((derived("inner") + value).encode()).hexdigest()
        return hashlib.sha256((derived("outer") + once).encode()).hexdigest()[:32]

    how = {"type": "pseudonym", "scope": "visits"}
    assert hidden(session, how, ["Émile", "5"]) == [expected("Émile"), expected("5")]
    # A number and its text are one person.
    assert hidden(session, how, [5]) == [expected("5")]


def test_scopes_and_keys_cannot_be_linked(
    session: EngineSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hidden(session, "pseudonym", ["Anna"])
    other = hidden(session, {"type": "pseudonym", "scope": "visits"}, ["Anna"])
    check = Anonymiser.load("pseudonym").key_check()
    monkeypatch.setenv("PENSTOCK_KEY", "another key, long enough too")
    third = hidden(session, "pseudonym", ["Anna"])
    assert len({one[0], other[0], third[0]}) == 3
    assert Anonymiser.load("pseudonym").key_check() != check


@pytest.mark.parametrize("value", [None, "short"])
def test_a_missing_or_short_key_is_said_without_it(
    session: EngineSession, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("PENSTOCK_KEY")
    if value:
        monkeypatch.setenv("PENSTOCK_KEY", value)
    with pytest.raises(
        UserError, match=r"PENSTOCK_KEY .*at least 16 characters"
    ) as caught:
        hidden(session, "pseudonym", ["Anna"])
    assert "short" not in str(caught.value)


def test_numbers_become_bands(session: EngineSession) -> None:
    wide = {"type": "generalise", "width": 10}
    assert hidden(session, wide, [37, 30, 0, -1, -10, None]) == [
        30,
        30,
        0,
        -10,
        -10,
        None,
    ]
    assert hidden(session, wide, [2**53 + 1]) == [(2**53 + 1) // 10 * 10]
    fine = {"type": "generalise", "width": 0.5}
    assert hidden(session, fine, [1.74, -0.1, 0.2]) == [1.5, -0.5, 0.0]


def test_dates_become_months(session: EngineSession) -> None:
    month, week = ({"type": "generalise", "to": unit} for unit in ("month", "week"))
    assert hidden(session, month, [date(2024, 2, 29)]) == [date(2024, 2, 1)]
    # A Thursday, of the week that begins on Monday.
    assert hidden(session, week, [date(2024, 2, 29)]) == [date(2024, 2, 26)]
    moment = datetime(2024, 2, 29, 13, 45)
    hour = {"type": "generalise", "to": "hour"}
    assert hidden(session, hour, [moment]) == [datetime(2024, 2, 29, 13)]


def test_codes_and_places(session: EngineSession) -> None:
    digits = {"type": "generalise", "digits": 2}
    assert hidden(session, digits, [75011, None]) == ["75", None]
    assert hidden(session, digits, ["SW1A 1AA"]) == ["SW"]
    region = {"type": "generalise", "values": {"Lyon": "Rhône"}, "other": "elsewhere"}
    assert hidden(session, region, ["Lyon", "Nice", None]) == ["Rhône", "elsewhere", None]


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ({"type": "generalise", "width": 10}, ["a"]),
        ({"type": "generalise", "width": 0.5}, [1]),
        ({"type": "generalise", "to": "month"}, ["2024-01-01"]),
        ({"type": "generalise", "to": "hour"}, [date(2024, 1, 1)]),
        ({"type": "pseudonym"}, [1.5]),
        ({"type": "noise", "amount": 1}, ["a"]),
        ({"type": "redact_text"}, [1]),
        ({"type": "mask"}, [1.5]),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_hidden_so_is_refused(
    session: EngineSession, how: Any, values: Any
) -> None:
    with pytest.raises(ContractError, match=r"the column holds .* Choose another way"):
        hidden(session, how, values)


@pytest.mark.parametrize(
    "how", [{"width": 1, "digits": 2}, {}, {"width": 1, "other": "x"}], ids=str
)
def test_generalise_goes_one_way(how: dict[str, Any]) -> None:
    with pytest.raises(PydanticCustomError, match=r"needs one of|goes with `values`"):
        Anonymiser.load({"type": "generalise", **how})


def test_noise_is_bounded_keyed_and_repeatable(
    session: EngineSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"type": "noise", "amount": 5}
    first = hidden(session, how, [100.0] * 400)
    assert first == hidden(session, how, [100.0] * 400)
    assert all(95 <= value <= 105 for value in first) and len(set(first)) == 400
    # Uniform: the mean of 400 lies within four deviations of it.
    assert abs(sum(first) / 400 - 100) < 4 * 5 / 3**0.5 / 20
    monkeypatch.setenv("PENSTOCK_KEY", "another key, long enough too")
    assert hidden(session, how, [100.0] * 400) != first
    assert all(isinstance(value, int) for value in hidden(session, how, [100] * 9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Anna.B@mail.example, or not", "write to [email], or not"),
        ("call +49 30 1234567 now", "call [phone] now"),
        ("call (030) 123 4567!", "call [phone]!"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [iban]."),
        ("card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("from 192.168.0.12 at", "from [ip] at"),
        ("ssn 123-45-6789", "ssn [ssn]"),
        ("see https://x.example/u/anna?id=3 there", "see [url] there"),
        ("12 apples in 2024, 3.5 kg", "12 apples in 2024, 3.5 kg"),
        ("", ""),
        (None, None),
    ],
)
def test_free_text_keeps_what_tells_of_nobody(
    session: EngineSession, text: str | None, expected: str | None
) -> None:
    assert hidden(session, "redact_text", [text], pa.string()) == [expected]


def test_words_of_ones_own_are_replaced_in_any_case(session: EngineSession) -> None:
    how = {"type": "redact_text", "words": ["Anna", "Émile Zola", "Jr."]}
    texts = ["ANNA and anna, not Annabel", "par Émile Zola", "ÉMILE ZOLA, Jr."]
    assert hidden(session, how, texts) == [
        "[word] and [word], not Annabel",
        "par [word]",
        "[word], [word]",
    ]
