"""What a value means never depends on the file it stands in, on what is beside it, or on a name that two
things share.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.core.errors import RecipeError, SourceError, UserError
from penstock.core.events import Events
from penstock.encode.series import steps
from penstock.encode.series.forecast_windows import windows_of
from penstock.encode.series.steps import RANK
from penstock.encode.series.unforecast import Unforecast
from penstock.formats.extract import extract
from penstock.formats.learnt import fit
from penstock.formats.options import Reading
from penstock.formats.reader import Input
from penstock.recipe.names import kept_names
from penstock.recipe.schema import load_recipe

# -- the names -----------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "source": {"type": "files", "path": "rows.csv"},
    "inputs": {"x": "number"},
    "targets": {"y": "binary"},
}


def checked(tmp_path: Path, **words: Any) -> list[str]:
    """What `check` finds wrong, held against a table that has every column named here."""
    names = ["x", "y", "z", "w", "refused", "Y", "X2"]
    (tmp_path / "rows.csv").write_text(
        ",".join(dict.fromkeys(n if n != "Y" else "Yy" for n in names))
        + "\n"
        + "1,u,v,1,n,u,2\n2,v,u,1,n,v,3\n",
        "utf-8",
    )
    (tmp_path / "recipe.json").write_text(json.dumps({**PLAIN, **words}), "utf-8")
    try:
        penstock.check(tmp_path / "recipe.json")
    except RecipeError as error:
        return [str(problem) for problem in error.problems]
    return []


CATEGORY = {"type": "category", "column": "z"}


@pytest.mark.parametrize(
    ("words", "path", "said"),
    [
        (
            {"targets": {"y": "binary", "y_probabilities": CATEGORY}},
            "targets.y_probabilities",
            "as the target 'y' does",
        ),
        (
            {"targets": {"y": "binary", "Y_Probabilities": CATEGORY}},
            "targets.Y_Probabilities",
            "as the target 'y' does",
        ),
        (
            {"targets": {"y": "binary", "Y": CATEGORY}},
            "targets.Y",
            "in the case of its letters only",
        ),
        (
            {"inputs": {"x": "number", "X": {"type": "number", "column": "X2"}}},
            "inputs.X",
            "in the case of its letters only",
        ),
        (
            {"inputs": {"Y": {"type": "number", "column": "X2"}}},
            "targets.y",
            "in the case of its letters only",
        ),
        (
            {"targets": {"refused": {"type": "binary", "column": "y"}}},
            "targets.refused",
            "why a row has no answer",
        ),
        (
            {"targets": {"Row_ID": {"type": "binary", "column": "y"}}},
            "targets.Row_ID",
            "what a row is called",
        ),
        (
            {"inputs": {"row_id": {"type": "number", "column": "x"}}},
            "inputs.row_id",
            "Penstock's own name",
        ),
        (
            {"targets": {"w": {"type": "binary", "column": "y"}}, "weight": "w"},
            "weight",
            "the target 'w' answers in a column",
        ),
        ({"keep": ["y"]}, "keep[0]", "'y_kept'"),
        (
            {"targets": {"X2": {"type": "binary", "column": "y"}}, "keep": ["z", "X2"]},
            "keep[1]",
            "the target 'X2' answers",
        ),
        ({"keep": ["refused"]}, "keep[0]", "why a row has no answer"),
        ({"keep": ["z", "z"]}, "keep[1]", "is kept already"),
    ],
)
def test_check_finds_a_clash(
    tmp_path: Path, words: dict[str, Any], path: str, said: str
) -> None:
    problems = checked(tmp_path, **words)
    assert any(problem.startswith(path) and said in problem for problem in problems), (
        problems
    )


def test_check_finds_all_clashes_at_once(tmp_path: Path) -> None:
    words = {
        "targets": {
            "y": "binary",
            "y_probabilities": CATEGORY,
            "refused": {"type": "binary", "column": "y"},
        },
        "keep": ["y", "refused"],
    }
    problems = checked(tmp_path, **words)
    paths = {problem.split(":")[0].split(" ")[0] for problem in problems}
    assert {
        "targets.y_probabilities",
        "targets.refused",
        "keep[0]",
        "keep[1]",
    } <= paths, problems


def test_names_that_only_look_alike_are_no_clash(tmp_path: Path) -> None:
    words = {
        "targets": {"y": "binary", "probabilities": CATEGORY},
        "keep": ["w"],
        "weight": "w",
        "inputs": {"weight": {"type": "number", "column": "x"}},
    }
    assert checked(tmp_path, **words) == []


def test_a_kept_column_gets_a_name_that_nothing_else_has() -> None:
    answers = ["y", "y_probabilities"]
    assert kept_names(["id", "y"], answers) == {"id": "id", "y": "y_kept"}
    assert kept_names(["y", "y_kept"], answers) == {"y": "y_kept_2", "y_kept": "y_kept"}
    assert kept_names(["Y", "refused"], answers) == {
        "Y": "Y_kept",
        "refused": "refused_kept",
    }


# -- the parts of one source: headers ------------------------------------------------------------------------


def rows_of(
    folder: Path, parts: dict[str, str], scratch: str = "scratch", **reading: Any
) -> tuple[pa.Table, list[str]]:
    """What is read of the parts, united, and what was said."""
    inputs = []
    for name, text in parts.items():
        (folder / name).write_text(text, "utf-8")
        inputs.append(Input(name, str(folder / name), Reading(**reading)))
    heard: list[str] = []
    made = extract(
        inputs,
        folder / scratch,
        memory_bytes=256 << 20,
        events=Events(lambda event: heard.append(str(event.fields.get("text", "")))),
    )
    table = pa.concat_tables([pq.read_table(path) for path in made.parquet])
    assert made.rejected == 0
    return table.drop_columns([ROW_FILE, ROW_NUMBER]), heard


def test_a_value_that_equals_a_column_name_makes_no_header_data(tmp_path: Path) -> None:
    parts = {
        f"part-{i}.csv": (
            "x,c,y\n"
            + "".join(f"{k / 7:.3f},{letters[k % 3]},{'uv'[k % 2]}\n" for k in range(40))
        )
        for i, letters in enumerate(("klm", "abc"))
    }
    table, _ = rows_of(tmp_path, parts)
    assert (
        table.column_names == ["x", "c", "y"]
        and table.num_rows == 80
        and table["y"].null_count == 0
    )


@pytest.mark.parametrize(
    ("second", "names"),
    [
        (
            "y,c,x\nu,x,1.5\n",
            ["x", "c", "y"],
        ),  # another order, and the value `x` in the column `c`
        ("x,y\n1.5,u\n", ["x", "c", "y"]),  # a column less
        ("x,c,y,more\n1.5,c,u,9\n", ["x", "c", "y", "more"]),  # a column more
        ("X,C,Y\n1.5,C,u\n", ["x", "c", "y"]),  # other letters
        ("x;c;y\n1.5;c;u\n", ["x", "c", "y"]),  # another delimiter
    ],
)
def test_another_header_is_mapped_by_name(
    tmp_path: Path, second: str, names: list[str]
) -> None:
    table, heard = rows_of(
        tmp_path, {"a.csv": "x,c,y\n0.5,k,u\n0.25,l,v\n", "b.csv": second}
    )
    assert table.column_names == names
    assert table["x"].to_pylist() == [0.5, 0.25, 1.5] and table["y"].to_pylist() == [
        "u",
        "v",
        "u",
    ]
    if len(names) > 3 or table["c"].null_count:
        assert any("lacks columns" in line for line in heard)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x,c,y\n0.5,k,u\n", "1.5,c,u\n2.5,k,v\n"),  # no header, in numbers
        (
            "name,city\nann,bergen\n",
            "bob,oslo\neve,oslo\n",
        ),  # no header, nothing but text
        ("x,c,y\n0.5,k,u\n", "price,size,kind\n1.5,2,u\n"),  # a header of another table
    ],
)
def test_a_part_without_the_others_names_is_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    with pytest.raises(SourceError, match="shares too few names"):
        rows_of(tmp_path, {"a.csv": first, "b.csv": second})
    with pytest.raises(SourceError, match="shares too few names"):
        rows_of(tmp_path, {"a.csv": second, "b.csv": first})


def test_parts_that_all_lack_a_header_stay_without(tmp_path: Path) -> None:
    table, _ = rows_of(tmp_path, {"a.csv": "1,k\n2,l\n", "b.csv": "3,k\n4,m\n"})
    assert table.column_names == ["column_1", "column_2"] and table.num_rows == 4


def test_decimal_commas_do_not_outvote_the_delimiter(tmp_path: Path) -> None:
    table, _ = rows_of(tmp_path, {"a.csv": "a;b\n" + "1,5;2,5\n" * 40})
    assert table.column_names == ["a", "b"] and table["a"].to_pylist() == ["1,5"] * 40


VALUES = [
    "1",
    "01",
    "1.0",
    "1e3",
    "",
    "NA",
    "x",
    "true",
    "True",
    "2024-01-05",
    "2024-01-05T10:00:00Z",
    "c",
    "t",
    "9007199254740993",
]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cells=st.lists(
        st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)),
        min_size=2,
        max_size=8,
    ),
    data=st.data(),
)
def test_rows_split_into_any_parts_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    lines = [f"{i},{c},{t}" for i, (c, t) in enumerate(cells)]
    cut = data.draw(st.integers(1, len(lines) - 1))

    def typed(parts: dict[str, list[str]], scratch: str) -> list[dict[str, Any]]:
        table, _ = rows_of(
            folder,
            {name: "\n".join(["n,c,t", *some]) + "\n" for name, some in parts.items()},
            scratch,
            header=True,
        )
        return sorted(table.to_pylist(), key=lambda row: row["n"])

    one = typed({"all.csv": lines}, "one")
    assert typed({"p0.csv": lines[:cut], "p1.csv": lines[cut:]}, "two") == one
    assert typed({"p0.csv": lines[cut:], "p1.csv": lines[:cut]}, "three") == one


# -- the neighbours: series ----------------------------------------------------------------------------------

SERIES: dict[str, Any] = {
    "source": {"type": "files", "path": "rows.csv"},
    "samples": {"time": "t", "entity": ["id"]},
    "split": {"by": "time", "on": "t"},
    "inputs": {"past": {"type": "series", "columns": ["v"], "window": 12}},
    "targets": {"ahead": {"type": "series", "columns": ["v"], "horizon": 3}},
}
START = dt.datetime(2024, 1, 1)
HOUR_US = 3_600_000_000


def hourly(
    name: str, hours: list[float], *, bad: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    return [
        {
            "id": name,
            "t": START + dt.timedelta(hours=h),
            "v": "bad" if i in bad else f"{h / 7:.3f}",
        }
        for i, h in enumerate(hours)
    ]


def forecast(
    tmp_path: Path, rows: list[dict[str, Any]], *, every: bool = False
) -> tuple[dict[str, int], dict[str, str], Any, list[str]]:
    """Windows by series, refused series with their reasons, the tally, and the reasons of refused steps."""
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), scratch / "new.parquet")
    refused: dict[str, str] = {}
    aside: list[str] = []
    unforecast = Unforecast(
        12,
        ["id"],
        lambda last, reasons: refused.update(
            zip(last["id"].to_pylist(), reasons, strict=True)
        ),
    )

    def set_aside(table: pa.Table, accepted: Any) -> None:
        assert RANK in table.column_names
        aside.extend(
            "; ".join(map(str, problems)) for problems in accepted.refused.values()
        )

    windows: dict[str, int] = {}
    found = windows_of(
        [scratch / "new.parquet"],
        load_recipe(SERIES),
        ["id", "t", "past"],
        scratch / "work",
        every=every,
        set_aside=set_aside,
        unforecast=unforecast,
        distance=HOUR_US,
    )
    for table in found:
        for name in table["id"].to_pylist():
            windows[name] = windows.get(name, 0) + 1
    return windows, refused, unforecast.tally, aside


@pytest.mark.parametrize("every", [False, True])
def test_every_series_is_forecast_or_refused(
    tmp_path: Path, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        steps, "CHUNK_ROWS", 7
    )  # so that series go on from chunk to chunk
    whole = [float(h) for h in range(30)]
    gone = [*whole[:20], *(h + 90.0 for h in whole[:4])]
    rows = [
        *hourly("a", whole),
        *hourly("b", [24.0 * h for h in whole]),
        *hourly("c", whole[:5]),
        *hourly("d", whole, bad=tuple(range(30))),
        *hourly("e", gone),
        *hourly("f", whole),
        *hourly("g", whole[:1]),
    ]
    rows += [{**rows[-2], "id": "f"}]  # a second step at the last time of f
    windows, refused, tally, aside = forecast(tmp_path, rows, every=every)
    assert set(windows) == {"a", "e", "f"} and set(refused) == {"b", "c", "d", "g"}
    assert (
        "5 steps in a row" in refused["c"]
        and "none of its steps could be taken" in refused["d"]
        and "'bad' is not a number" in refused["d"]
    )
    assert "1 step in a row at its end (of 30" in refused["b"]
    assert (tally.series, tally.forecast, tally.refused, tally.late) == (7, 3, 4, 1)
    assert tally.steps + tally.left + len(aside) == len(rows)
    assert windows["a"] == (19 if every else 1)


def test_what_is_said_of_a_series_does_not_depend_on_the_others(tmp_path: Path) -> None:
    daily = hourly("b", [24.0 * h for h in range(30)])
    twice = hourly("t", [*map(float, range(20)), 19.0])
    alone = [forecast(tmp_path, rows)[:2] for rows in (daily, twice)]
    windows, refused, _, _ = forecast(
        tmp_path, [*hourly("a", [float(h) for h in range(30)]), *daily, *twice]
    )
    assert alone[0] == ({}, {"b": refused["b"]})
    assert alone[1] == ({"t": 1}, {}) and windows == {"a": 1, "t": 1}


def test_a_series_that_comes_twice_at_one_time_is_not_the_end_of_the_others(
    tmp_path: Path,
) -> None:
    windows, refused, tally, aside = forecast(
        tmp_path,
        [*hourly("a", [float(h) for h in range(30)]), *hourly("t", [0.0, 0.0, 1.0, 1.0])],
    )
    assert (
        windows == {"a": 1}
        and "another step of the series as well" in refused["t"]
        and len(aside) == 4
        and tally.series == 2
    )


# -- the file: what was learnt decides how it is read --------------------------------------------------------

WORDS = [
    *VALUES,
    "0",
    "-0",
    "7",
    "7.0",
    "007",
    "7.50",
    "1E5",
    "TRUE",
    "False",
    "nan",
    "inf",
    "2024-01-06 10:00:00",
    "12345678901234567890",
    "-1",
    ".5",
    "+5",
]
KINDS = [
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.string(),
]


def fitted(array: pa.Array, kind: pa.DataType) -> list[tuple[Any, Any]]:
    good, others = fit(array, kind)
    assert good.type.equals(kind) and len(good) == len(array)
    beside = [None] * len(array) if others is None else others.to_pylist()
    return [(repr(a), b) for a, b in zip(good.to_pylist(), beside, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.sampled_from(WORDS)
        | st.none()
        | st.text(alphabet="-+.0123456789eE", max_size=6),
        min_size=1,
        max_size=8,
    ),
    kind=st.sampled_from(KINDS),
)
def test_a_text_is_read_alone_as_among_others(
    texts: list[str | None], kind: pa.DataType
) -> None:
    together = fitted(pa.array(texts, pa.string()), kind)
    assert together == [fitted(pa.array([text], pa.string()), kind)[0] for text in texts]
    for text, (good, other) in zip(texts, together, strict=True):
        assert (
            text is None or good != "None" or other == text or text.lower() == "nan"
        )  # nothing is lost


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", pa.int64(), 7),
        ("7.0", pa.int64(), 7),
        ("1e3", pa.int64(), 1000),
        ("007", pa.int64(), None),
        ("7.5", pa.int64(), None),
        ("9007199254740993", pa.int64(), 9007199254740993),
        ("9007199254740993", pa.float64(), None),
        ("1E5", pa.float64(), 100000.0),
        ("01", pa.float64(), None),
        ("+5", pa.float64(), None),
        ("TRUE", pa.bool_(), True),
        ("0", pa.bool_(), False),
        ("yes", pa.bool_(), None),
        ("never", pa.timestamp("us"), None),
    ],
)
def test_a_text_is_of_the_learnt_type_or_stays_a_text(
    text: str, kind: pa.DataType, value: Any
) -> None:
    good, others = fit(pa.array([text]), kind)
    assert good[0].as_py() == value and (
        (others is None) if value is not None else others[0].as_py() == text
    )


def test_a_forced_type_understands_what_it_did_in_training() -> None:
    good, others = fit(pa.array(["007", "+5", "A7"]), pa.int64(), forced="integer")
    assert good.to_pylist() == [7, 5, None] and others.to_pylist() == [None, None, "A7"]
    assert fit(pa.array(["yes", "N"]), pa.bool_(), forced="boolean")[0].to_pylist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("array", "kind", "good", "others"),
    [
        (pa.array([1.0, 2.5, None]), pa.int64(), [1, None, None], [None, "2.5", None]),
        (pa.array([1, 2**53 + 1]), pa.float64(), [1.0, None], [None, "9007199254740993"]),
        (pa.array([True, False]), pa.int64(), [1, 0], None),
        (pa.array([1, 0, 5]), pa.bool_(), [True, False, None], [None, None, "5"]),
        (pa.array([1.0, 1.5]), pa.string(), ["1", "1.5"], None),
        (pa.array([float("nan"), 3.0]), pa.int64(), [None, 3], None),
        (pa.array([1_700_000_000]), pa.timestamp("us"), [None], ["1700000000"]),
        (pa.array(["7", "x"]).dictionary_encode(), pa.int64(), [7, None], [None, "x"]),
    ],
)
def test_another_type_than_was_learnt(
    array: pa.Array, kind: pa.DataType, good: list[Any], others: list[Any] | None
) -> None:
    found, beside = fit(array, kind)
    assert (
        found.to_pylist() == good
        and (None if beside is None else beside.to_pylist()) == others
    )


TABLE_ROWS = 240


def learnt_table() -> pa.Table:
    """Columns of every type that text may be taken for; each tells the target something."""
    import random

    chance = random.Random(4)
    rows = [
        {
            "i": chance.choice([1, 2, 7]),
            "f": chance.choice([0.5, 1.0, 1000.0]),
            "b": chance.random() < 0.5,
            "t": dt.datetime(2024, 1, chance.randint(1, 6)),
            "s": chance.choice(["1.50", "007", "1e5", "TRUE", "NA", "2024-01-05", "x"]),
            "n": chance.randint(0, 9),
            "d": chance.choice(["1", "2", "12"]),
        }
        for _ in range(TABLE_ROWS)
    ]
    y = [
        "yes"
        if (row["i"] == 7) + row["b"] + (row["s"] in ("007", "TRUE", "NA")) >= 2
        else "no"
        for row in rows
    ]
    return (
        pa.Table.from_pylist(rows)
        .append_column("y", pa.array(y))
        .append_column("id", pa.array(range(TABLE_ROWS)))
    )


LEARNT: dict[str, Any] = {
    "name": "learnt",
    "seed": 3,
    "source": {"type": "files", "path": "lake", "na": ["?"], "rename": {"When": "t"}},
    "keep": [],
    "inputs": {
        "i": "category",
        "f": "category",
        "b": "category",
        "t": "category",
        "s": "category",
        "n": "number",
        "d": "category",
    },
    "targets": {"y": "binary"},
    "model": {"combiner": {"type": "mlp", "width": 16, "depth": 1}},
}
COLUMNS = ["i", "f", "b", "t", "s", "n", "d"]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.bundle import made

    return made.make(tmp_path_factory.mktemp("learnt"), LEARNT, learnt_table())[0]


def predicted(
    bundle: Any, folder: Path, name: str, text: str | bytes, **words: Any
) -> list[dict[str, Any]]:
    """What `predict` writes of a file; rows in are rows out."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    counts = penstock.predict(
        bundle,
        source={"path": str(folder / name), **words.pop("source", {})},
        output=folder / f"{name}.out.jsonl",
        **words,
    )
    lines = [
        json.loads(line)
        for line in (folder / f"{name}.out.jsonl").read_text("utf-8").splitlines()
    ]
    assert (
        counts["rows"]
        == counts["predicted"] + counts["refused"] + counts["unreadable"]
        == len(lines) + counts["unreadable"]
    )
    return lines


