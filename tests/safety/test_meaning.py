"""What a value means never depends on the file it stands in, on what is beside it, or on a name that two things share."""

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
from penstock.core.errors import RecipeError, SourceError
from penstock.core.events import Events
from penstock.data.steps import RANK, windows_of
from penstock.data.unforecast import Unforecast
from penstock.formats.extract import extract
from penstock.formats.options import Reading
from penstock.formats.reader import Input
from penstock.recipe.names import kept_names
from penstock.recipe.schema import load_recipe

# -- the names -----------------------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"source": {"type": "files", "path": "rows.csv"}, "inputs": {"x": "number"}, "targets": {"y": "binary"}}


def checked(tmp_path: Path, **words: Any) -> list[str]:
    """What `check` finds wrong, held against a table that has every column named here."""
    names = ["x", "y", "z", "w", "refused", "Y", "X2"]
    (tmp_path / "rows.csv").write_text(",".join(dict.fromkeys(n if n != "Y" else "Yy" for n in names)) + "\n" + "1,u,v,1,n,u,2\n2,v,u,1,n,v,3\n", "utf-8")
    (tmp_path / "recipe.json").write_text(json.dumps({**PLAIN, **words}), "utf-8")
    try:
        penstock.check(tmp_path / "recipe.json")
    except RecipeError as error:
        return [str(problem) for problem in error.problems]
    return []


CATEGORY = {"type": "category", "column": "z"}


@pytest.mark.parametrize(("words", "path", "said"), [
    ({"targets": {"y": "binary", "y_probabilities": CATEGORY}}, "targets.y_probabilities", "as the target 'y' does"),
    ({"targets": {"y": "binary", "Y_Probabilities": CATEGORY}}, "targets.Y_Probabilities", "as the target 'y' does"),
    ({"targets": {"y": "binary", "Y": CATEGORY}}, "targets.Y", "in the case of its letters only"),
    ({"inputs": {"x": "number", "X": {"type": "number", "column": "X2"}}}, "inputs.X", "in the case of its letters only"),
    ({"inputs": {"Y": {"type": "number", "column": "X2"}}}, "targets.y", "in the case of its letters only"),
    ({"targets": {"refused": {"type": "binary", "column": "y"}}}, "targets.refused", "why a row has no answer"),
    ({"targets": {"Row_ID": {"type": "binary", "column": "y"}}}, "targets.Row_ID", "what a row is called"),
    ({"inputs": {"row_id": {"type": "number", "column": "x"}}}, "inputs.row_id", "Penstock's own name"),
    ({"targets": {"w": {"type": "binary", "column": "y"}}, "weight": "w"}, "weight", "the target 'w' answers in a column"),
    ({"keep": ["y"]}, "keep[0]", "'y_kept'"),
    ({"targets": {"X2": {"type": "binary", "column": "y"}}, "keep": ["z", "X2"]}, "keep[1]", "the target 'X2' answers"),
    ({"keep": ["refused"]}, "keep[0]", "why a row has no answer"),
    ({"keep": ["z", "z"]}, "keep[1]", "is kept already"),
])
def test_check_finds_a_clash(tmp_path: Path, words: dict[str, Any], path: str, said: str) -> None:
    problems = checked(tmp_path, **words)
    assert any(problem.startswith(path) and said in problem for problem in problems), problems


def test_check_finds_all_clashes_at_once(tmp_path: Path) -> None:
    words = {"targets": {"y": "binary", "y_probabilities": CATEGORY, "refused": {"type": "binary", "column": "y"}}, "keep": ["y", "refused"]}
    problems = checked(tmp_path, **words)
    paths = {problem.split(":")[0].split(" ")[0] for problem in problems}
    assert {"targets.y_probabilities", "targets.refused", "keep[0]", "keep[1]"} <= paths, problems


def test_names_that_only_look_alike_are_no_clash(tmp_path: Path) -> None:
    words = {"targets": {"y": "binary", "probabilities": CATEGORY}, "keep": ["w"], "weight": "w", "inputs": {"weight": {"type": "number", "column": "x"}}}
    assert checked(tmp_path, **words) == []


