"""Samples of series: cut where they may be, in whatever pieces the steps come; the feed holds what requests
would encode to.
"""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.data import ROW_ID
from penstock.core.errors import ContractError, RecipeError
from penstock.core.events import Events
from penstock.encode.feed import Feed, feed_id, fit_encoding, write_feed
from penstock.encode.series import steps as steps_room
from penstock.encode.series.forecast_windows import windows_of
from penstock.encode.series.sampled_dataset import SampledDataset, as_samples
from penstock.encode.series.windows import (
    Anchors,
    Lagged,
    Reach,
    broken,
    season_of,
    usual_distance,
)
from penstock.shards.row_ids import row_id_halves
from tests.data.lake import Lake, adds_up
from tests.loader.flat import open_loader

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2024, 1, 1)


# -- numbers alone -------------------------------------------------------------------------------------------


def by_hand(
    segment: list[int], rank: list[int], back: int, ahead: int
) -> list[tuple[int, int]]:
    found = []
    for anchor in range(back, len(segment) - ahead + 1):
        window, target = range(anchor - back, anchor), range(anchor, anchor + ahead)
        if (
            len({segment[i] for i in [*window, *target]}) == 1
            and len({rank[i] for i in target}) == 1
            and all(rank[i] <= rank[anchor] for i in window)
        ):
            found.append((anchor, rank[anchor]))
    return found


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_anchors_are_those_found_by_hand_however_the_steps_come(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(0, 40))
    segment = (
        np.cumsum(
            data.draw(
                st.lists(st.sampled_from([0, 0, 0, 0, 1]), min_size=size, max_size=size)
            )
        )
        .astype(int)
        .tolist()
    )
    rank = (
        data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=size, max_size=size))
        if data.draw(st.booleans())
        else sorted(
            data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=size, max_size=size))
        )
    )
    back, ahead = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 4))
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=6))})
    anchors = Anchors(Reach(back, ahead))
    found = []
    for start, stop in pairwise(cuts):
        some, split = anchors.update(
            np.array(segment[start:stop], np.int64), np.array(rank[start:stop], np.int8)
        )
        found += list(zip(some.tolist(), split.tolist(), strict=True))
    wanted = by_hand(segment, rank, back, ahead)
    assert found == wanted
    complete = sum(
        len(set(segment[a - back : a + ahead])) == 1
        for a in range(back, size - ahead + 1)
    )
    assert anchors.straddling == complete - len(wanted)


def test_what_only_looks_back_may_begin_after_the_last_step() -> None:
    anchors = Anchors(Reach(3, 0))
    found, _ = anchors.update(np.zeros(5, np.int64), np.zeros(5, np.int8))
    assert found.tolist() == [3, 4, 5]


def test_strides_begin_anew_in_each_segment_and_split_and_do_not_mind_cuts() -> None:
    segment = np.repeat([0, 1], [30, 20]).astype(np.int64)
    rank = np.repeat([0, 1, 0, 2], [20, 10, 5, 15]).astype(np.int8)
    whole = Anchors(Reach(2, 2), (3, 4, 5)).update(segment, rank)
    assert whole[0][whole[1] == 0].tolist() == [2, 5, 8, 11, 14, 17, 32]
    assert whole[0][whole[1] == 1].tolist() == [20, 24, 28]
    assert whole[0][whole[1] == 2].tolist() == [35, 40, 45]
    pieces = Anchors(Reach(2, 2), (3, 4, 5))
    cut = [pieces.update(segment[i : i + 7], rank[i : i + 7]) for i in range(0, 50, 7)]
    assert np.concatenate([a for a, _ in cut]).tolist() == whole[0].tolist()


