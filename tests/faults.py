"""A bucket on this machine behind a line that can be cut: a local S3 server, and a proxy before it that
injects faults and counts.

with faulty_s3(monkeypatch, tmp_path) as line:
    line.fault("503", on="GET", match=".arrow", times=1)
    …
    assert line.count("GET", ".arrow") == 5
"""

from __future__ import annotations

import atexit
import http.client
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

FAULTS = ("refuse", "500", "503", "SlowDown", "429", "reset", "torn", "short", "stall")
"""What passes: everything is asked for again."""
_ERRORS = {
    "500": (500, "InternalError"),
    "502": (502, "BadGateway"),
    "503": (503, "ServiceUnavailable"),
    "SlowDown": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "403": (403, "AccessDenied"),
}
STALL_SECONDS = 1.5


@dataclass
class Line:
    """The proxy: where it listens, what it was asked, what it breaks."""

    url: str = ""
    bucket: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    rules: list[list[Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    latency_seconds: float = 0.0

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/store"

    def fault(
        self, name: str, *, on: str = "GET", match: str = "", times: float = 1
    ) -> None:
        with self.lock:
            self.rules.append([name, on, match, times])

    def mend(self) -> None:
        with self.lock:
            self.rules.clear()

    def count(self, method: str, match: str) -> int:
        with self.lock:
            return sum(m == method and match in path for m, path in self.asked)

    def broken(self, method: str, path: str) -> str | None:
        with self.lock:
            self.asked.append((method, path))
            for rule in self.rules:
                if rule[1] == method and rule[2] in path and rule[3] > 0:
                    rule[3] -= 1
                    return str(rule[0])
        return None


def _handler(line: Line, backend: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _cut(self, *, hard: bool) -> None:
            self.wfile.flush()
            if hard:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.close_connection = True
            with suppress(OSError):
                self.connection.close() if hard else self.connection.shutdown(
                    socket.SHUT_RDWR
                )

        def _answer(self) -> None:
            fault = line.broken(self.command, self.path)
            if fault == "refuse":
                self._cut(hard=True)
                return
            body = self._body()
            if line.latency_seconds:
                time.sleep(line.latency_seconds)
            if fault == "stall":
                time.sleep(STALL_SECONDS)
                self._cut(hard=False)
                return
            if fault in _ERRORS:
                status, code = _ERRORS[fault]
                content = (
                    b""
                    if self.command == "HEAD"
                    else (
                        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}, says the"
                        " test</Message></Error>".encode()
                    )
                )
                self._send(
                    status, {"Content-Type": "application/xml"}, content, len(content)
                )
                return
            upstream = http.client.HTTPConnection(*backend, timeout=60)
            headers = {
                k: v
                for k, v in self.headers.items()
                if k.lower()
                not in ("transfer-encoding", "content-length", "connection", "expect")
            }
            upstream.request(
                self.command,
                self.path,
                body or None,
                {**headers, "Content-Length": str(len(body))},
            )
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            kept = {
                k: v
                for k, v in response.getheaders()
                if k.lower()
                not in (
                    "transfer-encoding",
                    "content-length",
                    "connection",
                    "server",
                    "date",
                )
            }
            size = (
                int(response.getheader("Content-Length") or len(content))
                if self.command == "HEAD"
                else len(content)
            )
            if fault in ("reset", "torn"):
                self._send(response.status, kept, content[: len(content) // 2], size)
                time.sleep(0.05)  # let it arrive
                self._cut(hard=fault == "reset")
                return
            if fault == "short":
                content = content[: len(content) // 2]
                size = len(content)
            if fault == "corrupt" and content:
                middle = len(content) // 2
                content = (
                    content[:middle]
                    + bytes([content[middle] ^ 1])
                    + content[middle + 1 :]
                )
            self._send(response.status, kept, content, size)

        def _send(
            self, status: int, headers: dict[str, str], content: bytes, size: int
        ) -> None:
            with suppress(ConnectionError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

    return Proxy


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        pass


@cache
def _backend() -> tuple[str, int]:
    """One server for all tests of a process (starting and stopping it takes a second): each test has a bucket
    of its own.
    """
    server_room = pytest.importorskip("moto.server")
    server = server_room.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    found: tuple[str, int] = server.get_host_and_port()
    return found


@contextmanager
def faulty_s3(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, attempts: int = 4
) -> Iterator[Line]:
    """An empty bucket behind a line; the environment points at it, and is impatient."""
    pytest.importorskip("s3fs")
    import fsspec.asyn
    import s3fs

    line = Line(bucket=f"team-{uuid.uuid4().hex[:8]}")
    proxy = _Server(("127.0.0.1", 0), _handler(line, _backend()))
    threading.Thread(
        target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    line.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    settings = {
        "AWS_ENDPOINT_URL": line.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "AWS_CONFIG_FILE": str(folder / "none"),
        "PENSTOCK_CACHE": str(folder / "cache"),
        "PENSTOCK_REMOTE_ATTEMPTS": str(attempts),
        "PENSTOCK_REMOTE_SECONDS": "20",
        "PENSTOCK_REMOTE_TIMEOUT": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "penstock.core.retries._jitter.random", lambda: 0.05
    )  # waits are short, and alike
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        s3fs.S3FileSystem().mkdir(line.bucket)
        line.asked.clear()
        yield line
    finally:
        for system in list(s3fs.S3FileSystem._cache.values()):
            if system._s3 is not None:
                with suppress(Exception):
                    fsspec.asyn.sync(system.loop, system._s3.__aexit__, None, None, None)
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.shutdown()
        proxy.server_close()