def test_a_kept_column_gets_a_name_that_nothing_else_has() -> None:
    answers = ["y", "y_probabilities"]
    assert kept_names(["id", "y"], answers) == {"id": "id", "y": "y_kept"}
    assert kept_names(["y", "y_kept"], answers) == {"y": "y_kept_2", "y_kept": "y_kept"}
    assert kept_names(["Y", "refused"], answers) == {"Y": "Y_kept", "refused": "refused_kept"}


# -- the parts of one source: headers --------------------------------------------------------------------------------------


def rows_of(folder: Path, parts: dict[str, str], scratch: str = "scratch", **reading: Any) -> tuple[pa.Table, list[str]]:
    """What is read of the parts, united, and what was said."""
    inputs = []
    for name, text in parts.items():
        (folder / name).write_text(text, "utf-8")
        inputs.append(Input(name, str(folder / name), Reading(**reading)))
    heard: list[str] = []
    made = extract(inputs, folder / scratch, memory_bytes=256 << 20, events=Events(lambda event: heard.append(str(event.fields.get("text", "")))))
    table = pa.concat_tables([pq.read_table(path) for path in made.parquet])
    assert made.rejected == 0
    return table.drop_columns([ROW_FILE, ROW_NUMBER]), heard


def test_a_value_that_equals_a_column_name_makes_no_header_data(tmp_path: Path) -> None:
    parts = {f"part-{i}.csv": "x,c,y\n" + "".join(f"{k / 7:.3f},{letters[k % 3]},{'uv'[k % 2]}\n" for k in range(40)) for i, letters in enumerate(("klm", "abc"))}
    table, _ = rows_of(tmp_path, parts)
    assert table.column_names == ["x", "c", "y"] and table.num_rows == 80 and table["y"].null_count == 0


@pytest.mark.parametrize(("second", "names"), [
    ("y,c,x\nu,x,1.5\n", ["x", "c", "y"]),  # another order, and the value `x` in the column `c`
    ("x,y\n1.5,u\n", ["x", "c", "y"]),  # a column less
    ("x,c,y,more\n1.5,c,u,9\n", ["x", "c", "y", "more"]),  # a column more
    ("X,C,Y\n1.5,C,u\n", ["x", "c", "y"]),  # other letters
    ("x;c;y\n1.5;c;u\n", ["x", "c", "y"]),  # another delimiter
])
def test_another_header_is_mapped_by_name(tmp_path: Path, second: str, names: list[str]) -> None:
    table, heard = rows_of(tmp_path, {"a.csv": "x,c,y\n0.5,k,u\n0.25,l,v\n", "b.csv": second})
    assert table.column_names == names
    assert table["x"].to_pylist() == [0.5, 0.25, 1.5] and table["y"].to_pylist() == ["u", "v", "u"]
    if len(names) > 3 or table["c"].null_count:
        assert any("lacks columns" in line for line in heard)


@pytest.mark.parametrize(("first", "second"), [
    ("x,c,y\n0.5,k,u\n", "1.5,c,u\n2.5,k,v\n"),  # no header, in numbers
    ("name,city\nann,bergen\n", "bob,oslo\neve,oslo\n"),  # no header, nothing but text
    ("x,c,y\n0.5,k,u\n", "price,size,kind\n1.5,2,u\n"),  # a header of another table
])
def test_a_part_without_the_others_names_is_refused(tmp_path: Path, first: str, second: str) -> None:
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


