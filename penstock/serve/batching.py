"""Dynamic batching: requests that arrive together share one call of the program, in one
thread.

Each request is admitted (accepted and encoded) on its own, so a bad one fails alone; then the admitted ones
share one call of the program. While the thread works, arrivals queue, so under load batches form by
themselves. Waiting for company (`wait_ms`) is worth it only if there is company: the first request waits only
until as many have arrived as the last batch had, so a lone client is answered at once.

The queue is bounded: a server that is asked for more than it can answer says so at once (`Busy`) instead of
answering everybody too late.

Whatever goes wrong with a batch is told to its requests, and the next batch is begun. Should the worker end
all the same, it is replaced, also when it was cancelled; and `alive` is false while it is gone, or while the
program has not come back from a batch for a long time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.bundle.rows import Intake, refusal
from penstock.core.errors import RequestError
from penstock.serve.bodies import Busy
from penstock.serve.worker_thread import WorkerThread

if TYPE_CHECKING:
    from penstock.bundle.predictor import Admitted, Predictor


CLOSE_SECONDS = 2.0
"""How long closing waits for the program to come back."""


@dataclass(eq=False)
class Job:
    """One request's rows, waiting for their answer."""

    intake: Callable[[], Intake]
    """Reads the request's rows as columns; called by the answering thread. May raise `RequestError`."""
    rows: int
    answer: asyncio.Future[pa.Table]
    arrived: float = field(default_factory=time.perf_counter)


