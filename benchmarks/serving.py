"""One row answered: over HTTP against the bare predictor, and the bare predictor against the bare ONNX
program.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import say
from penstock.core.events import Events
from penstock.pipeline.demo import write_lake
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import Serve, load_recipe
from penstock.serve.server import Serving

REQUESTS = 1000


def bench() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lake(folder)
        from penstock.api import init
        from penstock.core.store import Store

        (folder / "recipe.yaml").write_text(
            init(str(folder / "lake"), target="diagnosis", shown_path="lake")
        )
        recipe = load_recipe(
            folder / "recipe.yaml", ["train.epochs=1", "evaluate.baselines=false"]
        )
        outcome = Pipeline(recipe, Store(folder / "store"), Events()).until("pack")
        bundle, dataset = outcome.bundle, outcome.dataset
        assert bundle is not None and dataset is not None
        row = {
            k: v
            for k, v in dataset.table("test").slice(0, 1).to_pylist()[0].items()
            if k in bundle.encoding.columns(targets=False)
        }
        body = json.dumps({"records": [row]}).encode()
        predictor = bundle.predictor()
        bare = _times(lambda: predictor.predict([row]))
        with Serving(bundle, Serve(port=0, wait_ms=0), Events()) as server:
            host = server.url.removeprefix("http://")
            connection = http.client.HTTPConnection(host, timeout=30)

            def ask() -> None:
                connection.request(
                    "POST", "/predict", body, {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

            start = time.perf_counter()
            served = _times(ask)
            seconds = time.perf_counter() - start
            connection.close()
        say(
            name="one row of 30 numbers, bare predictor, p50",
            value=float(np.median(bare)) * 1e3,
            unit="ms",
        )
        say(
            name="one row over HTTP, p50",
            value=float(np.median(served)) * 1e3,
            unit="ms",
            other="Ludwig 0.11: 24 ms",
            p99_ms=round(float(np.quantile(served, 0.99)) * 1e3, 2),
        )
        say(
            name="one client, one connection",
            value=len(served) / seconds,
            unit="requests/s",
            other="Ludwig 0.11: 36-47",
        )


def _times(call: object) -> np.ndarray:
    found = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        found.append(time.perf_counter() - start)
    return np.array(found[REQUESTS // 10 :])