def share(line: dict[str, Any]) -> Any:
    return line["refused"] or round(line["y_probabilities"]["yes"], 4)


ROWS = [
    ["7", "0.5", "true", "2024-01-05", "TRUE", "3", "12"],
    ["2", "1000.0", "false", "2024-01-06", "007", "4", "1"],
    ["1", "1e3", "True", "2024-01-02T00:00:00", "1.50", "5.0", "2"],
    ["7.0", "1", "1", "2024-01-05 00:00:00", "1e5", "07", "12"],
    ["A7", "x", "Unknown", "never", "NA", "6", "9"],
    ["?", "", "?", "?", "2024-01-05", "", "?"],
    ["007", "NaN", "0", "2024-01-05", "x", "7", "1.0"],
    ["1", "0.5", "false", "2024-01-01", "NA", "not a number", "1"],
]


def as_csv(
    rows: list[list[str]], header: list[str] = COLUMNS, delimiter: str = ","
) -> str:
    return "\n".join(delimiter.join(row) for row in [header, *rows]) + "\n"


def test_no_row_changes_what_another_means(learnt: Any, tmp_path: Path) -> None:
    whole = [share(line) for line in predicted(learnt, tmp_path, "all.csv", as_csv(ROWS))]
    assert [i for i, found in enumerate(whole) if isinstance(found, str)] == [7] and len(
        set(whole)
    ) >= 6
    for i, row in enumerate(ROWS):
        assert (
            share(predicted(learnt, tmp_path, "one.csv", as_csv([row]))[0]) == whole[i]
        ), row
    back = [
        share(line)
        for line in predicted(learnt, tmp_path, "back.csv", as_csv(ROWS[::-1]))
    ]
    assert back[::-1] == whole
    for i, row in enumerate(ROWS[:-1]):
        record = {
            name: None if value == "" else value
            for name, value in zip(COLUMNS, row, strict=True)
        }
        # over HTTP, from Python
        assert round(learnt.predict([record])[0]["y_probabilities"]["yes"], 4) == whole[i]
    many = learnt.predict([dict(zip(COLUMNS, row, strict=True)) for row in ROWS[:-1]])
    assert [round(one["y_probabilities"]["yes"], 4) for one in many] == whole[:-1]


