"""The server under hostile clients: bounded in bytes and time, and never a defect because of what was
sent."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import subprocess
import sys
import time
import tracemalloc

import pyarrow as pa
import pytest

from penstock.serve import protocol
from penstock.serve.protocol import Malformed, TooLarge
from tests.bundle import made
from tests.safety import server_child
from tests.safety.served import record
from tests.safety.server_child import HANG_SECONDS, answer_of, child, parsed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return made.shared(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def server(bundle):
    with child(bundle.path) as running:
        yield running


def tensors() -> list[dict]:
    given = [
        ("age", "FP64", 41.0),
        ("income", "FP64", 1.5),
        ("city", "BYTES", "Oslo"),
        ("code", "INT64", 7),
        ("member", "BOOL", True),
        ("joined", "BYTES", "2020-01-01"),
    ]
    scalars = [
        {"name": name, "datatype": sort, "shape": [1], "data": [value]}
        for name, sort, value in given
    ]
    return [
        *scalars,
        {"name": "place", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]},
    ]


def test_two_hundred_hostile_requests_are_answered_or_refused(server):
    assert (
        server.post(
            "/v2/models/people/infer", json.dumps({"inputs": tensors()}).encode()
        )[0]
        == 200
    )
    asked = list(
        server_child.hostile(
            240, seed=11, model="people", record=record(), tensors=tensors()
        )
    )
    assert len(asked) >= 200
    statuses = []
    for request in asked:
        answer = server.ask(request)
        status, body = parsed(answer)
        statuses.append(status)
        assert 200 <= status < 500, (request[:300], answer[:500])
        if status >= 400:
            assert isinstance(body, dict) and len(body["error"]) > 10, (
                request[:300],
                answer[:500],
            )
            assert len(answer) < 10_000, request[
                :300
            ]  # an error does not repeat what was sent
    assert {200, 204, 400, 404, 405, 411, 413, 415, 422, 431} <= set(statuses)
    assert server.get("/v2/health/ready") == (200, {"ready": True})
    assert server.post("/predict", json.dumps(record()).encode())[0] == 200


def test_half_requests_and_clients_that_hang_up_are_no_defects(server):
    whole = server_child._post(
        "/predict", json.dumps({"records": [record()] * 50}).encode()
    )
    for cut in range(0, len(whole), len(whole) // 40):
        with socket.create_connection(
            ("127.0.0.1", server.port), timeout=HANG_SECONDS
        ) as line:
            line.sendall(whole[:cut])
    for _ in range(10):  # whole, and gone before the answer
        with socket.create_connection(
            ("127.0.0.1", server.port), timeout=HANG_SECONDS
        ) as line:
            line.sendall(whole)
    page = server.get("/metrics")[1].decode()
    assert 'reason="defect"' not in page and 'status="500"' not in page
    assert server.post("/predict", json.dumps(record()).encode())[0] == 200


def test_methods(server):
    for path, allowed in [
        ("/predict", b"options, post"),
        ("/", b"get, head, options"),
        ("/metrics", b"get, head, options"),
        ("/v2/models/people/infer", b"options, post"),
    ]:
        answer = server.ask(f"DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).lower()
        assert (
            answer.startswith(b"http/1.1 405")
            and b"\r\nallow: " + allowed + b"\r\n" in answer
        ), answer
        answer = server.ask(
            f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        ).lower()
        assert (
            answer.startswith(b"http/1.1 204")
            and b"\r\nallow: " + allowed + b"\r\n" in answer
        ), answer
    with socket.create_connection(
        ("127.0.0.1", server.port), timeout=HANG_SECONDS
    ) as line:
        line.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        held = b"".join(iter(lambda: line.recv(4096), b""))
    assert (
        held.startswith(b"HTTP/1.1 200")
        and held.endswith(b"\r\n\r\n")
        and b"content-length" in held
    )


def test_the_meters_do_not_grow_with_the_paths_and_methods_asked_for(server):
    def labels() -> set[str]:
        return {
            line.split(" ")[0]
            for line in server.get("/metrics")[1].decode().splitlines()
            if line.startswith("penstock_requests_total")
        }

    for path in ("/a/0", "/v2/models/m0", "/v2/models/m0/infer"):
        server.get(path)
        server.ask(f"M0 {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    labels()  # a path as others are
    before = labels()
    for i in range(30):
        for path in (f"/a/{i}", f"/v2/models/m{i}", f"/v2/models/m{i}/infer"):
            server.get(path)
            server.ask(f"M{i} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert labels() == before


CHECKS = """
[checks.positive_data_acceptance]
# Whether a model can take a value, no schema says: 422 names row and field.
# And tensors must agree with each other: 400.
expected-statuses = ["2xx", "400", "413", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "411", "413", "415", "422"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "s3cret"])
def test_the_description_is_exact(bundle, tmp_path, token, monkeypatch):
    """schemathesis, with all of its checks, finds nothing that the server does and its description does not
    say.
    """
    pytest.importorskip("schemathesis")
    monkeypatch.setenv("PENSTOCK_TEST_TOKEN", token or "")
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    with child(
        bundle.path, **({"token_env": "PENSTOCK_TEST_TOKEN"} if token else {})
    ) as server:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(tmp_path / "schemathesis.toml"),
            "run",
            f"http://127.0.0.1:{server.port}/openapi.json",
        ]
        command += [
            "--seed",
            "1",
            "--max-examples",
            "40",
            "--phases",
            "examples,coverage,fuzzing",
            "--checks",
            "all",
            "--no-color",
            "--continue-on-failure",
        ]
        command += ["--header", f"Authorization: Bearer {token}"] if token else []
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=250
        )
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
        assert "13 selected / 13 total" in done.stdout
        ready = server.get("/v2/health/ready")
    assert ready == (200, {"ready": True})


