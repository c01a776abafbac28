"""Looking at data: types, markers, identifiers, leaks, duplicates; and recipes that load whatever the columns
are called."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ContractError, RecipeError
from penstock.inspect import look, write_recipe
from penstock.inspect.findings import _bounds
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import load_recipe
from tests.inspect.inspected import recipe_of

CHANCE = np.random.default_rng(0)
ROWS = 400


def proposed(target="y", **columns):
    """What is proposed for each column of a made-up table with a binary target of pure chance."""
    rows = len(next(iter(columns.values())))
    if target == "y" and "y" not in columns:
        columns["y"] = np.array(["no", "yes"])[
            np.random.default_rng(9).integers(0, 2, rows)
        ]
    findings = look(
        pa.table(
            {
                k: v if isinstance(v, (pa.Array, pa.ChunkedArray)) else pa.array(v)
                for k, v in columns.items()
            }
        ),
        target=target,
    )
    return {f.column: f for f in findings.columns}, findings


CASES = {
    "numbers": (CHANCE.normal(size=ROWS), "number", {}),
    "whole numbers as text": (
        [str(v) for v in CHANCE.integers(0, 90, ROWS)],
        "number",
        {},
    ),
    "booleans": ([True, False] * (ROWS // 2), "binary", {}),
    "zeros and ones": ([0, 1, 1, 0] * (ROWS // 4), "binary", {}),
    "two words": (["Male", "Female", "Male", "Male"] * (ROWS // 4), "binary", {}),
    "a category": ([f"city {i % 7}" for i in range(ROWS)], "category", {}),
    "a category with ?": (
        ["?" if i % 10 == 0 else f"city {i % 7}" for i in range(ROWS)],
        "category",
        {"na": ["?"]},
    ),
    "numbers with one word": (
        ["Not yet rated" if i % 40 == 0 else str(i % 11 / 2) for i in range(ROWS)],
        "number",
        {"na": ["Not yet rated"]},
    ),
    "numbers with two markers": (
        [{0: "N/A", 1: "-"}.get(i % 20, str(i % 30 + 0.5)) for i in range(ROWS)],
        "number",
        {"na": ["-", "N/A"]},
    ),
    "postal codes": ([f"{i % 50:05d}" for i in range(ROWS)], "category", {}),
    "ISO text": (
        [
            f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}T{i % 24:02d}:00:00Z"
            for i in range(ROWS)
        ],
        "timestamp",
        {},
    ),
    "German dates": (
        [f"{i % 28 + 1:02d}.{i % 12 + 1:02d}.2025" for i in range(ROWS)],
        "timestamp",
        {"format": "%d.%m.%Y"},
    ),
    "American dates": (
        [f"{i % 12 + 1:02d}/{i % 28 + 1:02d}/2025" for i in range(ROWS)],
        "timestamp",
        {"format": "%m/%d/%Y"},
    ),
    "real timestamps": (
        np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(3, "h"),
        "timestamp",
        {},
    ),
    "created_at": (
        1_700_000_000 + CHANCE.integers(0, 10**7, ROWS),
        "timestamp",
        {"unit": "s"},
    ),
    "vectors": ([[0.5 * i, 1.0, 2.0] for i in range(ROWS)], "vector", {"length": 3}),
    "student_id": ([i % 40 for i in range(ROWS)], "category", {}),
    "essays": (
        [f"the quick brown fox number {i} jumps over the lazy dog" for i in range(ROWS)],
        "text",
        {},
    ),
    "addresses": ([f"{i} City Road" for i in range(ROWS)], "text", {}),
    "ragged lists": (
        [[1.5] * (i % 5 + 1) for i in range(ROWS)],
        "sequence",
        {"unit": "numbers"},
    ),
    "lists of codes": ([[i % 7] * (i % 2) + [i % 3] for i in range(ROWS)], "set", {}),
    "word lists": (
        [["a", "b"][: i % 3] + ["c"] * (i % 2) for i in range(ROWS)],
        "set",
        {},
    ),
    "tags": (
        [
            "; ".join(["red", "green", "dark blue"][i % 3 :: i % 2 + 1])
            for i in range(ROWS)
        ],
        "set",
        {"delimiter": ";"},
    ),
    "label ids": (
        [
            ",".join(sorted({str(i % 28), str(i % 5)})) if i % 4 == 0 else str(i % 28)
            for i in range(ROWS)
        ],
        "set",
        {},
    ),
    "names with commas": ([f"Family{i}, Given{i % 30}" for i in range(ROWS)], "text", {}),
    "a dictionary": (
        pa.array([f"c{i % 5}" for i in range(ROWS)]).dictionary_encode(),
        "category",
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_types(name):
    values, expected, options = CASES[name]
    found, findings = proposed(**{name: values})
    assert (found[name].type, found[name].options) == (expected, options), found[name].why
    recipe, text = recipe_of(findings)
    assert (
        recipe.inputs[name].type == expected
        and f"# {'LOOK: ' if found[name].loud else ''}{found[name].why}" in text
    )


LEFT_OUT = {
    "constant": ([7] * ROWS, "constant", "in every row"),
    "missing": (pa.nulls(ROWS, pa.float64()), "constant", "missing in every row"),
    "only markers": (["NA", "?"] * (ROWS // 2), "constant", "stand for a missing value"),
    "customer_id": (list(range(5_000, 5_000 + ROWS)), "identifier", "identifier"),
    "counter": (list(range(ROWS)), "identifier", "counts the rows"),
    "uuids": (
        [str(uuid.UUID(int=i * 977)) for i in range(ROWS)],
        "identifier",
        "identifiers",
    ),
    "links": ([f"https://example.org/{i}" for i in range(ROWS)], "identifier", "links"),
    "hashes": (
        [hashlib.md5(str(i).encode()).hexdigest() for i in range(ROWS)],
        "identifier",
        "identifiers",
    ),
    "half known words": (
        [f"w{i % 300}" for i in range(ROWS)],
        "text",
        "hardly any recurs",
    ),
    "lists of ids": ([[f"u{i}", f"v{i}"] for i in range(ROWS)], "list", "lists"),
    "objects": ([{"x": i} for i in range(ROWS)], "list", "object"),
    "json text": ([f'{{"x": {i % 9}}}' for i in range(ROWS)], "list", "JSON"),
    "bytes": ([b"abc", b"def"] * (ROWS // 2), "text", "bytes"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_and_why(name):
    values, role, words = LEFT_OUT[name]
    found, findings = proposed(**{name: values})
    assert (
        found[name].type is None and found[name].role == role and words in found[name].why
    )
    recipe, text = recipe_of(findings)
    assert name not in recipe.inputs and f"#   {name}: " in text
    if found[name].hint:
        assert parse_yaml(found[name].hint, where="hint")["derive"]


def test_a_column_that_gives_the_target_away_is_left_out_loudly():
    truth = np.array(["no", "yes"])[CHANCE.integers(0, 2, ROWS)]
    yes = truth == "yes"
    found, findings = proposed(
        y=truth,
        copy=np.where(yes, "granted", "refused"),
        amount=np.where(yes, 100 + CHANCE.random(ROWS), CHANCE.random(ROWS)),
        paid_on=pa.array(
            [f"2026-01-{i % 28 + 1:02d}" if yes[i] else None for i in range(ROWS)]
        ),
        honest=yes + CHANCE.normal(size=ROWS),
        honest_too=CHANCE.normal(size=ROWS),
    )
    assert {n for n, f in found.items() if f.role == "leak"} == {
        "copy",
        "amount",
        "paid_on",
    }
    assert all(f.loud for f in found.values() if f.role == "leak")
    assert found["honest"].type == found["honest_too"].type == "number"
    assert "LOOK: gives the target away" in recipe_of(findings)[1]


def test_a_leak_of_a_number_is_seen_through_its_disguise():
    y = CHANCE.gamma(2, size=ROWS)
    found, _ = proposed(
        y=y, logged=np.log(y), scaled=y * 2.2 + 5, honest=y + CHANCE.normal(size=ROWS)
    )
    assert (
        found["logged"].role == found["scaled"].role == "leak"
        and found["honest"].type == "number"
    )


def test_a_strong_column_is_kept_with_a_warning():
    truth = CHANCE.integers(0, 2, 2_000)
    strong = np.where(CHANCE.random(2_000) < 0.97, truth, 1 - truth)
    found, _ = proposed(
        y=np.array(["no", "yes"])[truth],
        strong=[f"s{v}{i % 3}" for i, v in enumerate(strong)],
    )
    assert (
        found["strong"].type == "category"
        and found["strong"].loud
        and "known before the answer" in found["strong"].why
    )


def test_of_two_columns_that_say_the_same_one_is_kept():
    level = CHANCE.integers(1, 17, ROWS)
    kelvin = CHANCE.normal(size=ROWS)
    found, _ = proposed(
        education=[f"level {v}" for v in level],
        number=level,
        kelvin=kelvin,
        celsius=kelvin - 273.15,
        other=CHANCE.normal(size=ROWS),
    )
    assert (
        found["education"].role == "duplicate"
        and "'number'" in found["education"].why
        and found["number"].type == "number"
    )
    assert (
        found["kelvin"].type == "number"
        and found["celsius"].role == "duplicate"
        and found["other"].type == "number"
    )


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        (["<=50K", "<=50K", ">50K", "<=50K"] * 100, "binary", {"positive": ">50K"}),
        (["yes", "yes", "no", "yes"] * 100, "binary", {"positive": "yes"}),
        ([True, False] * 200, "binary", {"positive": True}),
        ([0, 1, 0, 0] * 100, "binary", {"positive": 1}),
        ([0, 1, 2, 2] * 100, "category", {}),
        (["a", "b", "c", "?"] * 100, "category", {"na": ["?"]}),
        ([0.5 * i for i in range(400)], "number", {}),
        ([float("nan") if i % 9 == 0 else i * 1.5 for i in range(400)], "number", {}),
        (
            [str(i % 11 / 2) if i % 40 else "Not yet rated" for i in range(400)],
            "number",
            {"na": ["Not yet rated"]},
        ),
        (list(range(20, 90)) * 6, "number", {}),
    ],
)
def test_targets(values, kind, options):
    _, findings = proposed(y=values, x=np.random.default_rng(1).normal(size=len(values)))
    assert (findings.target.type, findings.target.options) == (kind, options)
    recipe, _ = recipe_of(findings)
    assert recipe.targets["y"].type == kind
    assert (recipe.split.stratify == "y") == (kind != "number")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None] * 50, "missing in all 50 rows"),
        (["NA"] * 50, "missing in all 50 rows"),
        (["one"] * 50, "has one class"),
        ([f"name {i}" for i in range(50)], "cannot be learnt"),
        ([[1.0, 2.0]] * 50, "Derive a number"),
        (np.datetime64("2026-01-01") + np.arange(50), "moment in time"),
        ([], "no rows"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(values, words):
    with pytest.raises(ContractError, match=words):
        look(
            pa.table(
                {"x": pa.array(np.arange(len(values)) * 0.5), "y": pa.array(values)}
            ),
            target="y",
        )


def test_a_target_that_is_not_there():
    with pytest.raises(RecipeError, match="Did you mean 'income'"):
        look(pa.table({"income": ["a"], "age": [3]}), target="incom")
    with pytest.raises(RecipeError, match="Did you mean 'income'"):
        look(pa.table({"income": ["a"], "age": [3]}), target="INCOME")


def test_without_a_target_types_are_proposed_all_the_same():
    _, findings = proposed(target=None, a=[1.5, 2.5, 3.0] * 10, b=["x", "y"] * 15)
    recipe, text = recipe_of(findings)
    assert (
        findings.target is None
        and set(recipe.inputs) == {"a", "b"}
        and not recipe.targets
        and "targets:" not in text
    )


def test_labels_that_look_alike_are_told():
    found, _ = proposed(city=["Oslo", "oslo", "Bergen", "Voss."] * 100)
    assert found["city"].loud and "look like one value" in found["city"].why


def test_rows_that_would_be_quarantined_are_told():
    found, _ = proposed(
        x=[str(i + 0.5) if i % 100 else f"broken {i % 200}" for i in range(ROWS)]
    )
    assert (
        found["x"].type == "number"
        and found["x"].loud
        and "quarantined" in found["x"].why
    )


def test_the_contract_that_is_proposed_can_be_uncommented():
    x = CHANCE.normal(size=ROWS)
    _, findings = proposed(
        x=x,
        whole=CHANCE.integers(-5, 10**7, ROWS),
        city=['a "b"', "c: d", "e"] * (ROWS // 3) + ["e"] * (ROWS % 3),
    )
    text = write_recipe(findings, source_declaration="files", name="n").replace(
        "source: files", "source: {type: files, path: x}"
    )
    head, rest = text.split("# expect:\n")
    recipe = load_recipe(
        parse_yaml(head + "expect:\n" + rest.replace("#   ", "  "), where="the draft")
    )
    assert set(recipe.expect) == {"x", "whole", "city"} and recipe.expect[
        "city"
    ].allowed == (
        "e",
        'a "b"',
        "c: d",
    )
    # A later file with somewhat larger values is no worse.
    assert recipe.expect["x"].min < x.min() - 1 and recipe.expect["x"].max > x.max() + 1


def test_proposed_bounds_leave_a_margin_and_keep_the_sign():
    values = np.array([0.0, *np.arange(1.0, 100.0), 100.0])
    assert _bounds(values) == (0.0, 198.0)
    assert _bounds(-values) == (-198.0, 0.0)
    assert _bounds(values / 1_000) == (0.0, 0.198)
    lower, upper = _bounds(np.full(5, 7.0))
    assert lower == 0.0 and upper >= 14.0


def test_a_wide_table_is_looked_at_in_seconds():
    import time

    # Processor time of this thread: what others do on the machine is not in it.
    wide = np.random.default_rng(5).normal(size=(2_000, 300))
    wide[:, 299] = wide[:, 0] * 3
    started = time.thread_time()
    found, _ = proposed(**{f"c{i}": wide[:, i] for i in range(300)})
    assert (
        time.thread_time() - started < 60
    )  # comparing each column with each other took minutes
    assert (
        found["c299"].role == "duplicate"
        and sum(f.type is None for f in found.values()) == 1
    )


def test_a_split_by_files_is_kept():
    _, findings = proposed(x=CHANCE.normal(size=ROWS))
    recipe, text = recipe_of(
        findings, {"type": "files", "train": "a.csv", "test": "b.csv"}
    )
    assert recipe.split.by == "files" and "the files decide" in text


def test_a_time_and_a_group_suggest_other_splits():
    _, findings = proposed(
        when=np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(3, "h"),
        student_id=[i % 40 for i in range(ROWS)],
    )
    _, text = recipe_of(findings)
    # Rows that come in the order of time are split by it; the group is a remark.
    assert "\nsplit: {by: time, on: when}" in text and "{on: student_id}" in text


awkward = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "on",
        "yes",
        "null",
        "1e3",
        "a: b",
        "# x",
        "- y",
        "'",
        '"',
        "a/b",
        "<x>",
        "\ufeffISO",
        "a\nb",
        "{",
        "2026-01-01",
        "~",
        " lead",
        "ÆØÅ",
        "a.b",
    ]
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(awkward, min_size=1, max_size=5, unique=True),
    awkward,
    st.lists(
        st.none()
        | st.text(max_size=9)
        | st.sampled_from(["?", "1", "2.5", "x: y #z", "NA"]),
        min_size=30,
        max_size=60,
    ),
)
def test_whatever_the_columns_are_called_and_hold_the_recipe_loads_and_names_them(
    names, target, values
):
    target = f"{target}!"
    rows = len(values)
    columns = {
        n: (
            pa.array(values[i:] + values[:i])
            if i % 2 == 0
            else pa.array(np.random.default_rng(i).normal(size=rows))
        )
        for i, n in enumerate(names)
    }
    columns[target] = pa.array([f"{target}{i % 2}" for i in range(rows)])
    findings = look(pa.table(columns), target=target)
    recipe, _ = recipe_of(findings)
    assert {c for n, f in recipe.inputs.items() for c in f.columns(n)} == {
        f.column for f in findings.inputs
    }
    ((name, feature),) = recipe.targets.items()
    assert feature.columns(name) == (target,)
    assert feature.positive in (f"{target}0".strip(), f"{target}1".strip())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(25, 200))
def test_any_columns_get_a_verdict_and_a_reason(seed, rows):
    chance = np.random.default_rng(seed)
    makers = [
        lambda: pa.array(chance.normal(size=rows), mask=chance.random(rows) < 0.3),
        lambda: pa.array(chance.integers(0, 3, rows)),
        lambda: pa.array(chance.integers(0, 10**6, rows).astype(str)),
        lambda: pa.array([None if chance.random() < 0.5 else "a" for _ in range(rows)]),
        lambda: pa.array([[1.0] * int(chance.integers(0, 3)) for _ in range(rows)]),
        lambda: pa.array([bytes([i % 256]) for i in range(rows)]),
        lambda: pa.array([float("inf")] * rows),
        lambda: pa.array(chance.integers(0, 2, rows).astype(bool)),
        lambda: pa.nulls(rows),
        lambda: pa.array(chance.integers(0, 10**9, rows), pa.timestamp("ms")),
        lambda: pa.array(
            chance.integers(0, 86_000, rows).astype(np.int32), pa.time32("s")
        ),
    ]
    table = pa.table(
        {f"c{i}": makers[int(chance.integers(0, len(makers)))]() for i in range(6)}
        | {"y": pa.array(chance.normal(size=rows))}
    )
    findings = look(table, target="y")
    assert len(findings.columns) == 6 and all(f.why for f in findings.columns)
    recipe_of(findings)
