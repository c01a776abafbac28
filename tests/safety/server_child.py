"""A server in a child process, and hostile requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HANG_SECONDS = 60
"""A generous limit for one exchange: only a hang takes so long."""

CODE = """
import importlib, json, sys
from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import serve
options = json.loads(sys.argv[2])
for name, value in json.loads(sys.argv[3]).items():
    room, word = name.split(".")
    setattr(importlib.import_module("penstock.serve." + room), word, value)
serve(Bundle.open(sys.argv[1]), Serve(port=0, **options), Events(lambda e: print(e.line(), flush=True)))
"""


class Child:
    """A running server: `port`, `pid`, and what it said."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, request: bytes, *, end: bool = False) -> bytes:
        """All that comes back until the server closes, or until one answer is whole."""
        with socket.create_connection(
            ("127.0.0.1", self.port), timeout=HANG_SECONDS
        ) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(request)
            if end:
                line.shutdown(socket.SHUT_WR)
            return answer_of(line)

    def post(self, path: str, body: bytes, *headers: bytes) -> tuple[int, Any]:
        head = [
            f"POST {path} HTTP/1.1".encode(),
            b"Host: x",
            b"Content-Length: %d" % len(body),
            *headers,
        ]
        return parsed(self.ask(b"\r\n".join(head) + b"\r\n\r\n" + body))

    def get(self, path: str) -> tuple[int, Any]:
        return parsed(self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))

    def memory(self) -> dict[str, int]:
        """Anonymous memory now and at its peak, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = {
            line.split(":")[0]: int(line.split()[1]) * 1024
            for line in lines
            if line.startswith(("Vm", "Rss"))
        }
        return {"now": found["RssAnon"], "peak": found["VmHWM"]}


@contextlib.contextmanager
def child(
    bundle: Path, *, rooms: dict[str, float] | None = None, **options: Any
) -> Iterator[Child]:
    """A server for `bundle` on a free port of the loopback.

    Args:
        rooms: limits of the rooms set for this process, as `connection.HEAD_SECONDS`.
        options: words of `serve`.
    """
    command = [
        sys.executable,
        "-c",
        CODE,
        str(bundle),
        json.dumps(options),
        json.dumps(rooms or {}),
    ]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or path}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield Child(process, int(said["url"].rsplit(":", 1)[1]))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(HANG_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


def answer_of(line: socket.socket) -> bytes:
    """One HTTP answer from a socket, whole; what came until then if the server closes."""
    line.settimeout(HANG_SECONDS)
    held = b""
    while True:
        head, found, body = held.partition(b"\r\n\r\n")
        if found:
            fields = dict(
                part.split(b": ", 1) for part in head.lower().split(b"\r\n")[1:]
            )
            without = head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 100"))
            if head.startswith(b"HTTP/1.1 100"):
                held = body
                continue
            length = 0 if without else int(fields.get(b"content-length", b"0"))
            if len(body) >= length:
                return (
                    head + found + body[:length]
                )  # without the answer to what followed the request
        try:
            part = line.recv(1 << 16)
        except ConnectionResetError:
            return held
        if not part:
            return held
        held += part


def parsed(answer: bytes) -> tuple[int, Any]:
    """Status and body (as JSON where it is) of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head else 0
    return status, json.loads(
        body
    ) if b"application/json" in head.lower() and body else body


# -- hostile requests ----------------------------------------------------------------------------------------

_WORDS: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    0.5,
    2**31,
    2**63,
    2**64,
    10**401,
    -(10**401),
    "",
    "x" * 300,
    "naïve",
    "\u0000",
    [],
    {},
    [[]],
    [None],
    [[[[1]]]],
    {"a": {"b": []}},
    "1e999",
    "NaN",
    "../../etc/passwd",
    "file:///etc/passwd",
    ["a"],
    [1, "2", None],
    [1e308, -1e308],
    "9" * 5000,
]
_TEXTS = [
    b"",
    b" ",
    b"{",
    b"[",
    b'"',
    b"nul",
    b"NaN",
    b"-",
    b"1e999",
    b"-1e999",
    b"[1e999]",
    b"9" * 5000,
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b'{"a":1,"a":2}',
    b'{"records": [], "records": [1]}',
    b'"\\ud800"',
    b'[{"age": "\\udfff"}]',
    b"[" * 100_000,
    b'{"a":' * 3000,
    b"[" * 60 + b"]" * 60,
    b"{}" * 3,
    b"[1,]",
    b"{,}",
    b'{"records": 1}',
    b'{"records": {}}',
    b'{"records": [[]]}',
    b"[" + b"{}," * 9_999 + b"{}]",
    b"[" + b"{}," * 30_000 + b"{}]",
    b"[" + b"[]," * 60_000 + b"[]]",
    b'[{"age": ' + b"1" * 4300 + b"}]",
    b'[{"age": ' + b"1" * 4301 + b"}]",
    b"'single'",
    (
        b'{"records": [{"age": NaN, "income": Infinity, "city": "x", "code": 1, "member": true, "joined":'
        b' "2020-01-01", "place": [1, 2]}]}'
    ),
]
_RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"get / http/1.1\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x00" * 500,
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    b"GET /%00%ff%fe%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /predict?a=b#c HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"DELETE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/models/" + b"m" * 8_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key:"
        b" a\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    b"POST /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /predict HTTP/1.0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 40
    + b"\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}XX",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\n \r\n" * 9_000
    + b"0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nX: "
    + b"y" * 90_000
    + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n[]",
    (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length:"
        b" 4\r\n\r\n\x1f\x8b\x08\x00"
    ),
    (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data;"
        b" boundary=x\r\nContent-Length: 2\r\n\r\n[]"
    ),
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\n[]",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n[]",
]