def test_distances() -> None:
    assert (
        usual_distance(np.array([2.0, 1.0, 1.0, 5.0])) == 1
        and usual_distance(np.array([0.0])) is None
    )
    assert broken(np.array([31, 28, 30, 61, 10]), 31.0).tolist() == [
        False,
        False,
        False,
        True,
        True,
    ]
    second = 10**6
    seasons = {
        3600: 24,
        900: 96,
        60: 1440,
        86_400: 7,
        7 * 86_400: 52,
        30 * 86_400: 12,
        91 * 86_400: 4,
        366 * 86_400: 1,
        1: 3600,
    }
    assert {at: season_of(at * second) for at in seasons} == seasons and season_of(
        None
    ) == 1


def test_the_naive_error_does_not_mind_cuts_gaps_or_holes() -> None:
    chance = np.random.default_rng(0)
    values, segment = chance.normal(size=(50, 2)), np.repeat([0, 1], [22, 28])
    values[7, 1] = np.nan
    lagged = Lagged(3, 2)
    for i in range(0, 50, 11):
        lagged.update(values[i : i + 11], segment[i : i + 11])
    changes = [
        abs(values[t] - values[t - 3])
        for t in range(3, 50)
        if segment[t] == segment[t - 3]
    ]
    assert np.allclose(lagged.result(), np.nanmean(changes, axis=0))
    assert Lagged(3, 1).result() == [None]


# -- from a lake to batches ----------------------------------------------------------------------------------


def table(
    hours: int = 120, *, shops: tuple[str, ...] = ("a", "b"), hole: int | None = 50
) -> pa.Table:
    """Two series, an hour a step, in no order; one of them lacks an hour, and some readings are missing."""
    rows = []
    for i, shop in enumerate(shops):
        for hour in range(hours):
            if shop == "b" and hour == hole:
                continue
            load = (
                None
                if (hour + i) % 17 == 0
                else float(10 * i + np.sin(hour / 4) * 3 + hour / 100)
            )
            rows.append(
                {
                    "shop": shop,
                    "at": START + hour * HOUR,
                    "load": load,
                    "heat": float(hour % 24),
                    "open": hour % 3 == 0,
                    "kind": "big" if i else "small",
                }
            )
    order = np.random.default_rng(1).permutation(len(rows))
    return pa.Table.from_pylist([rows[i] for i in order])


WORDS: dict[str, Any] = {
    "split": {"by": "time", "on": "at", "train": 0.5, "validation": 0.25, "test": 0.25},
    "samples": {"time": "at", "entity": "shop"},
    "inputs": {
        "past": {"type": "series", "columns": ["load", "heat"], "window": 6},
        "plan": {"type": "series", "columns": ["open"], "window": 2, "horizon": 3},
        "kind": "category",
    },
    "targets": {"next": {"type": "series", "columns": ["load", "heat"], "horizon": 3}},
    "weight": None,
}


def words(**changed: Any) -> dict[str, Any]:
    return {**{k: v for k, v in WORDS.items() if v is not None}, **changed}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(steps_room, "CHUNK_ROWS", 37)  # so that windows reach over chunks
    made = Lake(tmp_path)
    made.put("rows.parquet", table())
    return made


def fed(lake: Lake, **changed: Any) -> tuple[Any, Any, Feed]:
    recipe = lake.recipe(**words(**changed))
    dataset = lake.prepare(**words(**changed))
    return (
        recipe,
        dataset,
        write_feed(recipe, dataset, lake.store, Events(lake.heard.append)),
    )


def test_the_feed_holds_what_requests_would_encode_to(lake: Lake) -> None:
    recipe, dataset, feed = fed(lake)
    view = SampledDataset(dataset, recipe)
    assert (
        view.samples == feed.samples
        and feed.samples is not None
        and all(feed.samples.values())
    )
    assert feed.rows == {split: dataset.counts[split] for split in feed.rows} and adds_up(
        dataset
    )
    for split in ("train", "validation", "test"):
        samples = view.table(split)
        assert samples.num_rows == feed.samples[split]
        stored = feed.encoding.encode(
            feed.encoding.accept(samples, targets=True).usable()
        )
        wanted = feed.encoding.collate(stored)
        (batch,) = list(
            open_loader(feed, split, batch_size=1000, shuffle=False, numpy=True)
        )
        assert set(wanted) | {"row_id", "weight"} == set(batch)
        for name, values in wanted.items():
            assert np.array_equal(values, batch[name]), (split, name)
        assert np.array_equal(
            batch["row_id"], row_id_halves(samples[ROW_ID].combine_chunks())
        )
    assert feed.encoding.columns(targets=True) == ["past", "plan", "kind", "next"]
    assert (
        feed.manifest["windows"]["series"]["next"]["block"] == "past"
    )  # each step is stored once


