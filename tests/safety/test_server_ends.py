"""A server ends when it is told to, and a worker that ends is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.batching import Batcher
from penstock.serve.bodies import Busy
from penstock.serve.server import Serving
from tests.bundle import made
from tests.safety.served import record
from tests.safety.server_child import HANG_SECONDS, ROOT, answer_of, child
from tests.serve.test_server import call


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return made.shared(tmp_path_factory)[0]


def test_sigterm_ends_the_server_whatever_clients_do(bundle):
    with child(bundle.path) as server:
        lines = [
            socket.create_connection(("127.0.0.1", server.port), timeout=HANG_SECONDS)
            for _ in range(4)
        ]
        lines[0].sendall(b"GET / HTT")
        lines[1].sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n["
        )
        lines[2].sendall(
            b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n["
        )
        assert answer_of(lines[2]).startswith(b"HTTP/1.1 404")
        assert (
            server.get("/v2/health/ready")[0] == 200
        )  # what was sent before is known by now
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(HANG_SECONDS) == 0
        answer = lines[1].recv(4096)
        for line in lines:
            line.close()
    assert answer.startswith(b"HTTP/1.1 503") and b"stopping" in answer


def test_an_error_outside_of_the_answers_does_not_end_the_worker(bundle, monkeypatch):
    predictor = bundle.predictor()
    true = predictor.admit

    def once(intake):
        monkeypatch.setattr(predictor, "admit", true)
        raise SystemExit(3)

    monkeypatch.setattr(predictor, "admit", once)
    with Serving(bundle, Serve(port=0), Events()) as running:
        assert call(f"{running.url}/predict", [record()])[0] == 500
        assert call(f"{running.url}/predict", [record()])[0] == 200
        assert call(f"{running.url}/v2/health/ready")[0] == 200


def test_a_worker_that_ends_is_replaced_and_said(bundle):
    predictor, said = bundle.predictor(), []

    async def go():
        batcher = Batcher(
            predictor, max_batch=4, wait_ms=0, max_queued=10, on_defect=said.append
        )
        batcher._company_or_deadline = _broken_once(batcher._company_or_deadline)
        batcher.start()
        assert batcher.alive
        lost = await asyncio.gather(
            batcher.answer(_rows(predictor), 1), return_exceptions=True
        )
        found = await batcher.answer(_rows(predictor), 1)
        alive = batcher.alive
        await batcher.close()
        return lost, found, alive, batcher.alive

    lost, found, alive, after = asyncio.run(go())
    assert (
        isinstance(lost[0], RuntimeError) and found.num_rows == 1 and alive and not after
    )
    assert len(said) == 1 and isinstance(said[0], ZeroDivisionError)


def test_a_worker_that_is_cancelled_is_replaced_and_said(bundle):
    predictor, said = bundle.predictor(), []
    begun, gate = threading.Event(), threading.Event()

    def slowly():
        begun.set()
        assert gate.wait(HANG_SECONDS)
        return _rows(predictor)()

    async def go():
        batcher = Batcher(
            predictor, max_batch=1, wait_ms=0, max_queued=10, on_defect=said.append
        )
        batcher.start()
        asked = [
            asyncio.create_task(batcher.answer(intake, 1))
            for intake in (slowly, _rows(predictor))
        ]
        assert await asyncio.to_thread(begun.wait, HANG_SECONDS)
        batcher._worker.cancel()
        lost = await asyncio.gather(*asked, return_exceptions=True)
        gate.set()
        found = await batcher.answer(_rows(predictor), 1)
        alive = batcher.alive
        await batcher.close()
        return lost, found, alive, batcher.alive

    lost, found, alive, after = asyncio.run(go())
    assert (
        isinstance(lost[0], Busy)
        and isinstance(lost[1], RuntimeError)
        and found.num_rows == 1
        and alive
        and not after
    )
    assert len(said) == 1 and "cancelled" in str(said[0])


STUCK = """
import sys, threading
from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import serve
bundle = Bundle.open(sys.argv[1])
def never(intake):
    print("working", flush=True)
    threading.Event().wait()
bundle.predictor().admit = never
serve(bundle, Serve(port=0), Events(lambda e: print(e.line(), flush=True)))
"""


def test_a_second_signal_ends_the_server_at_once_and_says_nothing_of_what_it_broke_off(
    bundle,
):
    """Two signals of different kinds, so that the system cannot make one of them."""
    command = [sys.executable, "-c", STUCK, str(bundle.path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as line:
            body = json.dumps([record()]).encode()
            line.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                % len(body)
                + body
            )
            assert process.stdout.readline() == "working\n"
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            said, complaints = process.communicate(timeout=HANG_SECONDS)
    assert (
        process.returncode == 0
        and "Stopped" in said
        and "defect" not in said
        and "replaced" not in said
    )
    assert complaints == ""


def test_a_program_that_hangs_is_not_ready(bundle):
    class Hanging:
        columns = bundle.predictor().columns

        def admit(self, intake):
            assert gate.wait(HANG_SECONDS)
            return bundle.predictor().admit(intake)

        def answer(self, admitted):
            return bundle.predictor().answer(admitted)

    gate = threading.Event()

    async def go():
        batcher = Batcher(
            Hanging(), max_batch=4, wait_ms=0, max_queued=10, stuck_seconds=0.05
        )
        batcher.start()
        asked = asyncio.create_task(batcher.answer(_rows(bundle.predictor()), 1))
        while batcher.alive:
            await asyncio.sleep(0.01)
        gate.set()
        await asked
        alive = batcher.alive
        await batcher.close()
        return alive

    assert asyncio.run(asyncio.wait_for(go(), HANG_SECONDS))


def _rows(predictor):
    from penstock.bundle.rows import from_records

    return lambda: from_records([record()], predictor.columns)


def _broken_once(true):
    broken = []

    async def wait() -> None:
        if not broken:
            broken.append(True)
            raise ZeroDivisionError
        await true()

    return wait