def test_a_header_that_comes_again_is_counted_and_answered_by_nothing(
    learnt: Any, tmp_path: Path
) -> None:
    alone = [share(line) for line in predicted(learnt, tmp_path, "one.csv", as_csv(ROWS))]
    assert [
        share(line)
        for line in predicted(learnt, tmp_path, "two.csv", as_csv(ROWS) + as_csv(ROWS))
    ] == alone * 2


def test_the_training_rows_written_as_csv_are_the_training_rows(
    learnt: Any, tmp_path: Path
) -> None:
    table = learnt_table().slice(0, 40)
    wanted = [
        round(one["yes"], 4)
        for one in learnt.predict(table)["y_probabilities"].to_pylist()
    ]
    rows = [
        ["" if v is None else str(v) for v in row.values()]
        for row in table.select(COLUMNS).to_pylist()
    ]
    assert [
        share(line) for line in predicted(learnt, tmp_path, "rows.csv", as_csv(rows))
    ] == wanted
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [
        share(line)
        for line in predicted(
            learnt, tmp_path, "rows.parquet", (tmp_path / "rows.parquet").read_bytes()
        )
    ] == wanted
    lines = "".join(
        json.dumps({**row, "t": str(row["t"])}) + "\n" for row in table.to_pylist()
    )
    assert [
        share(line) for line in predicted(learnt, tmp_path, "rows.jsonl", lines)
    ] == wanted
    frame = table.to_pandas()
    assert [
        round(one["yes"], 4) for one in learnt.predict(frame)["y_probabilities"]
    ] == wanted
    texts = frame.astype(dict.fromkeys(COLUMNS, object)).map(str)
    assert [
        round(one["yes"], 4) for one in learnt.predict(texts)["y_probabilities"]
    ] == wanted