def test_a_sample_is_what_it_says(lake: Lake) -> None:
    recipe, dataset, _ = fed(lake)
    known = {(row["shop"], row["at"]): row for row in lake_rows(dataset)}
    by_id = {row[ROW_ID]: row for row in lake_rows(dataset)}
    view = SampledDataset(dataset, recipe)
    for split in ("train", "validation", "test"):
        for sample in view.table(split).to_pylist():
            anchor = by_id[sample[ROW_ID]]
            shop, at = anchor["shop"], anchor["at"]
            past = [known[shop, at + n * HOUR] for n in range(-6, 0)]
            ahead = [known[shop, at + n * HOUR] for n in range(3)]
            assert sample["past"] == [[row["load"], row["heat"]] for row in past]
            assert sample["next"] == [[row["load"], row["heat"]] for row in ahead]
            assert sample["plan"] == [float(row["open"]) for row in [*past[-2:], *ahead]]
            assert (
                {row["split"] for row in ahead} == {split}
                and sample["at"] == at - HOUR
                and sample["kind"] == anchor["kind"]
            )


def lake_rows(dataset: Any) -> list[dict[str, Any]]:
    return [
        {**row, "split": split}
        for split in ("train", "validation", "test")
        for row in dataset.table(split).to_pylist()
    ]


def test_shuffled_samples_come_once_each_whatever_the_processes(lake: Lake) -> None:
    _, _, feed = fed(lake)
    loaders = [
        open_loader(feed, batch_size=16, seed=3, rank=rank, world=2, numpy=True)
        for rank in range(2)
    ]
    ids = [
        tuple(row)
        for loader in loaders
        for batch in loader
        for row in batch["row_id"].tolist()
    ]
    assert len(ids) == len(set(ids)) == feed.sizes["train"] and len(loaders[0]) == -(
        -feed.sizes["train"] // 16
    )


def test_plain_targets_and_weights_are_of_the_anchor(lake: Lake) -> None:
    changed = {
        "inputs": {
            "past": {"type": "series", "columns": ["load"], "window": 4},
            "kind": "category",
        },
        "targets": {"open": "binary"},
        "weight": "heat",
    }
    recipe, dataset, feed = fed(lake, **changed)
    by_id = {row[ROW_ID]: row for row in lake_rows(dataset)}
    samples = SampledDataset(dataset, recipe).table("train")
    assert [row["open"] for row in samples.to_pylist()] == [
        by_id[row[ROW_ID]]["open"] for row in samples.to_pylist()
    ]
    (batch,) = list(open_loader(feed, batch_size=1000, shuffle=False, numpy=True))
    assert (
        batch["weight"].tolist()
        == samples["heat"].to_pylist()
        == [by_id[i]["heat"] for i in samples[ROW_ID].to_pylist()]
    )
    assert batch["open.label"].tolist() == [float(v) for v in samples["open"].to_pylist()]


def test_a_refused_step_is_quarantined_and_leaves_a_gap(lake: Lake) -> None:
    rows = table().to_pylist()
    rows[3]["heat"] = float("inf")
    lake.put("rows.parquet", rows)
    recipe, dataset, feed = fed(lake)
    assert feed.quarantined == 1 and sum(feed.rows.values()) + 1 == sum(
        dataset.counts[s] for s in feed.rows
    )
    assert feed.manifest["gaps"] == 2 and "not a finite number" in next(
        iter(feed.reasons)
    )
    assert feed.samples == SampledDataset(dataset, recipe).samples


