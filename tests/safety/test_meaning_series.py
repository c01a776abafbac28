"""A series is forecast or refused by itself, whatever series stand beside it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.encode.series import steps
from penstock.encode.series.forecast_windows import windows_of
from penstock.encode.series.steps import RANK
from penstock.encode.series.unforecast import Unforecast
from penstock.recipe.schema import load_recipe

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
