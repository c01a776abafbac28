"""Dynamic batching: together where it pays, alone where it matters."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from penstock.bundle.rows import from_records
from penstock.core.errors import RequestError
from penstock.serve.batching import Batcher, Busy
from tests.bundle import made


def ask(batcher, predictor, records):
    return batcher.answer(lambda: from_records(records, predictor.columns), len(records))


class Slow:
    """A predictor that works only when let."""

    def __init__(self, predictor):
        self.predictor, self.columns, self.gate = (
            predictor,
            predictor.columns,
            threading.Event(),
        )

    def admit(self, intake):
        return self.predictor.admit(intake)

    def answer(self, admitted):
        assert self.gate.wait(10)
        return self.predictor.answer(admitted)


def test_requests_that_arrive_together_are_answered_together(bundle):
    slow, batches = Slow(bundle.predictor()), []
    records = made.people(40).to_pylist()

    async def go():
        batcher = Batcher(
            slow,
            max_batch=16,
            wait_ms=5,
            max_queued=1_000,
            on_batch=lambda rows, requests: batches.append((rows, requests)),
        )
        batcher.start()
        first = asyncio.create_task(ask(batcher, slow, records[:1]))
        await asyncio.sleep(0.05)
        others = [
            asyncio.create_task(ask(batcher, slow, [record])) for record in records[1:]
        ]
        await asyncio.sleep(0.05)
        slow.gate.set()
        tables = await asyncio.gather(first, *others)
        await batcher.close()
        return [t.to_pylist()[0] for t in tables]

    found = asyncio.run(go())
    assert (
        batches[0] == (1, 1)
        and max(rows for rows, _ in batches) == 16
        and sum(rows for rows, _ in batches) == 40
    )
    expected = [
        {k: v for k, v in p.items() if k != "id"} for p in bundle.predict(records)
    ]
    assert made.apart(found, expected) <= 1e-5


def test_a_bad_request_does_not_fail_its_neighbours(bundle):
    predictor = bundle.predictor()
    good, bad = made.people(2).to_pylist(), [{"age": "very old"}]

    def defect():
        raise ZeroDivisionError("ours")

    async def go():
        batcher = Batcher(predictor, max_batch=64, wait_ms=50, max_queued=100)
        batcher._company = 4
        batcher.start()
        found = await asyncio.gather(
            ask(batcher, predictor, good),
            ask(batcher, predictor, bad),
            batcher.answer(defect, 1),
            ask(batcher, predictor, good),
            return_exceptions=True,
        )
        await batcher.close()
        return found

    one, refused, broken, other = asyncio.run(go())
    assert isinstance(refused, RequestError) and refused.problems[0].path == (0, "income")
    assert isinstance(broken, ZeroDivisionError)
    assert (
        one.num_rows == other.num_rows == 2
        and made.apart(one.to_pylist(), other.to_pylist()) <= 1e-5
    )


def test_a_lone_client_does_not_wait(bundle):
    predictor, record = bundle.predictor(), made.people(1).to_pylist()

    async def go():
        batcher = Batcher(predictor, max_batch=64, wait_ms=2_000, max_queued=100)
        batcher.start()
        start = time.perf_counter()
        for _ in range(3):
            await ask(batcher, predictor, record)
        seconds = time.perf_counter() - start
        await batcher.close()
        return seconds

    assert asyncio.run(go()) < 1.5


def test_a_full_queue_says_so_and_closing_answers_what_is_queued(bundle):
    slow = Slow(bundle.predictor())
    records = made.people(8).to_pylist()

    async def go():
        batcher = Batcher(slow, max_batch=2, wait_ms=0, max_queued=4)
        batcher.start()
        tasks = [asyncio.create_task(ask(batcher, slow, [records[0]]))]
        await asyncio.sleep(0.05)
        tasks += [
            asyncio.create_task(ask(batcher, slow, [record])) for record in records[1:5]
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="4 rows are waiting"):
            await ask(batcher, slow, [records[6]])
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="stopping"):
            await ask(batcher, slow, [records[6]])
        slow.gate.set()
        await closing
        return await asyncio.gather(*tasks)

    assert [t.num_rows for t in asyncio.run(go())] == [1] * 5


def test_a_large_request_goes_alone_and_whole(bundle):
    predictor, sizes = bundle.predictor(), []
    table = made.people(300)

    async def go():
        batcher = Batcher(
            predictor,
            max_batch=8,
            wait_ms=0,
            max_queued=10,
            on_batch=lambda rows, requests: sizes.append((rows, requests)),
        )
        batcher.start()
        found = await ask(batcher, predictor, table.to_pylist())
        await batcher.close()
        return found

    assert asyncio.run(go()).num_rows == 300 and sizes == [(300, 1)]