JSON_VALUES = [
    1,
    7,
    7.0,
    "7",
    "007",
    2.5,
    True,
    False,
    "true",
    None,
    "x",
    1000,
    "1e3",
    "2024-01-05",
    "1.50",
]


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.lists(
            st.sampled_from(JSON_VALUES), min_size=len(COLUMNS), max_size=len(COLUMNS)
        ),
        min_size=2,
        max_size=3,
    )
)
def test_json_lines_alone_as_together(
    learnt: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[list[Any]]
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    texts = [json.dumps(record) + "\n" for record in records]
    whole = [
        share(line) for line in predicted(learnt, folder, "all.jsonl", "".join(texts))
    ]
    assert whole == [
        share(predicted(learnt, folder, "one.jsonl", text)[0]) for text in texts
    ]
    for record, found in zip(records, whole, strict=True):
        if isinstance(found, str):
            with pytest.raises(UserError):
                learnt.predict([record])
        else:
            assert (
                round(learnt.predict([record])[0]["y_probabilities"]["yes"], 4) == found
            ), record


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (as_csv(ROWS[:2], delimiter=";"), None),
        (as_csv(ROWS[:2], delimiter="|"), None),  # another delimiter
        # the name that files had
        (
            as_csv(
                ROWS[:2], header=[name if name != "t" else "When" for name in COLUMNS]
            ),
            None,
        ),
        (
            as_csv(ROWS[:2], header=[name.upper() for name in COLUMNS]),
            None,
        ),  # other letters
        (
            as_csv([["x", "x", "x", "x", "s", "1", "i"], *ROWS[:2]]),
            None,
        ),  # values that are names of columns
        (
            "\n".join(",".join(row) for row in ROWS[:2]) + "\n",
            "Columns found: 7",
        ),  # no names at all
    ],
)
def test_the_names_that_were_learnt_tell_the_header(
    learnt: Any, tmp_path: Path, text: str, said: str | None
) -> None:
    if said is not None:
        with pytest.raises(UserError, match=said):
            predicted(learnt, tmp_path, "new.csv", text)
        return
    wanted = [
        share(line) for line in predicted(learnt, tmp_path, "plain.csv", as_csv(ROWS[:2]))
    ]
    assert [share(line) for line in predicted(learnt, tmp_path, "new.csv", text)][
        -2:
    ] == wanted


