"""Series from a file of steps to a forecast over HTTP: every encoder, several series, quantiles, plans, whole
rows; and the literature's split.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import RequestError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import write_feed
from penstock.encode.series.sampled_dataset import SampledDataset
from penstock.model import Program, build_network, decoders_of
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import Serve, load_recipe
from penstock.serve.server import Serving

HOURS = 300


def steps(hours: int = HOURS) -> pa.Table:
    """Two shops, hourly: a daily wave on a level of each shop's own, and a promotion that is known ahead and
    doubles the wave.
    """
    chance = np.random.default_rng(0)
    rows = [
        {
            "shop": shop,
            "at": dt.datetime(2024, 1, 1) + dt.timedelta(hours=hour),
            "promo": hour % 40 < 10,
            "sales": (
                level
                + (20 if hour % 40 < 10 else 10) * math.sin(hour / 24 * 2 * math.pi)
                + float(chance.normal())
            ),
            "visits": 3 * level + float(chance.normal()),
        }
        for level, shop in ((100, "north"), (500, "south"))
        for hour in range(hours)
    ]
    return pa.Table.from_pylist(
        [{**row, "visits": None} if i % 31 == 0 else row for i, row in enumerate(rows)]
    )


RECIPE: dict[str, Any] = {
    "name": "shops",
    "seed": 1,
    "source": {"type": "files", "path": "steps.csv"},
    "split": {"by": "time", "on": "at", "train": 0.6, "validation": 0.2, "test": 0.2},
    "samples": {"time": "at", "entity": "shop"},
    "train": {"epochs": 3, "batch_size": 32, "lr": 0.01},
    "evaluate": {"bootstrap": 20},
    "trackers": [],
    "launcher": {"type": "local", "processes": 1, "threads": 1},
    "keep": ["shop"],
    "inputs": {
        "past": {"type": "series", "columns": ["sales", "visits"], "window": 24},
        "plan": {"type": "series", "columns": ["promo"], "horizon": 6},
        "shop": "category",
    },
    "targets": {
        "next": {
            "type": "series",
            "columns": ["sales", "visits"],
            "horizon": 6,
            "quantiles": [0.1, 0.5, 0.9],
        }
    },
}


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    import pyarrow.csv as csv

    folder = tmp_path_factory.mktemp("series")
    csv.write_csv(steps(), folder / "steps.csv")
    (folder / "recipe.json").write_text(json.dumps(RECIPE), "utf-8")
    return folder, penstock.run(folder / "recipe.json", store=folder / "store").to_dict()


def test_rows_and_samples_are_both_told(journey: tuple[Path, dict[str, Any]]) -> None:
    rows = journey[1]["rows"]
    assert rows["in"] == 2 * HOURS == rows["train"] + rows["validation"] + rows["test"]
    samples = journey[1]["samples"]
    assert samples == {
        "train": 2 * (180 - 29),
        "validation": 2 * (60 - 5),
        "test": 2 * (60 - 5),
    }


def test_it_beats_what_is_naive(journey: tuple[Path, dict[str, Any]]) -> None:
    found = journey[1]
    ours, naive, rival = (
        found["metrics"]["test"]["next"],
        found["baseline"]["next"],
        found["classical"]["next"],
    )
    assert (
        ours["mse_standardised"] < naive["mse_standardised"]
        and ours["pinball"] < naive["pinball"]
    )
    tried = {one["model"]: one for one in found["classical"]["tried"]["next"]}
    assert set(tried) == {
        "ridge regression over the window",
        "the seasonal naive forecast",
        "exponential smoothing",
    }
    # The best on the validation split is the one that is reported.
    best = min(tried.values(), key=lambda one: one["validation"])
    assert best["chosen"] and found["classical"]["model"] == best["model"]
    assert rival["mse_standardised"] == pytest.approx(best["judged"])
    assert all(
        ours[name] is not None
        for name in ("mse", "mae", "mae_standardised", "smape", "mase")
    )
    low, high = found["intervals"]["next"]["mae"]
    assert low <= ours["mae"] <= high
    assert "naive repeat" in found["verdict"]


def samples_of(folder: Path, reference: str) -> tuple[Any, list[dict[str, Any]]]:
    bundle = penstock.Bundle.open(reference, store=folder / "store")
    recipe = bundle.recipe()
    view = SampledDataset(
        penstock.Dataset.open(Store(folder / "store"), reference=bundle.dataset), recipe
    )
    return bundle, [
        {name: row[name] for name in ("past", "plan", "shop")}
        for row in view.table("test").to_pylist()
    ]


def test_over_http_as_in_a_batch_as_lists_and_as_tensors(
    journey: tuple[Path, dict[str, Any]],
) -> None:
    bundle, records = samples_of(journey[0], journey[1]["bundle"])
    rough = [
        {**r, "past": [[None, r["past"][0][1]], None, *r["past"][2:]]}
        for r in records[:4]
    ]
    records = [*records, *rough, {**records[0], "past": None}]
    expected = bundle.predict(records)
    assert np.array(expected[0]["next"]).shape == (6, 2) and list(
        expected[0]["next_quantiles"]
    ) == [
        "0.1",
        "0.5",
        "0.9",
    ]
    quantiles = np.array([list(row["next_quantiles"].values()) for row in expected])
    assert (np.diff(quantiles, axis=1) >= 0).all() and np.array_equal(
        quantiles[:, 1], np.array([row["next"] for row in expected])
    )
    with Serving(bundle, Serve(port=0), Events()) as server:
        found = ask(f"{server.url}/predict", {"records": records})["predictions"]
        alone = [
            ask(f"{server.url}/predict", {"records": [r]})["predictions"][0]
            for r in records[-6:]
        ]
        whole = records[:8]
        tensors = [
            {
                "name": "past",
                "datatype": "FP64",
                "shape": [8, 24, 2],
                "data": [r["past"] for r in whole],
            },
            {
                "name": "plan",
                "datatype": "FP64",
                "shape": [8, 6],
                "data": [r["plan"] for r in whole],
            },
            {
                "name": "shop",
                "datatype": "BYTES",
                "shape": [8],
                "data": [r["shop"] for r in whole],
            },
        ]
        answer = ask(
            f"{server.url}/v2/models/{bundle.name}/infer",
            {"inputs": tensors, "outputs": [{"name": "next"}]},
        )["outputs"][0]
        metadata = ask(f"{server.url}/v2/models/{bundle.name}")
    wanted = np.array([row["next"] for row in expected])
    assert np.allclose([row["next"] for row in found], wanted, atol=1e-3) and np.allclose(
        [row["next"] for row in alone], wanted[-6:], atol=1e-3
    )
    assert (
        answer["shape"] == [8, 6, 2]
        and answer["datatype"] == "FP64"
        and np.allclose(np.array(answer["data"]).reshape(8, 6, 2), wanted[:8], atol=1e-3)
    )
    assert {entry["name"]: entry["shape"] for entry in metadata["inputs"]} == {
        "past": [-1, -1, -1],
        "plan": [-1, -1],
        "shop": [-1],
    }


def ask(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize(
    ("past", "said"),
    [
        ([[1.0, 2.0]] * 23, "has 23 steps, expected 24"),
        ([[1.0, 2.0]] * 23 + [[1.0]], "step 23 has 1 values, expected 2"),
        ("text", "expected a list"),
        ([1.0] * 24, "each a list of 2 numbers"),
        ([[1.0, "x"]] + [[1.0, 2.0]] * 23, "expected a list"),
        ([[1.0, True]] * 24, "expected a list"),
    ],
)
def test_a_wrong_window_is_refused_with_its_reason(
    journey: tuple[Path, dict[str, Any]], past: Any, said: str
) -> None:
    bundle, records = samples_of(journey[0], journey[1]["bundle"])
    with pytest.raises(RequestError, match=said):
        bundle.predict([records[0], {**records[1], "past": past}])


def test_a_file_of_steps_is_forecast(
    journey: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, first = journey
    table = steps()
    torn = table.set_column(
        table.schema.get_field_index("sales"),
        "sales",
        pa.array(
            [
                float("inf") if i == 5 else v
                for i, v in enumerate(table["sales"].to_pylist())
            ]
        ),
    )
    pq.write_table(torn, tmp_path / "new.parquet")
    arguments = [
        "predict",
        first["bundle"],
        str(tmp_path / "new.parquet"),
        "--store",
        str(folder / "store"),
        "--json",
        "-o",
    ]
    assert main([*arguments, str(tmp_path / "latest.parquet")]) == 0
    latest = pq.read_table(tmp_path / "latest.parquet").to_pylist()
    assert [(row["shop"], row["at"]) for row in latest] == [
        (shop, dt.datetime(2024, 1, 1) + dt.timedelta(hours=HOURS - 7))
        for shop in ("north", "south")
    ]
    bundle, records = samples_of(folder, first["bundle"])
    by_shop = {record["shop"]: record for record in records}  # the last one of each
    assert np.allclose(
        [row["next"] for row in latest],
        [row["next"] for row in bundle.predict([by_shop["north"], by_shop["south"]])],
        atol=1e-3,
    )
    assert main([*arguments, str(tmp_path / "all.jsonl"), "--every"]) == 0
    lines = (tmp_path / "all.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == HOURS - 29 + (
        HOURS - 6 - 29
    )  # the refused step is no part of a window
    assert (
        len((tmp_path / "all.jsonl.refused.jsonl").read_text("utf-8").splitlines()) == 1
    )
    capsys.readouterr()
    pq.write_table(table.drop_columns(["promo"]), tmp_path / "less.parquet")
    assert (
        main(
            [
                "predict",
                first["bundle"],
                str(tmp_path / "less.parquet"),
                "--store",
                str(folder / "store"),
                "-o",
                str(tmp_path / "x.jsonl"),
            ]
        )
        == 2
    )
    assert "promo" in capsys.readouterr().err


def test_rows_that_are_whole_samples(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    rows = []
    for _ in range(200):
        start = chance.uniform(0, 6)
        wave = np.sin(start + np.arange(16) / 2)
        rows.append({"before": wave[:12].tolist(), "after": wave[12:].tolist()})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "waves.parquet")
    recipe = {
        **RECIPE,
        "name": "waves",
        "source": {"type": "files", "path": str(tmp_path / "waves.parquet")},
        "split": {},
        "keep": [],
        "inputs": {"before": {"type": "series", "window": 12}},
        "targets": {"after": {"type": "series", "horizon": 4}},
        "train": {"epochs": 12, "batch_size": 16, "lr": 0.01},
    }
    del recipe["samples"]
    outcome = penstock.run(recipe, store=tmp_path / "store")
    found = outcome.to_dict()
    assert (
        found["samples"] is None
        and found["metrics"]["test"]["after"]["mse_standardised"]
        < 0.2 * found["baseline"]["after"]["mse_standardised"]
    )
    assert outcome.bundle is not None
    (answer,) = outcome.bundle.predict([{"before": rows[0]["before"]}])
    assert len(answer["after"]) == 4 and answer["after"] == pytest.approx(
        rows[0]["after"], abs=0.4
    )


@pytest.mark.parametrize(
    ("past", "plan", "combiner"),
    [
        ("patch", "tcn", "variables"),
        ("lstm", "decomposition", {"type": "attention", "width": 16, "depth": 1}),
    ],
)
def test_every_encoder_is_the_same_as_onnx(
    journey: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    past: str,
    plan: str,
    combiner: Any,
) -> None:
    import onnxruntime

    from penstock.bundle import export
    from penstock.model import fake_batch

    declared = {
        **RECIPE,
        "model": {"encoders": {"past": past, "plan": plan}, "combiner": combiner},
    }
    recipe = load_recipe(declared, base=journey[0])
    dataset = prepare(recipe, Store(journey[0] / "store"), Events())
    encoding = write_feed(recipe, dataset, Store(journey[0] / "store"), Events()).encoding
    program = Program(
        build_network(recipe, encoding, seed=0), decoders_of(recipe, encoding), encoding
    )
    export.write_onnx(program, tmp_path / "main.onnx")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "main.onnx"), providers=["CPUExecutionProvider"]
    )
    for rows in (1, 5):
        arrays = {
            name: tensor.numpy()
            for name, tensor in fake_batch(encoding.specs("inputs"), rows).items()
        }
        found = dict(
            zip(
                program.output_names,
                session.run(program.output_names, arrays),
                strict=True,
            )
        )
        assert export.difference(found, export.run_torch(program, arrays)) < 1e-4


def test_the_literature_s_split(shared_data: Path, tmp_path: Path) -> None:
    """12, 4 and 4 months of ETTh1: as many windows of 96 and 96 as everybody has."""
    recipe = load_recipe(
        Path(__file__).parents[2] / "recipes" / "ett.yaml",
        [f"source.path={shared_data}/ett/ETTh1.csv"],
    )
    store = Store(tmp_path)
    dataset = prepare(recipe, store, Events())
    assert {
        split: dataset.counts[split] for split in ("train", "validation", "test")
    } == {
        "train": 8640,
        "validation": 2880,
        "test": 2880,
    }
    feed = write_feed(recipe, dataset, store, Events())
    assert (
        feed.samples == {"train": 8449, "validation": 2785, "test": 2785}
        and feed.encoding.fitted["series"]["season"] == 24
    )
