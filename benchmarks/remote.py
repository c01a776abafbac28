"""The first batch from a bucket against copying it: a feed of `BENCH_BYTES` (2 GB unless the environment says
otherwise) in a local S3 server, a cold cache each time. Both sides use the same requests, ranges, threads and
checks.

The server is a stand-in for an object store, in a process of its own: it reads files and answers ranges as S3
does. It is on this machine, so there is no distance in it; `latency` adds some to each answer, for the first
batch and for the copy alike.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from benchmarks.harness import Cannot, say
from penstock.core.events import Events
from penstock.core.listeners import listening
from penstock.core.store import Store, seal
from penstock.encode.encoding import Encoding
from penstock.encode.feed import Feed, fit_encoding
from penstock.loader.loader import Loader
from penstock.recipe.schema import load_recipe
from penstock.shards.layout import rows_in
from penstock.shards.writer import ShardWriter

BYTES = int(float(os.environ.get("BENCH_BYTES", 2e9)))
LATENCY_SECONDS = 0.02
COLUMNS, BATCH = 40, 4096


def bench() -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        raise Cannot("s3fs is not installed (the extra penstock[s3])") from None
    if shutil.disk_usage(tempfile.gettempdir()).free < 3 * BYTES:
        raise Cannot(f"{tempfile.gettempdir()} lacks room for {3 * BYTES / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        _bench(Path(folder))


def _bench(folder: Path) -> None:
    feed = _feed(folder / "lake" / "team" / "store")
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.remote",
            str(folder / "lake"),
            str(LATENCY_SECONDS),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        first, whole = [], []
        _cold(
            folder, lambda store: _first_batch(store, feed)
        )  # imports and connections, once
        for _ in range(9):
            first.append(_cold(folder, lambda store: _first_batch(store, feed)))
            whole.append(_cold(folder, lambda store: _copy(store, feed)))
        ratio = median(copy / batch for copy, batch in zip(whole, first, strict=True))
        say(
            name=(
                f"first shuffled batch from a bucket of {BYTES / 1e9:g} GB, cold cache,"
                f" {LATENCY_SECONDS * 1000:g} ms to an answer"
            ),
            value=median(first),
            unit="s",
            other=f"copying it: {median(whole):.2f} s",
            ratio=ratio,
            goal="≥ 20",
            holds=bool(ratio >= 20),
            runs={
                "first": [round(s, 3) for s in first],
                "copy": [round(s, 3) for s in whole],
            },
        )
        epoch = _cold(folder, lambda store: _epoch(store, feed))
        say(
            name="an epoch read by blocks from the bucket, cold cache",
            value=BYTES / epoch / 1e6,
            unit="MB/s",
            other="copying it",
            ratio=median(whole) / epoch,
        )
    finally:
        server.terminate()
        server.wait(10)


def _cold(folder: Path, work: Callable[[Store], Iterator[None]]) -> float:
    """Seconds until `work` yields, on a machine that has no copies yet."""
    os.environ["PENSTOCK_CACHE"] = str(folder / "cache")
    os.sync()
    start = time.perf_counter()
    with listening(Events()):
        working = work(Store("s3://team/store", cache_bytes=4 * BYTES))
        next(working)
        seconds = time.perf_counter() - start
        next(working, None)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return seconds


def _first_batch(store: Store, feed: str) -> Iterator[None]:
    loader = Loader(
        Feed.open(store, id=feed), batch_size=BATCH, order="blocks", numpy=True
    )
    batches = loader.batches(0)
    next(batches)
    yield  # the clock stops here; what is being fetched ahead comes in before anything else is timed
    batches.close()  # type: ignore[attr-defined]
    far = loader._parts[0].shards._far  # type: ignore[union-attr]
    far.want([])
    while far._workers:
        time.sleep(0.01)


def _copy(store: Store, feed: str) -> Iterator[None]:
    store.open(f"feeds/{feed}")
    yield


def _epoch(store: Store, feed: str) -> Iterator[None]:
    for _ in Loader(
        Feed.open(store, id=feed),
        batch_size=BATCH,
        order={"shuffle": "blocks", "window": 4},
        numpy=True,
    ).batches(0):
        pass
    yield


def _feed(store: Path) -> str:
    """A feed of made numbers, written as shards without a dataset."""
    names = [f"x{i}" for i in range(COLUMNS)]
    recipe = load_recipe(
        {
            "name": "bench",
            "source": {"type": "files", "path": "none.csv"},
            "inputs": dict.fromkeys(names, "number"),
            "targets": {"y": "binary"},
        }
    )
    rng = np.random.default_rng(0)
    sample = pa.table(
        {
            **{n: rng.normal(size=100) for n in names},
            "y": np.where(np.arange(100) % 2, "yes", "no"),
        }
    )
    encoding: Encoding = fit_encoding(recipe, sample)
    folder = store / "feeds" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "fitted.json").write_text(json.dumps(encoding.to_dict()))
    rows = 65_536
    with ShardWriter(folder, "train") as writer:
        written = 0
        while written < BYTES:
            arrays = {
                "row_id": rng.integers(0, 2**62, (rows, 2)),
                **{f"{n}.value": rng.random(rows, np.float32) for n in names},
                **{f"{n}.missing": np.zeros(rows, np.float32) for n in names},
                "y.label": rng.random(rows, np.float32),
            }
            writer.write(arrays)
            written += sum(values.nbytes for values in arrays.values())
    empty: dict[str, list[str]] = {"validation": [], "test": []}
    seal(
        folder,
        {
            "type": "feed",
            "id": folder.name,
            "dataset": "bench@0123456789abcdef",
            "rows": {"train": writer.rows, "validation": 0, "test": 0},
            "shards": {"train": writer.files, **empty},
            "shard_rows": {
                "train": [rows_in(folder / file) for file in writer.files],
                **empty,
            },
            "quarantined": {"train": 0, "validation": 0, "test": 0},
            "reasons": {},
        },
    )
    return folder.name


def _serve(lake: Path, latency_seconds: float) -> None:
    """Objects of `lake/<bucket>/…` over HTTP, as S3 answers GET and HEAD, with ranges."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            time.sleep(latency_seconds)
            path = lake / unquote(urlsplit(self.path).path).lstrip("/")
            if not path.is_file():
                content = b"<Error><Code>NoSuchKey</Code></Error>"
                self.send_response(404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)
                return
            size = path.stat().st_size
            asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, stop = (
                (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
            )
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", f'"{size}"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.flush()
                with open(path, "rb") as file:
                    self.connection.sendfile(file, start, stop - start)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), float(sys.argv[2]))