def test_gaps(lake: Lake) -> None:
    _, _, feed = fed(lake)
    assert feed.manifest["gaps"] == 1 and feed.manifest["straddling"] > 0
    _, _, joined = fed(lake, samples={"time": "at", "entity": "shop", "on_gap": "ignore"})
    assert joined.sizes["train"] == feed.sizes["train"] + 6 + 3 - 1
    with pytest.raises(
        ContractError, match=r"an unusual distance from the step before.*shop=b"
    ):
        fed(lake, samples={"time": "at", "entity": "shop", "on_gap": "error"})


def test_two_steps_at_one_time_are_told(lake: Lake) -> None:
    with pytest.raises(
        ContractError, match=r"the same time as the step before.*samples\.entity"
    ):
        fed(lake, samples={"time": "at"})


def test_a_window_longer_than_any_series_is_told(lake: Lake) -> None:
    with pytest.raises(ContractError, match="Shorten the window"):
        fed(
            lake,
            inputs={"past": {"type": "series", "columns": ["load"], "window": 500}},
            targets={"next": {"type": "series", "columns": ["load"], "horizon": 2}},
        )


def test_time_as_text_has_no_distances(lake: Lake) -> None:
    lake.put(
        "rows.parquet",
        [{**row, "at": f"hour {row['at']:%j %H}"} for row in table().to_pylist()],
    )
    split = {"by": "hash", "on": "shop", "train": 1.0, "validation": 0.0, "test": 0.0}
    with pytest.raises(ContractError, match="CAST"):
        fed(lake, split=split)
    lake.put(
        "rows.parquet", [{**row, "at": str(row["at"])} for row in table().to_pylist()]
    )
    assert fed(lake, split=split)[2].encoding.fitted["next"]["season"] == 24


def test_whole_series_by_hash_of_their_names(lake: Lake) -> None:
    lake.put("rows.parquet", table(40, shops=tuple("abcdefghijkl"), hole=None))
    recipe, dataset, feed = fed(
        lake,
        split={
            "by": "hash",
            "on": "shop",
            "train": 0.5,
            "validation": 0.25,
            "test": 0.25,
        },
    )
    assert feed.manifest["straddling"] == 0 and sum(feed.sizes.values()) == 12 * (
        40 - 6 - 3 + 1
    )
    assert isinstance(as_samples(dataset, recipe), SampledDataset)


def test_season_and_naive_error_are_learnt_from_the_order(lake: Lake) -> None:
    _, dataset, feed = fed(lake)
    facts = feed.encoding.fitted["next"]
    assert facts["season"] == 24 and "24 steps" in lake.said()
    known = {
        (row["shop"], row["at"]): row["heat"]
        for row in lake_rows(dataset)
        if row["split"] == "train"
    }
    far = [
        abs(v - known[s, t - 24 * HOUR])
        for (s, t), v in known.items()
        if (s, t - 24 * HOUR) in known
    ]
    assert facts["naive"][1] == pytest.approx(float(np.mean(far)))


@pytest.mark.parametrize("every", [False, True])
def test_windows_to_be_forecast(lake: Lake, tmp_path: Path, every: bool) -> None:
    recipe, _, _ = fed(lake)
    lake.put("new.parquet", table(40, shops=("z", "b", "a"), hole=36))
    found = list(
        windows_of(
            [tmp_path / "new.parquet"],
            recipe,
            ["shop", "at", "past", "plan", "kind"],
            tmp_path / "scratch",
            every=every,
            set_aside=lambda *_: None,
        )
    )
    rows = [row for part in found for row in part.to_pylist()]
    if not every:
        assert [(row["shop"], row["at"]) for row in rows] == [
            ("a", START + 36 * HOUR),
            ("b", START + 32 * HOUR),
            ("z", START + 36 * HOUR),
        ]
        assert (
            rows[0]["plan"] == [0.0, 1.0, 0.0, 0.0, 1.0]
            and rows[0]["past"][-1][1] == 12.0
        )
    else:
        assert len(rows) == 2 * (40 - 6 - 3 + 1) + (36 - 6 - 3 + 1)


