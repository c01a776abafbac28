"""Numbers as people write them: what is formatted in the ways of ten countries reads back as it was."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.features import Feature
from penstock.core.errors import RecipeError
from penstock.formats.bracketed import items
from penstock.formats.written import Written
from penstock.recipe.schema import load_recipe

WAYS = {
    "United States": (Written(".", ",", {"$": 1}), "${}"),
    "Germany": (Written(",", ".", {"€": 1}), "{} €"),
    "France": (Written(",", " ", {"€": 1}), "{}\u00a0€"),
    "Switzerland": (Written(".", "'", {"CHF": 1}), "CHF {}"),
    "India": (Written(".", ",", {"₹": 1}), "₹{}"),
    "Sweden": (Written(",", " ", {"kr": 1}), "{} kr"),
    "Brazil": (Written(",", ".", {"R$": 1}), "R$ {}"),
    "Japan": (Written(".", ",", {"円": 1}), "{}円"),
    "Poland": (Written(",", " ", {"zł": 1}), "{} zł"),
    "Iran": (Written(".", "_", {"%": 1}), "{}%"),
}
AMOUNTS = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=3)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(amounts=st.lists(AMOUNTS, min_size=1, max_size=20))
def test_what_is_formatted_reads_back(way, amounts):
    written, around = WAYS[way]
    texts = [around.format(spelt(amount, written, way == "India")) for amount in amounts]
    plain = written.plain(pa.array(texts))
    assert [Decimal(text) for text in plain.to_pylist()] == amounts
    # Each alone as among others.
    assert [
        written.plain(pa.array([text]))[0].as_py() for text in texts
    ] == plain.to_pylist()


def spelt(amount, written, indian):
    sign, whole, rest = "-" * (amount < 0), *f"{abs(amount):.3f}".split(".")
    groups = []
    while len(whole) > (3 if not groups else 3 - indian):
        size = 3 - (indian and bool(groups))
        groups.insert(0, whole[-size:])
        whole = whole[:-size]
    return sign + written.thousands.join([whole, *groups]) + written.decimal + rest


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_number_or_refused_and_never_fails(text):
    for written, _ in WAYS.values():
        value = written.value(text)
        assert value is None or value == value
        # The plain spelling is what a double is made of.
        plain = written.plain(pa.array([text]))[0].as_py()
        assert plain is None or float(plain) == float(Decimal(plain))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("(1.200,50 €)", -1200.5),
        ("€ -5", -5),
        ("-€5", -5),
        ("\u22125", -5),
        ("5-", -5),
        ("+5", 5),
        ("1234,5", 1234.5),
        (",5", 0.5),
        ("5,", 5),
        ("1.5", None),
        ("0.123", None),
        ("1.23.456", 123456),
        ("1,2,3", None),
        ("--5", None),
        ("(5", None),
        ("(-5)", None),
        ("€", None),
        (",", None),
        ("", None),
        ("5 $", None),
        ("12 34", None),
    ],
)
def test_edges(text, number):
    assert Written(",", ".", {"€": 1}).value(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.1M", 1_100_000), ("$2.3k", 2_300), ("7", 7), ("1k$", 1_000), ("0.1 M", 100_000)],
)
def test_units_multiply_exactly(text, number):
    assert Written(unit={"$": 1, "k": 1e3, "M": 1e6}).value(text) == number


def number(**options):
    return Feature.load({"type": "number", **options})


def read(feature, values):
    column, refused = feature.accept([pa.array(values)])
    return column.to_pylist(), dict(
        zip(refused.rows.tolist(), refused.reasons, strict=True)
    )


def test_a_feature_reads_texts_and_leaves_numbers_alone():
    feature = number(decimal=",", thousands=".", unit="€", na=["-"])
    values, reasons = read(feature, ["1.234,50 €", "-", None, "12 lb"])
    assert values == [1234.5, None, None, None]
    assert reasons == {
        3: "'12 lb' is not a number written with `decimal: ','`, `thousands: '.'`, `unit: €`"
    }
    assert read(feature, [1.234, 7.0]) == ([1.234, 7.0], {})
    assert read(feature, [1234, 7]) == ([1234.0, 7.0], {})


def test_a_feature_without_these_words_is_what_it_was():
    plain = number()
    assert plain.to_dict() == {
        "type": "number",
        "column": None,
        "na": [],
        "fitted_from": None,
        "missing": "mean",
    }
    assert read(plain, ["1,5", "1e3"])[0] == [None, 1000.0]
    declared = number(unit={"k": 1000})
    assert Feature.load(declared.to_dict()) == declared


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decimal": ",", "thousands": ","}, "and so is `decimal`"),
        ({"unit": "5"}, "is no unit"),
        ({"unit": {"k": 0}}, "is no unit"),
        ({"decimal": ";"}, "expected one of"),
    ],
)
def test_words_that_contradict_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe({"source": "x.csv", "inputs": {"a": {"type": "number", **options}}})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'it\\'s']", ["a", "it's"]),
        ("[a, b c]", ["a", "b c"]),
        ("{'a', \"b\"}", ["a", "b"]),
        ("[1, 2.50, None, null]", ["1", "2.50", "null"]),
        ("[1, 2.50, null]", ["1", "2.50"]),
        ("[]", []),
        ("['a' 'b']", None),
        ("[['a']]", None),
        ("a, b", None),
        ("[__import__('os')]", None),
    ],
)
def test_lists_in_brackets(text, found):
    assert items(text) == found


@given(st.lists(st.text(max_size=8), max_size=6))
def test_lists_that_python_writes_read_back(values):
    printable = [value for value in values if value.isprintable()]
    assert items(repr(printable)) == printable


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_list_or_none(text):
    found = items(text)
    assert found is None or all(isinstance(item, str) for item in found)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("17e999900k", "17e999900"),
        ("1e999999k", "1e999999"),
        ("1e99999999999999999999k", "1e99999999999999999999"),
        ("1e-999999k", "1e-999999"),
        ("0e99999999999999999999k", "0e99999999999999999999"),
    ],
)
def test_a_number_beyond_all_doubles_is_no_work_and_no_error(text, plain):
    written = Written(unit={"k": 1e3})
    assert written.plain(pa.array([text])).to_pylist() == [plain]
    assert written.value(text) in (0.0, float("inf"))
    values, reasons = read(number(unit={"k": 1000}), [text, "2k"])
    assert values == [None if reasons else 0.0, 2000.0]
