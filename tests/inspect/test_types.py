"""What each kind of column is proposed as: numbers and dates as people write them, letters, lists, names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.features import Feature
from penstock.inspect import look, write_recipe
from penstock.inspect.raw_column import Look
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import load_recipe

ROWS = 240
CHANCE = np.random.default_rng(3)
AMOUNTS = CHANCE.gamma(2, 900, ROWS).round(2)
DAYS = [datetime(2003, 1, 5, 6, 7, 8) + timedelta(hours=37 * i) for i in range(ROWS)]


def english(value, places=2):
    return f"{value:,.{places}f}"


def german(value, places=2):
    return english(value, places).translate(str.maketrans(",.", ".,"))


def cycle(*values):
    return [values[i % len(values)] for i in range(ROWS)]


def dates(format):
    return [day.strftime(format) for day in DAYS]


def letters(alphabet, length):
    rng = np.random.default_rng(len(alphabet))
    return ["".join(rng.choice(list(alphabet), length)) for _ in range(ROWS)]


NUMBERS = {
    "decimal commas": ([f"{v:.2f}".replace(".", ",") for v in AMOUNTS], {"decimal": ","}),
    "German": (
        [german(v) for v in AMOUNTS],
        {"decimal": ",", "thousands": "."},
    ),
    "English": ([english(v) for v in AMOUNTS], {"thousands": ","}),
    "Swiss": (
        [english(v).replace(",", "'") for v in AMOUNTS],
        {"thousands": "'"},
    ),
    "French": (
        [german(v).replace(".", "\u202f") for v in AMOUNTS],
        {"decimal": ",", "thousands": " "},
    ),
    "Indian": (cycle("12,34,567", "1,200", "45", "7.5"), {"thousands": ","}),
    "dollars": ([f"$ {english(v)}" for v in AMOUNTS], {"thousands": ",", "unit": "$"}),
    "euros before": (
        [f"€{german(v)}" for v in AMOUNTS],
        {"decimal": ",", "thousands": ".", "unit": "€"},
    ),
    "euros behind": (
        [f"{german(v)} €" for v in AMOUNTS],
        {"decimal": ",", "thousands": ".", "unit": "€"},
    ),
    "crowns": (
        [english(v, 0).replace(",", "\u00a0") + " kr" for v in AMOUNTS],
        {"thousands": " ", "unit": "kr"},
    ),
    "a currency's letters": (
        [f"USD {english(v)}" for v in AMOUNTS],
        {"thousands": ",", "unit": "USD"},
    ),
    "brackets of accountants": (
        [f"({english(v)})" if i % 3 else english(v) for i, v in enumerate(AMOUNTS)],
        {"thousands": ","},
    ),
    "a minus of Unicode": (
        [f"\u2212{v}" if i % 3 else str(v) for i, v in enumerate(AMOUNTS)],
        {"decimal": "."},
    ),
    "a minus behind": (
        [f"{v}-" if i % 3 else str(v) for i, v in enumerate(AMOUNTS)],
        {"decimal": "."},
    ),
    "percent": ([f"{i % 97}%" for i in range(ROWS)], {"unit": "%"}),
    "percent with a comma": (
        [f"{i % 97},5 %" for i in range(ROWS)],
        {"decimal": ",", "unit": "%"},
    ),
    "kilograms": ([f"{v:.1f} kg" for v in AMOUNTS], {"unit": "kg"}),
    "kilometres": ([f"{v:.1f}km" for v in AMOUNTS], {"unit": "km"}),
    "grams and kilograms": (
        cycle("500 g", "1.5 kg", "2 kg"),
        {"unit": {"kg": 1, "g": 0.001}},
    ),
    "thousands and millions": (
        cycle("1.5k", "2.25k", "2M", "19M", "7k"),
        {"unit": {"k": 1000, "M": 1000000}},
    ),
    "millions of dollars": (
        cycle("$1.5M", "$2M", "$0.3M"),
        {"unit": {"$": 1, "M": 1000000}},
    ),
    "horsepower": ([f"{60 + i % 90} bhp" for i in range(ROWS)], {"unit": "bhp"}),
    "ounces in many ways": (
        cycle("12.0 oz.", "12.0 OZ.", "16.0 ounce", "8 oz"),
        {"unit": ["OZ.", "ounce", "oz", "oz."]},
    ),
    "marks out of five": ([f"{i % 50 / 10}/5" for i in range(ROWS)], {"unit": "/5"}),
    "rooms": (cycle("1 room", "2 rooms", "3 rooms"), {"unit": ["rooms", "room"]}),
    "at least": (cycle("10,000+", "500+", "1,000,000+", "5+"), {"thousands": ","}),
    "numbers with a word among them": (
        ["Varies" if i % 9 == 0 else f"{i % 50 + 0.5}M" for i in range(ROWS)],
        {"unit": {"M": 1000000}, "na": ["Varies"]},
    ),
    "years": ([1950 + i % 70 for i in range(ROWS)], {}),
    "negative zero": ([-0.0 if i % 2 else i / 7 for i in range(ROWS)], {}),
    "integers with ?": (
        ["?" if i % 10 == 0 else str(i) for i in range(3, 3 + ROWS)],
        {"na": ["?"]},
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    values, options = NUMBERS[name]
    finding = found(values)
    assert (finding.type, finding.options) == ("number", options), finding.why
    assert "missing" not in finding.why or "na" in options


MOMENTS = {
    "25-Sep-21": "%d-%b-%y",
    "01-Jan-1995": "%d-%b-%Y",
    "25 Sep 2021": "%d %b %Y",
    "25 September 2021": "%d %B %Y",
    "September 25, 2021": "%B %d, %Y",
    "Sep 25, 2021": "%b %d, %Y",
    "20210925": "%Y%m%d",
    "asctime": "%a %b %d %H:%M:%S %Y",
    "RFC 2822": "%a, %d %b %Y %H:%M:%S %z",
    "HTTP": "%a, %d %b %Y %H:%M:%S GMT",
    "web log": "%d/%b/%Y:%H:%M:%S %z",
    "25.09.2021": "%d.%m.%Y",
    "25.09.2021 14:05": "%d.%m.%Y %H:%M",
    "25/09/2021": "%d/%m/%Y",
    "09/25/2021": "%m/%d/%Y",
    "09/25/21": "%m/%d/%y",
    "9/25/21 2:05 PM": "%m/%d/%y %I:%M %p",
    "2021/09/25": "%Y/%m/%d",
    "2021/09/25 14:05:06": "%Y/%m/%d %H:%M:%S",
    "25-09-2021": "%d-%m-%Y",
    "2021W38": "%GW%V",
    "2021-W38": "%G-W%V",
    "Sep 2021": "%b %Y",
    "20210925140506": "%Y%m%d%H%M%S",
    "14:05": "%H:%M",
    "Saturday, September 25, 2021": "%A, %B %d, %Y",
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name):
    format = MOMENTS[name]
    zone = "%z" in format
    values = [day.strftime(format.replace("%z", "+0200")) for day in DAYS]
    finding = found(values)
    assert (finding.type, finding.options.get("format")) == ("timestamp", format), (
        finding.why
    )
    # What is proposed is what reads: at the format's own precision, the same moments.
    read, refused = Feature.load({"type": "timestamp", **finding.options}).accept(
        [pa.array(values)]
    )
    assert not len(refused.rows)
    again = [moment.strftime(format) for moment in read.to_pylist()]
    assert zone or again == values


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (dates("%Y-%m-%d"), {}),
        (dates("%Y-%m"), {}),
        (dates("%Y-%m-%dT%H:%M:%SZ"), {}),
        ([int(day) for day in dates("%Y%m%d")], {"format": "%Y%m%d"}),
        (
            ["n/a" if i % 20 == 0 else day for i, day in enumerate(dates("%d-%b-%y"))],
            {"format": "%d-%b-%y", "na": ["n/a"]},
        ),
    ],
)
def test_moments_of_other_kinds(values, options):
    finding = found(values)
    assert (finding.type, finding.options) == ("timestamp", options), finding.why


DATED = [
    format
    for format in MOMENTS.values()
    if "%b" in format or "%B" in format or ("%d" in format and "%z" not in format)
]


@settings(max_examples=20, deadline=None)
@given(
    format=st.sampled_from(DATED),
    days=st.lists(
        st.datetimes(datetime(1971, 1, 1), datetime(2068, 1, 1)), min_size=25, max_size=60
    ),
)
def test_any_dates_are_read_as_they_were_written_or_the_doubt_is_told(format, days):
    values = [day.strftime(format.replace("%z", "+0000")) for day in days]
    finding = look(pa.table({"x": values})).columns[0]
    if finding.type is None:
        # One value alone, or nearly.
        assert finding.role == "constant" and len(set(values)) == 1
        return
    assert finding.type == "timestamp", finding.why
    read, refused = Feature.load({"type": "timestamp", **finding.options}).accept(
        [pa.array(values)]
    )
    truth = [datetime.strptime(v, format).replace(tzinfo=UTC) for v in values]
    assert not len(refused.rows)
    assert finding.loud or read.to_pylist() == truth


def test_times_of_day_are_no_order_of_rows():
    table = pa.table(
        {"x": dates("%H:%M"), "y": np.random.default_rng(0).normal(size=ROWS)}
    )
    text = write_recipe(
        look(table, target="y"), source_declaration={"path": "x.csv"}, name="n"
    )
    assert "by: time" not in text and "samples" not in text


def test_pairs_beside_a_target_are_judged_as_texts():
    values, _, options = OTHERS["pairs of numbers"]
    findings = look(
        pa.table({"x": values, "y": np.random.default_rng(0).normal(size=ROWS)}),
        target="y",
    )
    assert findings.columns[0].options == options


SENTENCES = [f"the {i} quick brown foxes jump over dogs" for i in range(ROWS)]
LABELS = [
    ",".join(map(str, CHANCE.choice(9, CHANCE.choice([1, 1, 1, 2, 3]), replace=False)))
    for _ in range(ROWS)
]
OTHERS = {
    "DNA": (letters("ACGT", 60), "sequence", {"unit": "characters"}),
    "dna": (letters("acgtn", 30), "sequence", {"unit": "characters"}),
    "proteins": (
        letters("ACDEFGHIKLMNPQRSTVWY", 50),
        "sequence",
        {"unit": "characters"},
    ),
    "molecules": (
        [f"CC(=O)O{'c1ccccc1' * (i % 7 + 1)}{'N' * (i % 11)}" for i in range(ROWS)],
        "sequence",
        {"unit": "characters"},
    ),
    "pressures": (cycle("120/80", "130/85", "110/70"), "category", {}),
    "codes of airports": (cycle("FRA", "JFK", "LHR", "CDG"), "category", {}),
    "lists of Python": (
        cycle("['a', 'b']", "['b']", "['c', \"d'e\"]", "[]"),
        "set",
        {"brackets": True},
    ),
    "lists of JSON": (cycle('["a", "b"]', '["b"]', '["c"]'), "set", {"brackets": True}),
    "label ids": (LABELS, "set", {}),
    "T and F": (cycle("T", "F"), "binary", {}),
    "ja und nein": (cycle("ja", "nein", "nein"), "binary", {}),
    "Y and N": (cycle("Y", "N"), "binary", {}),
    "true, false, unknown": (
        cycle("True", "False", "unknown"),
        "binary",
        {"na": ["unknown"]},
    ),
    "ages": (cycle("18-24", "25-34", "35-44", "65+"), "category", {}),
    "ages in brackets": (cycle("[18-24)", "[24-34)", "[34-44)"), "category", {}),
    "codes of diseases": (
        [
            "V57" if i % 30 == 0 else f"E{i}" if i % 29 == 0 else f"{i % 90}.83"
            for i in range(ROWS)
        ],
        "category",
        {},
    ),
    "codes": (cycle("A12", "B7", "C3"), "category", {}),
    "ordinals": (cycle("1st", "2nd", "3rd"), "category", {}),
    "amounts in several currencies": (cycle("$5", "€7", "£9"), "category", {}),
    "pairs of numbers": (
        [f"({40 + i / 97:.4f}, {-74 - i / 89:.4f})" for i in range(ROWS)],
        "vector",
        {"length": 2, "delimiter": ","},
    ),
    "JSON": (cycle('{"x": 1}', '{"x": 2}', '{"x": 3}'), None, {}),
    "sentences": (SENTENCES, "text", {}),
    "brands": (cycle("Anna Nicole", "Peter Pan", "Ben Jerry"), "category", {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name):
    values, kind, options = OTHERS[name]
    finding = found(values)
    assert (finding.type, finding.options) == (kind, options), finding.why


PERSONS = [
    f"{first} {last}"
    for first in ("Anna", "Peter", "John", "Maria", "Li", "Thomas", "Emma", "Ivan")
    for last in "Meyer Smith Ivanov Rossi Chen Dupont Larsen Garcia Kim Novak".split()
] * 3


@pytest.mark.parametrize(
    ("name", "values", "word"),
    [
        ("email", [f"user{i}@example.org" for i in range(ROWS)], "e-mail"),
        ("x", [f"user{i % 99}@example.org" for i in range(ROWS)], "e-mail"),
        ("phone", [f"+49 30 {i:06d}" for i in range(ROWS)], "telephone"),
        ("iban", [f"DE89 3704 0044 0532 {i:04d} 00" for i in range(ROWS)], "IBAN"),
        ("full_name", PERSONS, "persons"),
        ("Name", PERSONS, "persons"),
        ("Name", [f"{p.split()[1]}, Mr. {p.split()[0]}" for p in PERSONS], "persons"),
    ],
)
def test_persons_are_left_out(name, values, word):
    finding = found(values, name)
    assert finding.type is None and finding.role == "personal" and word in finding.why
    # A recipe repeats no name.
    assert str(values[0]) not in finding.why


def test_what_is_no_person_is_kept():
    films = [f"The Return of {p.split()[1]}" for p in PERSONS]
    assert found(films, "title").role != "personal"
    assert found(PERSONS, "play").role != "personal"
    assert (
        found(cycle("Berlin", "Paris", "Rome", "Oslo", "Bern"), "name").type == "category"
    )


def test_identifiers_that_recur_are_kept():
    few = np.random.default_rng(0)
    users = [f"u{int(v)}" for v in few.exponential(60, 2_000)]
    numbers = few.exponential(600, 2_000).astype(int) * 7
    assert found(users, "user").type == "category"
    assert found(numbers, "user_id").type == "category"
    assert found([f"u{i}" for i in range(ROWS)], "user").type is None


def test_a_comma_that_may_mean_two_things_is_asked_for():
    values = [f"{1 + i % 9},{100 + i}" for i in range(ROWS)]
    alone = found(values)
    assert alone.options == {"thousands": ","} and alone.loud and "could be" in alone.why
    # Another column of the table settles it.
    german_too = look(
        pa.table({"x": values, "y": [f"{v:.2f}".replace(".", ",") for v in AMOUNTS]})
    )
    settled = {f.column: f for f in german_too.columns}["x"]
    assert settled.options == {"decimal": ","} and not settled.loud
    dots = look(
        pa.table(
            {
                "x": [1.5 + i % 9 + i / 1000 for i in range(ROWS)],
                "y": [f"{v:.2f}".replace(".", ",") for v in AMOUNTS],
            }
        )
    )
    loud = {f.column: f for f in dots.columns}["x"]
    assert loud.type == "number" and loud.loud and "thousands" in loud.why


def test_of_mixed_formats_the_one_that_reads_nearly_all():
    values = [*dates("%d-%b-%y")[:-2], "around May", "2003/05/06"]
    finding = found(values)
    assert finding.options == {"format": "%d-%b-%y"} and finding.loud
    assert "2 of the 240 rows looked at would be quarantined" in finding.why


TARGETS = {
    "amounts": (
        [f"{german(v)} €" for v in AMOUNTS],
        "number",
        {"decimal", "thousands", "unit"},
    ),
    "sentences": (SENTENCES, "text", set()),
    "classes 1 and 2": (cycle(1, 2, 2), "binary", set()),
    "relapse": (cycle("relapse", "no relapse", "no relapse"), "binary", {"positive"}),
    "ja": (cycle("ja", "nein"), "binary", {"positive"}),
    "words": (cycle("apple", "pear", "pear"), "binary", {"positive"}),
    "lists": (cycle("['a', 'b']", "['b']", "['c']"), "set", {"brackets"}),
    "labels": ([label.replace(",", "; ") for label in LABELS], "set", {"delimiter"}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name):
    values, kind, words = TARGETS[name]
    table = pa.table(
        {"t": values, "x": np.random.default_rng(1).normal(size=len(values))}
    )
    findings = look(table, target="t")
    target = findings.target
    assert target.type == kind and set(target.options) == words, target.why
    assert loaded(findings).targets["t"].type == kind


def test_a_positive_class_is_asked_for_where_no_word_means_yes():
    def target(values):
        return look(pa.table({"t": values, "x": range(ROWS)}), target="t").target

    numbers, words = target(cycle(1, 2, 2)), target(cycle("pear", "pear", "apple"))
    assert numbers.loud and "choose" in numbers.why and "positive" not in numbers.options
    assert words.loud and "choose" in words.why and words.options["positive"] == "apple"
    yes = target(cycle("relapse", "no relapse"))
    assert not yes.loud and yes.options["positive"] == "relapse"


def found(values, name="x"):
    """What is proposed for one column, as the recipe that is written has it."""
    findings = look(pa.table({name: values}))
    finding = findings.columns[0]
    if finding.type is not None:
        assert loaded(findings).inputs[name].type == finding.type
    return finding


def loaded(findings):
    text = write_recipe(
        findings, source_declaration={"type": "files", "path": "x.csv"}, name="n"
    )
    return load_recipe(parse_yaml(text, where="the draft"))


def test_a_marker_beside_one_value_is_the_other_of_two() -> None:
    signs = Look("class", pa.array(["+", "-"] * 20))
    assert signs.distinct == 2 and not signs.markers
    gaps = Look("class", pa.array(["+", "?"] * 20))
    assert gaps.markers == ["?"]


MIXED = {
    "lengths of two kinds": cycle("5 ft", "1.50 m", "6 ft"),
    "days beside money": cycle("$3 d", "$5", "$4 d"),
    "a mark out of five among codes": cycle("3/5", "512", "4/5", "613", "77"),
    "dots of numbers beside decimal commas": cycle("1.234,50", "7,5", "2.5", "80"),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_cannot_be_compared_has_no_spelling(name):
    finding = found(MIXED[name])
    assert "unit" not in finding.options and "decimal" not in finding.options
    assert "na" not in finding.options and finding.type != "number"


def test_two_spellings_of_numbers_are_told():
    finding = found([*cycle("1.234,50", "7,5", "80")[:-6], *["2.5"] * 6])
    assert finding.type is None and finding.loud and "two spellings" in finding.why


UNITS = {
    "millions of dollars": (cycle("$1.5m", "$2m", "$7"), {"$": 1, "m": 1_000_000}),
    "litres": (cycle("1.5L", "2L", "3.25L"), "L"),
    "lakhs of rupees": (cycle("₹1.5L", "₹2L", "₹3L"), {"₹": 1, "L": 100_000}),
    "millimetres": (cycle("5 mm", "7 mm", "9.5 mm"), "mm"),
    "feet": (cycle("5 ft", "6 ft", "7.5 ft"), "ft"),
}


@pytest.mark.parametrize("name", UNITS)
def test_letters_mean_what_they_stand_beside(name):
    values, unit = UNITS[name]
    finding = found(values)
    assert (finding.type, finding.options) == ("number", {"unit": unit}), finding.why


@pytest.mark.parametrize("first", [1971, 2020])
def test_years_of_two_digits_that_lie_ahead_are_told_and_order_nothing(first):
    days = [datetime(first, 1, 1) + timedelta(days=70 * i) for i in range(ROWS)]
    births = [day.strftime("%d.%m.%y") for day in days]
    table = pa.table({"born": births, "x": AMOUNTS, "y": AMOUNTS[::-1]})
    findings = look(table, target="y")
    born = {f.column: f for f in findings.columns}["born"]
    assert born.options == {"format": "%d.%m.%y"}
    is_ahead = first == 2020
    assert born.loud == is_ahead == ("to come" in born.why)
    # In rising order: of years that are certain the rows are split by time.
    assert (loaded(findings).split.by == "time") == (not is_ahead)


def test_what_reaches_a_person_is_masked_wherever_it_stands() -> None:
    texts = [
        f"ask max{i}@mail.example or +49 171 61696{i:02d}, please do" for i in range(60)
    ]
    written = write_recipe(
        look(pa.table({"note": texts, "y": [i % 2 for i in range(60)]}), target="y"),
        source_declaration={"type": "files", "path": "x.csv"},
        name="x",
    )
    assert "…@…" in written
    assert "mail.example" not in written and "171" not in written


def test_numbers_of_cards_and_telephones_are_left_out() -> None:
    def card(i: int) -> int:
        digits = [4, 1, 0, 0, *(int(d) for d in f"{i * 7_919:011d}")]
        doubled = [
            d * 2 - 9 * (d > 4) if place % 2 == 0 else d
            for place, d in enumerate(reversed(digits))
        ]
        return int("".join(map(str, digits)) + str(-sum(doubled) % 10))

    rows = range(1, 80)
    table = pa.table(
        {
            "paid_with": [card(i) for i in rows],
            "amount": [10**15 + 37 * i * i for i in rows],
            "nr": [f"+49 171 {6_000_000 + i * 7}" for i in rows],
        }
    )
    roles = {finding.column: finding.role for finding in look(table).columns}
    assert roles["paid_with"] == roles["nr"] == "personal"
    assert roles["amount"] != "personal"