def test_sizing_a_model_before_there_is_a_dataset(lake: Lake) -> None:
    recipe = lake.recipe(**words())
    encoding = fit_encoding(recipe, table())
    assert encoding.specs("inputs")["past"]["values"].shape == (6, 2) and encoding.specs(
        "targets"
    )["next"]["values"].shape == (3, 2)


def test_what_a_feed_is_called_depends_on_samples(lake: Lake) -> None:
    recipe, dataset, feed = fed(lake)
    other = lake.recipe(**words(samples={"time": "at", "entity": "shop", "stride": 2}))
    assert feed.id == feed_id(recipe, dataset) != feed_id(other, dataset)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"split": {"by": "hash"}}, "split the steps"),
        (
            {
                "inputs": {
                    "past": {
                        "type": "series",
                        "columns": ["load"],
                        "window": 4,
                        "horizon": 2,
                    }
                }
            },
            "give the answer away",
        ),
        (
            {
                "inputs": {
                    "kind": {"type": "series", "columns": ["load"], "window": 4},
                    "size": {"type": "category", "column": "kind"},
                }
            },
            "the name of a column",
        ),
        (
            {"targets": {"next": {"type": "series", "columns": ["load"], "window": 4}}},
            "no `window`",
        ),
        (
            {
                "inputs": {
                    "past": {
                        "type": "series",
                        "columns": ["load"],
                        "window": 4,
                        "quantiles": [0.5],
                    }
                }
            },
            "belongs to a target",
        ),
        (
            {"inputs": {"kind": "category"}, "targets": {"open": "binary"}},
            "there is none",
        ),
        ({"clean": [{"type": "fill", "values": {"load": 0}}]}, "in a request"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    lake: Lake, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        lake.recipe(**words(**changed))


def test_absent_columns_of_samples_are_told(lake: Lake) -> None:
    with pytest.raises(RecipeError, match=r"samples\.time.*'att'"):
        fed(lake, samples={"time": "att", "entity": "shop"})


def test_series_without_a_sample_are_counted_in_every_split(lake: Lake) -> None:
    """Against the samples themselves: too short, gone before the split, with one gap, and with steps that are
    refused.
    """
    rows = table(shops=("a", "b")).to_pylist()
    new = [
        {
            "shop": name,
            "at": START + hour * HOUR,
            "load": 1.0,
            "heat": 2.0,
            "open": True,
            "kind": "big",
        }
        for name, hours in {
            "short": range(115, 119),
            "gone": range(40),
            "late": range(100, 120),
            "every other": range(0, 120, 2),
            "no kind": range(120),
        }.items()
        for hour in hours
    ]
    for row in new:
        row["kind"] = (
            None
            if row["shop"] == "no kind" and row["at"] >= START + 90 * HOUR
            else row["kind"]
        )
    lake.put("rows.parquet", pa.Table.from_pylist(rows + new))
    recipe = lake.recipe(**words())
    dataset = lake.prepare(**words())
    view = SampledDataset(dataset, recipe)
    for split in ("train", "validation", "test"):
        series = {
            row["shop"] for row in dataset.table(split, columns=["shop"]).to_pylist()
        }
        sampled = {row["shop"] for row in view.table(split, columns=["shop"]).to_pylist()}
        found = view.unsampled(split)
        assert (found.series, found.without) == (len(series), len(series - sampled)), (
            split
        )
        said = " ".join(found.sentences(f"the {split} split"))
        assert (
            f"{found.without} of {found.series} series of the {split} split have no whole window"
            in said
        ) == bool(found.without)
    assert view.unsampled("test").without >= 1