class Batcher:
    """Answers requests in batches, in one thread that owns the program.

    Args:
        predictor: what answers.
        max_batch: a batch takes another request only while its rows stay at or below this; one request may
            have more.
        wait_ms: how long the first request of a batch may wait for company.
        max_queued: rows that may wait; beyond, requests are turned away.
        on_batch: told the rows and the requests of each batch.
        on_defect: told what ended the worker, which is then replaced.
        stuck_seconds: a batch that takes longer is taken for a program that hangs.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        max_batch: int,
        wait_ms: float,
        max_queued: int,
        on_batch: Callable[[int, int], None] = lambda rows, requests: None,
        on_defect: Callable[[BaseException], None] = lambda error: None,
        stuck_seconds: float = 60.0,
    ) -> None:
        self._predictor = predictor
        self._max_batch = max_batch
        self._wait_seconds = wait_ms / 1000
        self._max_queued = max_queued
        self._on_batch = on_batch
        self._on_defect = on_defect
        self._stuck_seconds = stuck_seconds
        self._queue: deque[Job] = deque()
        self._queued_rows = 0
        self._arrived = asyncio.Event()
        # Requests in the last batch: how many the next batch waits for.
        self._company = 1
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._worker_thread = WorkerThread("penstock-answers")

    def start(self) -> None:
        """Start the worker in the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())
        self._worker.add_done_callback(self._replace)

    @property
    def alive(self) -> bool:
        """Whether a request that comes now can be answered."""
        working = self._worker is not None and not self._worker.done()
        return (
            working
            and not self._closing
            and self._worker_thread.busy_seconds < self._stuck_seconds
        )

    async def close(self) -> None:
        """Answer what is queued, then stop; within `CLOSE_SECONDS`."""
        self._closing = True
        self._arrived.set()
        if self._worker is not None:
            # `wait` raises nothing at its timeout: a program that hangs must not keep
            # the server from ending.
            await asyncio.wait([self._worker], timeout=CLOSE_SECONDS)
            self._worker.cancel()
        # What is still queued is turned away, so that no request waits for ever.
        while self._queue:
            _tell(
                self._queue.popleft(),
                Busy("the server is stopping; ask another, or later"),
            )
        self._worker_thread.stop()

    def stop(self) -> None:
        """Stop answering, and replace the worker no more: the event loop is about to
        end.
        """
        self._closing = True

    def _replace(self, worker: asyncio.Task[None]) -> None:
        """Start a successor for a worker that ended, unless the batcher is closing."""
        if self._closing:
            return
        error = (
            RuntimeError("it was cancelled")
            if worker.cancelled()
            else worker.exception() or RuntimeError("it came to its end")
        )
        # Told at once, rather than left to time out.
        while self._queue:
            _tell(self._queue.popleft(), RuntimeError("the worker of the batches ended"))
        self._queued_rows = 0
        # The successor starts before the defect is told, since telling may raise.
        self.start()
        self._on_defect(error)

    @property
    def queued_rows(self) -> int:
        """Rows that wait to be answered."""
        return self._queued_rows

    async def answer(self, intake: Callable[[], Intake], rows: int) -> pa.Table:
        """Answer one request's rows: a table of one row each, in order.

        Raises:
            RequestError: a row cannot be taken; each is named.
            Busy: too many rows are waiting, or the server is stopping.
        """
        if self._closing:
            raise Busy("the server is stopping; ask another, or later")
        # An empty queue takes any request, or one larger than the bound could never be
        # answered.
        if self._queue and self._queued_rows + rows > self._max_queued:
            raise Busy(f"{self._queued_rows} rows are waiting already; ask again later")
        job = Job(intake, rows, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._queued_rows += rows
        self._arrived.set()
        return await job.answer

    async def _work(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                # Nothing can arrive between these two lines: both run without giving
                # the event loop away.
                self._arrived.clear()
                await self._arrived.wait()
            await self._company_or_deadline()
            batch = self._take()
            self._company = len(batch)
            # A request that timed out or hung up is not worth the work.
            live = [job for job in batch if not job.answer.done()]
            if live:
                await self._answer_all(live)

    async def _answer_all(self, live: list[Job]) -> None:
        """Answer a batch, or tell each of its requests why not."""
        try:
            outcomes = await self._worker_thread.do(lambda: self._answer(live))
        except Exception as error:  # noqa: BLE001
            # Told to the requests of this batch; the worker goes on for the others.
            outcomes = [error] * len(live)
        except asyncio.CancelledError:
            # The batch has left the queue, so only this place can still tell its
            # requests.
            for job in live:
                _tell(job, Busy("the work was broken off; ask another, or later"))
            raise
        for job, outcome in zip(live, outcomes, strict=True):
            _tell(job, outcome)

    async def _company_or_deadline(self) -> None:
        # Counted from the first arrival: a request that queued during the last batch
        # has waited already.
        deadline = self._queue[0].arrived + self._wait_seconds
        while (
            len(self._queue) < self._company
            and self._queued_rows < self._max_batch
            and not self._closing
        ):
            left = deadline - time.perf_counter()
            if left <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[Job]:
        # In order of arrival: a large request is never overtaken by small ones behind
        # it.
        batch = [self._queue.popleft()]
        rows = batch[0].rows
        while self._queue and rows + self._queue[0].rows <= self._max_batch:
            rows += self._queue[0].rows
            batch.append(self._queue.popleft())
        self._queued_rows -= rows
        return batch

    def _answer(self, jobs: list[Job]) -> list[pa.Table | BaseException]:
        """Answer several requests in the worker thread: for each its table, or its own
        error.
        """
        outcomes: list[pa.Table | BaseException | None] = [None] * len(jobs)
        admitted: list[tuple[int, Admitted]] = []
        for i, job in enumerate(jobs):
            try:
                intake = job.intake()
                one = self._predictor.admit(intake)
                # One bad row refuses its whole request, and no other request.
                if one.refused:
                    raise refusal(one.refused, rows=one.rows)
                admitted.append((i, one))
            except RequestError as error:
                outcomes[i] = error
            except Exception as error:  # noqa: BLE001
                # Handed to the one request that caused it, which answers 500; the others go on.
                outcomes[i] = error
        if admitted:
            # Called in this thread: the meters have locks of their own.
            self._on_batch(sum(one.rows for _, one in admitted), len(admitted))
            try:
                tables: list[pa.Table] | list[BaseException] = self._predictor.answer(
                    [one for _, one in admitted]
                )
            except Exception as error:  # noqa: BLE001 - likewise: every request of the batch is told
                tables = [error] * len(admitted)
            for (i, _), table in zip(admitted, tables, strict=True):
                outcomes[i] = table
        return [
            outcome if outcome is not None else RuntimeError("no outcome")
            for outcome in outcomes
        ]


def _tell(job: Job, outcome: pa.Table | BaseException) -> None:
    # Timed out or hung up meanwhile; setting a result then would raise.
    if job.answer.done():
        return
    if isinstance(outcome, BaseException):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)