def test_the_truth_is_kept_beside_the_answer(learnt: Any, tmp_path: Path) -> None:
    rows = [
        [*row, truth, id]
        for row, truth, id in zip(ROWS[:2], ("no", "yes"), ("7", "B8"), strict=True)
    ]
    lines = predicted(
        learnt,
        tmp_path,
        "truth.csv",
        as_csv(rows, [*COLUMNS, "y", "id"]),
        keep=["y", "id"],
    )
    assert [line["y_kept"] for line in lines] == ["no", "yes"] and all(
        line["y"] in ("yes", "no") for line in lines
    )
    # learnt as whole numbers: one that is none makes no value vanish
    assert [line["id"] for line in lines] == ["7", "B8"]
    assert (
        learnt.predict(
            [{**dict(zip(COLUMNS, ROWS[0], strict=True)), "y": "no"}], keep=["y"]
        )[0]["y_kept"]
        == "no"
    )


@pytest.mark.parametrize("text", ["", "1,0.5,true,2024-01-05,x,3\n"])
def test_a_file_that_lacks_a_column_says_so_with_rows_and_without(
    learnt: Any, tmp_path: Path, text: str
) -> None:
    with pytest.raises(
        UserError,
        match=r"lack what the model reads: d: is required.* Columns found: i, f, b, t, s, n\.",
    ):
        predicted(learnt, tmp_path, "new.csv", ",".join(COLUMNS[:-1]) + "\n" + text)