VALUES = ["1", "01", "1.0", "1e3", "", "NA", "x", "true", "True", "2024-01-05", "2024-01-05T10:00:00Z", "c", "t", "9007199254740993"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)), min_size=2, max_size=8), data=st.data())
def test_rows_split_into_any_parts_are_the_same_rows(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("parts")
    lines = [f"{i},{c},{t}" for i, (c, t) in enumerate(cells)]
    cut = data.draw(st.integers(1, len(lines) - 1))

    def typed(parts: dict[str, list[str]], scratch: str) -> list[dict[str, Any]]:
        table, _ = rows_of(folder, {name: "\n".join(["n,c,t", *some]) + "\n" for name, some in parts.items()}, scratch, header=True)
        return sorted(table.to_pylist(), key=lambda row: row["n"])

    one = typed({"all.csv": lines}, "one")
    assert typed({"p0.csv": lines[:cut], "p1.csv": lines[cut:]}, "two") == one
    assert typed({"p0.csv": lines[cut:], "p1.csv": lines[:cut]}, "three") == one


# -- the neighbours: series ------------------------------------------------------------------------------------------------

SERIES: dict[str, Any] = {
    "source": {"type": "files", "path": "rows.csv"}, "samples": {"time": "t", "entity": ["id"]}, "split": {"by": "time", "on": "t"},
    "inputs": {"past": {"type": "series", "columns": ["v"], "window": 12}}, "targets": {"ahead": {"type": "series", "columns": ["v"], "horizon": 3}},
}
START = dt.datetime(2024, 1, 1)
HOUR_US = 3_600_000_000


def hourly(name: str, hours: list[float], *, bad: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [{"id": name, "t": START + dt.timedelta(hours=h), "v": "bad" if i in bad else f"{h / 7:.3f}"} for i, h in enumerate(hours)]


def forecast(tmp_path: Path, rows: list[dict[str, Any]], *, every: bool = False) -> tuple[dict[str, int], dict[str, str], Any, list[str]]:
    """Windows by series, refused series with their reasons, the tally, and the reasons of refused steps."""
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), scratch / "new.parquet")
    refused: dict[str, str] = {}
    aside: list[str] = []
    unforecast = Unforecast(12, ["id"], lambda last, reasons: refused.update(zip(last["id"].to_pylist(), reasons, strict=True)))

    def set_aside(table: pa.Table, accepted: Any) -> None:
        assert RANK in table.column_names
        aside.extend("; ".join(map(str, problems)) for problems in accepted.refused.values())

    windows: dict[str, int] = {}
    found = windows_of(
        [scratch / "new.parquet"], load_recipe(SERIES), ["id", "t", "past"], scratch / "work", every=every, set_aside=set_aside,
        unforecast=unforecast, distance=HOUR_US)
    for table in found:
        for name in table["id"].to_pylist():
            windows[name] = windows.get(name, 0) + 1
    return windows, refused, unforecast.tally, aside


@pytest.mark.parametrize("every", [False, True])
def test_every_series_is_forecast_or_refused(tmp_path: Path, every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.data.steps.CHUNK_ROWS", 7)  # so that series go on from chunk to chunk
    whole = [float(h) for h in range(30)]
    gone = [*whole[:20], *(h + 90.0 for h in whole[:4])]
    rows = [
        *hourly("a", whole), *hourly("b", [24.0 * h for h in whole]), *hourly("c", whole[:5]), *hourly("d", whole, bad=tuple(range(30))),
        *hourly("e", gone), *hourly("f", whole), *hourly("g", whole[:1]),
    ]
    rows += [{**rows[-2], "id": "f"}]  # a second step at the last time of f
    windows, refused, tally, aside = forecast(tmp_path, rows, every=every)
    assert set(windows) == {"a", "e", "f"} and set(refused) == {"b", "c", "d", "g"}
    assert "5 steps in a row" in refused["c"] and "none of its steps could be taken" in refused["d"] and "'bad' is not a number" in refused["d"]
    assert "1 step in a row at its end (of 30" in refused["b"]
    assert (tally.series, tally.forecast, tally.refused, tally.late) == (7, 3, 4, 1)
    assert tally.steps + tally.left + len(aside) == len(rows)
    assert windows["a"] == (19 if every else 1)


def test_what_is_said_of_a_series_does_not_depend_on_the_others(tmp_path: Path) -> None:
    daily = hourly("b", [24.0 * h for h in range(30)])
    twice = hourly("t", [*map(float, range(20)), 19.0])
    alone = [forecast(tmp_path, rows)[:2] for rows in (daily, twice)]
    windows, refused, _, _ = forecast(tmp_path, [*hourly("a", [float(h) for h in range(30)]), *daily, *twice])
    assert alone[0] == ({}, {"b": refused["b"]})
    assert alone[1] == ({"t": 1}, {}) and windows == {"a": 1, "t": 1}


def test_a_series_that_comes_twice_at_one_time_is_not_the_end_of_the_others(tmp_path: Path) -> None:
    windows, refused, tally, aside = forecast(tmp_path, [*hourly("a", [float(h) for h in range(30)]), *hourly("t", [0.0, 0.0, 1.0, 1.0])])
    assert windows == {"a": 1} and "another step of the series as well" in refused["t"] and len(aside) == 4 and tally.series == 2