def hostile(
    count: int,
    *,
    seed: int,
    model: str,
    record: dict[str, Any],
    tensors: list[dict[str, Any]],
) -> Iterator[bytes]:
    """So many hostile requests, each whole enough that an answer is due: raw ones, JSON, and tensors."""
    chance = random.Random(seed)
    yield from _RAW
    for text in _TEXTS:
        yield _post("/predict", text)
        yield _post(f"/v2/models/{model}/infer", text)
    for _ in range(count - len(_RAW) - 2 * len(_TEXTS)):
        if chance.random() < 0.4:
            yield _post(
                "/predict", _bytes(_changed(chance, {"records": [record]}), chance)
            )
        else:
            yield _tensors(chance, model, tensors)


def _post(path: str, body: bytes, *headers: bytes) -> bytes:
    head = [
        f"POST {path} HTTP/1.1".encode(),
        b"Host: x",
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _bytes(value: Any, chance: random.Random) -> bytes:
    body = bytearray(json.dumps(value, ensure_ascii=chance.random() < 0.5).encode())
    for _ in range(chance.choice([0, 0, 1, 3])):
        body[chance.randrange(len(body))] = chance.choice(b'[]{},:"\\ 09e-.tn\x00\xff')
    return bytes(body)


def _changed(chance: random.Random, value: Any) -> Any:
    """The value with one thing in it changed."""
    copy = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in inner if isinstance(inner, dict) else range(len(inner)):
            places.append((inner, key))
            if isinstance(inner[key], (dict, list)):
                walk(inner[key])

    walk(copy)
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(places)
        if chance.random() < 0.15 and isinstance(holder, dict):
            holder.pop(key, None)
        else:
            holder[key] = chance.choice(_WORDS)
    return copy


def _tensors(chance: random.Random, model: str, tensors: list[dict[str, Any]]) -> bytes:
    """An inference request with something wrong in its JSON, its bytes, or its header."""
    asked = _changed(
        chance,
        {
            "inputs": tensors,
            "outputs": [{"name": "pay"}],
            "id": "1",
            "parameters": {"binary_data_output": False},
        },
    )
    shape = chance.choice(
        [
            [1, 2**31, 0],
            [0],
            [2**40, 2**40],
            [1, 0, 0],
            [2**62],
            [10**400],
            [-1],
            [1.5],
            [1, 1, 1, 1],
            [True],
        ]
    )
    if (
        chance.random() < 0.3
        and isinstance(asked.get("inputs"), list)
        and asked["inputs"]
        and isinstance(asked["inputs"][-1], dict)
    ):
        asked["inputs"][-1]["shape"] = shape
    tail = b""
    if (
        chance.random() < 0.4
        and isinstance(asked.get("inputs"), list)
        and asked["inputs"]
        and isinstance(asked["inputs"][0], dict)
    ):
        tail = chance.choice(
            [
                b"",
                struct.pack("<d", 1.0),
                b"\xff" * 7,
                struct.pack("<I", 2**32 - 1),
                bytes(1000),
            ]
        )
        asked["inputs"][0].pop("data", None)
        asked["inputs"][0]["parameters"] = {
            "binary_data_size": chance.choice([len(tail), 0, -1, 2**70, "8", True])
        }
    head = _bytes(asked, chance)
    length = chance.choice(
        [str(len(head)).encode()] * 5
        + [b"0", b"-1", b"9" * 5000, b"", b"1e3", b"\xb2", str(len(head) - 1).encode()]
    )
    headers = (
        [b"Inference-Header-Content-Length: " + length]
        if tail or chance.random() < 0.2
        else []
    )
    return _post(f"/v2/models/{model}/infer", head + tail, *headers)