def test_no_rows_have_the_columns_of_rows(learnt: Any, tmp_path: Path) -> None:
    for name, rows in (("one.csv", ROWS[:1]), ("none.csv", [])):
        penstock.predict(
            learnt,
            source=_written(tmp_path / name, as_csv(rows)),
            output=tmp_path / f"{name}.out.csv",
            keep=["n"],
        )
    one, none = (
        (tmp_path / f"{name}.csv.out.csv").read_text("utf-8").splitlines()
        for name in ("one", "none")
    )
    assert none == one[:1] and len(one) == 2


def _written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            ["2.25", "1.50", "x"],
            ["2.25", "1.50"],
        ),  # text here; the lookup alone looks like numbers
        (
            ["1.50", "2.25", "3.00"],
            ["1.50", "2.25", "n.a."],
        ),  # numbers here; the lookup alone is text
        (["True", "False", "True"], ["True", "Unknown"]),
    ],
)
def test_a_lookup_is_typed_like_the_source(
    tmp_path: Path, ours: list[str], theirs: list[str]
) -> None:
    from penstock.core.store import Store
    from penstock.prepare.prepare import prepare

    (tmp_path / "rows.csv").write_text(
        "k,n\n" + "".join(f"{key},{i}\n" for i, key in enumerate(ours * 20)), "utf-8"
    )
    (tmp_path / "lookup.csv").write_text(
        "k,brought\n" + "".join(f"{key},b{i}\n" for i, key in enumerate(theirs)), "utf-8"
    )
    recipe = load_recipe(
        {
            "name": "joined",
            "source": {"type": "files", "path": "rows.csv"},
            "join": [{"source": {"type": "files", "path": "lookup.csv"}, "on": "k"}],
            "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        },
        base=tmp_path,
    )
    table = prepare(recipe, Store(tmp_path / "store"), Events()).table("train")
    found = {
        ours[n % len(ours)]: brought
        for n, brought in zip(
            table["n"].to_pylist(), table["brought"].to_pylist(), strict=True
        )
    }
    assert found == {
        key: f"b{theirs.index(key)}" if key in theirs else None for key in ours
    }


def test_an_object_of_another_shape_is_refused_alone(learnt: Any, tmp_path: Path) -> None:
    rows = learnt_table().slice(0, 3).to_pylist()
    good = "".join(json.dumps({**row, "t": str(row["t"])}) + "\n" for row in rows)
    odd = (
        '{"i": {"a": 1}, "f": 1, "b": true, "t": null, "s": "x", "n": 1, "d": "1"}\n{"i": [1], "f": 1, "b":'
        ' true, "t": null, "s": "x", "n": 1, "d": "1"}\n'
    )
    wanted = [share(line) for line in predicted(learnt, tmp_path, "good.jsonl", good)]
    assert [
        share(line) for line in predicted(learnt, tmp_path, "odd.jsonl", odd + good)
    ] == wanted
    reasons = (tmp_path / "odd.jsonl.out.jsonl.unreadable.jsonl").read_text("utf-8")
    assert (
        "expected one value in 'i', found an object" in reasons
        and "found a list" in reasons
    )


def test_fields_are_flattened_alike_in_all_parts(tmp_path: Path) -> None:
    lines = [
        '{"n": 0, "a": {"b": 1}}',
        '{"n": 1, "a": 2}',
        '{"n": 2, "a": 1.0}',
        '{"n": 3}',
    ]
    (tmp_path / "all").mkdir()
    one, _ = rows_of(tmp_path / "all", {"all.jsonl": "\n".join(lines) + "\n"})
    parts, _ = rows_of(
        tmp_path, {f"p{i}.jsonl": line + "\n" for i, line in enumerate(lines)}
    )
    assert sorted(parts.to_pylist(), key=lambda row: row["n"]) == one.to_pylist() and one[
        "a"
    ].to_pylist()[1:3] == ["2", "1"]


def test_a_run_that_goes_on_keeps_its_dataset(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from penstock.core.store import Store
    from penstock.pipeline.stages import Pipeline
    from penstock.prepare.prepare import prepare

    (tmp_path / "rows.csv").write_text(
        "x,y\n" + "".join(f"{i},{'uv'[i % 2]}\n" for i in range(60)), "utf-8"
    )
    recipe, store = (
        load_recipe({**PLAIN, "name": "resumed"}, base=tmp_path),
        Store(tmp_path / "store"),
    )
    first = prepare(recipe, store, Events()).reference
    (tmp_path / "rows.csv").write_text(
        "x,y\n" + "".join(f"A{i},{'uv'[i % 2]}\n" for i in range(60)), "utf-8"
    )
    pipeline = Pipeline(recipe, store, Events(), of=SimpleNamespace(dataset=first))  # type: ignore[arg-type]
    pipeline.prepare()
    assert (
        pipeline.outcome.dataset is not None
        and pipeline.outcome.dataset.reference == first
    )
