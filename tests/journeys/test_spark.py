"""Adult on the laptop and on Spark: the same dataset, row for row, and the same feed, fitted and written by
executors.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pytest

from penstock.contracts.data import Engine
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode import distributed as feed_distributed
from penstock.encode import fit as feed_fit
from penstock.encode.feed import write_feed
from penstock.pipeline.stages import Pipeline
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import load_recipe
from tests.data.lake import SPLITS, Lake
from tests.encode.test_spans import FEATURES, same_feeds
from tests.encode.test_spans import rows as feature_rows
from tests.journeys.test_series import RECIPE as SERIES
from tests.journeys.test_series import steps
from tests.parts.pictures_made import album
from tests.parts.sparks import ENGINE, differences

pytest.importorskip("pyspark", reason="needs the extra `spark`")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]


def test_adult_is_the_same_on_spark(tmp_path, shared_data, monkeypatch):
    assert shared_data.is_dir()
    found = {}
    with Engine.load(ENGINE).open(
        tmp_path / "held", memory_bytes=2**30, threads=2
    ) as held:
        held.rows(held.table(pa.table({"a": [1]})))
        for engine in ("embedded", ENGINE):
            recipe = load_recipe(
                ROOT / "recipes" / "adult.yaml",
                overrides=[f"engine={Engine.load(engine).to_dict()}"],
            )
            store = Store(tmp_path / recipe.engine.type)
            dataset = prepare(recipe, store, Events())
            if engine == ENGINE:
                monkeypatch.setattr(feed_fit, "SPAN_ROWS", 5_000)
                monkeypatch.setattr(feed_distributed, "SHARD_BYTES", 500_000)
            found[recipe.engine.type] = (
                dataset,
                write_feed(recipe, dataset, store, Events()),
            )
    (one, here), (other, there) = found["embedded"], found["spark"]
    assert differences(one, other) == []
    assert sum(one.counts[split] for split in SPLITS) > 48_000
    assert len(there.shards("train").rows_by_shard) > 3
    same_feeds(here, there)


def test_executors_in_processes_of_their_own(tmp_path, monkeypatch):
    """A cluster of two workers on this machine, as Spark's own tests have it: nothing is shared but the
    files.
    """
    cluster = {
        "type": "spark",
        "master": "local-cluster[2,1,1024]",
        "options": {
            "spark.sql.shuffle.partitions": 2,
            "spark.executor.memory": "1g",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        },
    }
    words = {
        **FEATURES,
        "split": {"train": 0.6, "validation": 0.3, "test": 0.1},
        "clean": ["trim", {"type": "clip_outliers", "columns": ["amount"]}],
    }
    made = []
    for name, engine in (("here", "embedded"), ("there", cluster)):
        (tmp_path / name).mkdir()
        lake = Lake(tmp_path / name)
        lake.put("rows.parquet", feature_rows())
        if engine is cluster:
            monkeypatch.setattr(feed_fit, "SPAN_ROWS", 60)
            monkeypatch.setattr(feed_distributed, "SHARD_BYTES", 12_000)
        dataset = lake.prepare(engine=engine, **words)
        made.append(
            (
                dataset,
                write_feed(
                    lake.recipe(engine=engine, **words), dataset, lake.store, Events()
                ),
            )
        )
    assert differences(made[0][0], made[1][0]) == []
    same_feeds(made[0][1], made[1][1])


@pytest.mark.parametrize("what", ["pictures", "series"])
def test_pictures_and_series_are_the_same_on_spark(what, tmp_path, monkeypatch):
    if what == "pictures":
        for i, (content, label) in enumerate(zip(*album(90), strict=True)):
            (tmp_path / "pets" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "pets" / label / f"{i}.png").write_bytes(
                content if i % 30 else b"no picture"
            )
        words = {
            "name": "pets",
            "source": {"type": "folder", "path": "pets", "pattern": "{label}/{name}.png"},
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            "inputs": {"picture": {"type": "image", "column": "content", "size": 16}},
            "targets": {"label": "category"},
        }
    else:
        pc.write_csv(steps(), tmp_path / "steps.csv")
        words = SERIES
    made = []
    for engine in ("embedded", ENGINE):
        recipe = load_recipe({**words, "engine": engine}, base=tmp_path)
        outcome = Pipeline(recipe, Store(tmp_path / recipe.engine.type), Events()).until(
            "encode"
        )
        made.append((outcome.dataset, outcome.feed))
        monkeypatch.setattr(feed_fit, "SPAN_ROWS", 20)
    (one, here), (other, there) = made
    assert differences(one, other) == []
    assert sum(here.rows.values()) > 80
    same_feeds(here, there, by_id=what == "pictures")
    if what == "pictures":
        assert (
            sum(here.quarantined_by_split.values())
            == sum(there.quarantined_by_split.values())
            == 3
        )