SHORT = {
    "connection.HEAD_SECONDS": 0.3,
    "connection.REST_SECONDS": 0.3,
    "bodies.IDLE_SECONDS": 0.3,
    "bodies.BODY_SECONDS": 0.9,
}


@pytest.fixture(scope="module")
def hurried(bundle):
    """A server that waits less than a second for anything."""
    with child(bundle.path, rooms=SHORT) as running:
        yield running


def test_half_sent_requests_do_not_stay_open(hurried):
    halves = {
        b"GET / HTTP/1.1\r\nHost: x\r\nX-": 408,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[": 408,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[": 408,
        b"": 0,
    }
    for half, expected in halves.items():
        with socket.create_connection(
            ("127.0.0.1", hurried.port), timeout=HANG_SECONDS
        ) as line:
            line.sendall(half)
            held = b"".join(iter(lambda: line.recv(4096), b""))  # until the server closes
        status, body = parsed(held)
        assert status == expected and (not status or body["error"]), held
    # answered, and its body never comes
    refused = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n["
    with socket.create_connection(
        ("127.0.0.1", hurried.port), timeout=HANG_SECONDS
    ) as line:
        line.sendall(refused)
        assert answer_of(line).startswith(b"HTTP/1.1 404")
        assert _closed(line)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    ],
)
def test_a_trickle_is_no_progress(hurried, start):
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=0.05) as line:
        line.sendall(start)
        held = b""
        deadline = time.monotonic() + HANG_SECONDS
        while not held and time.monotonic() < deadline:
            line.send(b" ")
            try:
                held = line.recv(4096)
            except TimeoutError:
                continue
    assert held.startswith(b"HTTP/1.1 408"), start


def _closed(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_small_body_with_a_large_shape_makes_nothing():
    columns, answers = (
        {"series": pa.list_(pa.list_(pa.float64()))},
        pa.schema([("y", pa.float64())]),
    )
    tracemalloc.start()
    for shape in (
        [1, 2**31 - 1, 0],
        [1, 10**7, 0],
        [0, 10**9, 10**9],
        [1, 0, 10**9],
        [2, 2**31 - 1, 2**31 - 1],
        [1, 2**63, 0],
        [10**4200, 0, 0],
    ):
        body = json.dumps(
            {
                "inputs": [
                    {"name": "series", "datatype": "FP32", "shape": shape, "data": []}
                ]
            }
        ).encode()
        with contextlib.suppress(Malformed, TooLarge):
            protocol.parse(body, None, columns, answers, max_rows=100).intake()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20, peak


def test_what_a_body_takes_in_memory_is_bounded_before_it_is_taken(server):
    """45 MB of `{}` were a gigabyte, and five seconds in which nobody was answered."""
    before = server.memory()["peak"]
    for body in (
        b'{"records": [' + b"{}," * 15_000_000 + b"{}]}",
        b'{"a": [' + b"[]," * 15_000_000 + b"[]]}",
    ):
        status, answer = server.post("/predict", body)
        assert status == 413, answer
    assert server.memory()["peak"] - before < 600 * 2**20


def test_health_answers_while_large_bodies_are_read(server):
    body = b'{"a": [' + b"[]," * 15_000_000 + b"[]]}"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        large = pool.submit(server.post, "/predict", body)
        answered = 0
        while not large.done():
            assert server.get("/v2/health/ready")[0] == 200
            answered += 1
        assert large.result()[0] == 413
    assert answered > 20, answered  # with the event loop held: two or three


def test_all_bodies_share_one_budget(bundle):
    with child(bundle.path, max_request_bytes=16 * 2**20) as server:
        body = b" " * (15 * 2**20) + json.dumps(record()).encode()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        held = []
        for _ in range(2):
            line = socket.create_connection(
                ("127.0.0.1", server.port), timeout=HANG_SECONDS
            )
            line.sendall(head + body[:-1])
            held.append(line)
        # by its length alone, before a byte of it was sent
        _until(lambda: server.ask(head).startswith(b"HTTP/1.1 503"))
        answer = server.ask(head).lower()
        assert b"\r\nretry-after: 1\r\n" in answer and b"ask again later" in answer
        # small ones are answered all the while
        assert server.post("/predict", json.dumps(record()).encode())[0] == 200
        for line in held:
            line.sendall(body[-1:])
            assert answer_of(line).startswith(b"HTTP/1.1 200")
            line.close()
        _until(lambda: server.post("/predict", body)[0] == 200)  # given back


def _until(true) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come true"


@pytest.mark.slow
def test_six_bodies_of_sixty_megabytes(bundle):
    rows = [{**record(), "pad": "x" * 6_000} for _ in range(9_900)]
    body = json.dumps({"records": rows}).encode()
    assert 58e6 < len(body) < 64 * 2**20
    with child(bundle.path) as server:
        before = server.memory()["peak"]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            statuses = [
                status
                for status, _ in pool.map(
                    lambda _: server.post("/predict", body), range(6)
                )
            ]
        grown = server.memory()["peak"] - before
        assert 200 in statuses and set(statuses) <= {200, 503}, statuses
        assert grown < 500 * 2**20, grown  # it was 1.4 GB
        assert server.get("/v2/health/ready")[0] == 200
