"""A program of its own for tests of launchers that bring a cluster: `python -m tests.parts.clustered WHAT
FOLDER LAUNCHER`.

Clusters leave threads, signal handlers and a Java behind in a process; so each test has one of its own. It
prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def program(
    what: str,
    folder: Path,
    launcher: dict[str, Any],
    *faults: dict[str, Any],
    pause: float = 0.02,
    is_held: bool = False,
) -> subprocess.Popen[str]:
    """Start it; each step takes `pause` seconds more than it would. `is_held`: all launches are of one
    cluster, which the program has running as a user's may, and none starts one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(
        json.dumps({"pause": pause, "faults": list(faults)})
    )
    environment = {
        **os.environ,
        "PENSTOCK_TEST_FAULTS": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    with open(folder / "err", "w") as err:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.parts.clustered",
                what,
                str(folder),
                json.dumps(launcher),
                *(["held"] if is_held else []),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )


def told(started: subprocess.Popen[str], seconds: float = 280.0) -> dict[str, Any]:
    """What it printed; it is over then."""
    try:
        out, _ = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        started.terminate()
        try:
            out, _ = started.communicate(timeout=30)
        finally:
            started.kill()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert lines, out
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def place(world: Any) -> list[int]:
    """Where a rank finds itself."""
    return [world.rank, world.size, world.threads, int(os.environ["WORLD_SIZE"])]


@contextmanager
def _held(kind: str) -> Iterator[None]:
    """A cluster of two slots that runs in this process, as a notebook's does."""
    if kind == "ray":
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        yield
        ray.shutdown()
        return
    from pyspark.sql import SparkSession

    from penstock.core.java import java_home

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    log = Path(os.environ["PENSTOCK_TEST_FAULTS"]) / "java.log"
    os.environ["JAVA_HOME"] = str(java_home(log.parent, log, "a test"))
    builder = SparkSession.builder.master("local[2]")
    for word, value in {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.python.worker.reuse": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }.items():
        builder = builder.config(word, value)
    session = builder.getOrCreate()
    yield
    session.stop()


def _laws(folder: Path, words: dict[str, Any]) -> dict[str, Any]:
    from penstock.contracts.learn import Launcher
    from penstock.testing.laws.launchers import check

    check(Launcher.load(words))
    return {"lawful": True}


def _place(folder: Path, words: dict[str, Any]) -> dict[str, Any]:
    from penstock.contracts.learn import Launcher
    from tests.parts.clustered import (
        place,
    )  # a rank finds it by its name, which __main__ is not

    return {"place": Launcher.load(words).launch(place, (), processes=2, threads=1)}


def _train(folder: Path, words: dict[str, Any]) -> dict[str, Any]:
    from penstock.core.errors import PenstockError
    from penstock.core.events import Events, JsonLines
    from penstock.core.identity import sha256_file
    from penstock.core.store import Store
    from penstock.encode.feed import Feed
    from penstock.run import Run
    from penstock.train.supervisor import train
    from tests.train.tiny import tiny_feed, tiny_recipe, tiny_run

    recipe = tiny_recipe(
        folder,
        launcher=words,
        model={"type": "tests.matrix.faulty:Net"},
        batch_size=32,
        checkpoint={"every_steps": 3, "keep": 3},
    )
    store = Store(folder / "store")
    earlier = [path.name for path in folder.glob("store/runs/run-*")]
    if earlier:
        run = Run.open(store, reference=earlier[0])
        feed = Feed.open(store, id=run.feed)
    else:
        feed = tiny_feed(store, recipe, rows=256, validation=64)
        run = tiny_run(store, recipe, feed)
    diary = Events(JsonLines(run.events_path))
    try:
        summary = train(recipe, feed, run, diary, resume=bool(earlier))
    except PenstockError as error:
        return {"error": type(error).__name__, "message": str(error), "run": run.id}
    warned = [json.loads(line) for line in run.events_path.read_text().splitlines()]
    return {
        **summary,
        "weights": sha256_file(run.weights),
        "warned": [line["text"] for line in warned if line["event"] == "warned"],
        "heard": len(warned),
    }


_WHAT = {"laws": _laws, "place": _place, "train": _train}


def _main(what: str, folder: str, launcher: str, *held: str) -> dict[str, Any]:
    words = json.loads(launcher)
    with _held(words["type"]) if held else nullcontext():
        return _WHAT[what](Path(folder), words)


if __name__ == "__main__":
    try:
        print(json.dumps(_main(*sys.argv[1:])), flush=True)
    except BaseException:  # noqa: BLE001 - told, and the end of it
        traceback.print_exc()
        print(json.dumps({"failed": traceback.format_exc()[-3000:]}), flush=True)
        sys.exit(1)
