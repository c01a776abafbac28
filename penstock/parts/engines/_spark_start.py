"""Starting Spark, and telling its failures in a sentence.

Which Java, and how it is kept quiet, is said in core.java.

One Spark for a process. Sessions share it (each with settings and views of its own) and the last to close
stops it, so that a cluster's executors are free while a model is trained, and with it the Java process, whose
hundreds of megabytes would count against the ceiling of the stages that follow. A Spark that the user started
is used as it is, and left running.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock._version import __version__
from penstock.core.errors import (
    ContractError,
    PenstockError,
    RecipeError,
    SourceError,
    StoreError,
    UserError,
)
from penstock.core.java import (
    JavaFolder,
    end_java,
    first_cause,
    interrupt_kept,
    java_home,
)
from penstock.core.optional import require
from penstock.parts.engines._results import broken_row
from penstock.parts.engines._spark_work import failure_of, sees

_WHY = "engine: spark"
# Spark allows one context a process, and sessions may be opened from several threads.
_lock = threading.Lock()
_users = 0
_ours: Any = None
_java = JavaFolder()


def start(
    master: str,
    options: Mapping[str, str],
    *,
    memory_bytes: int,
    threads: int,
    shared: Path,
) -> Any:
    """A SparkSession with settings of its own; give it back with `stop`.

    Args:
        shared: a folder that every executor must see.

    Raises:
        MissingPackage: there is no pyspark, or no Java.
        UserError: Spark does not start or cannot be reached, or its executors lack something.
    """
    global _users, _ours
    sql = require("pyspark.sql", extra="spark", why=_WHY)
    core = require("pyspark", extra="spark", why=_WHY)
    with _lock, plainly():
        # Only looked at: `getOrCreate` would start one.
        running = core.SparkContext._active_spark_context
        if running is None:
            _ours = _started(
                sql, master, options, memory_bytes=memory_bytes, threads=threads
            )
            # A Spark that ended without us leaves a count behind.
            _users = 0
        # `local` stands for as many threads as the recipe has, so either word names the
        # same master.
        elif running.master != _master(master, threads) and running.master != master:
            raise UserError(
                f"Spark already runs in this process, on {running.master}, and the recipe"
                f" says {master}. Stop it first, or say  engine: {{type: spark, master:"
                f" {running.master}}}"
            )
        # Settings and views of its own, so that two sessions with like names do not
        # meet.
        session = (_ours or sql.SparkSession.builder.getOrCreate()).newSession()
        for word, value in _SETTINGS.items():
            session.conf.set(word, value)
        for word, value in options.items():
            # Other settings are fixed when Spark starts; they went to the builder then.
            if (
                word.startswith("spark.sql.")
                and session.conf.isModifiable(word)
                and word not in _SETTINGS
            ):
                session.conf.set(word, value)
        _users += 1
    try:
        # In local mode the executors are workers of this machine, with this Python and
        # this disk.
        if not _is_local(session.sparkContext.master):
            _check_executors(session, shared)
    # The session is counted already, so it is given back whatever goes wrong, Ctrl-C
    # included.
    except BaseException:
        stop()
        raise
    return session


def stop() -> None:
    """Give a session back; the last one stops the Spark that was started here."""
    global _users, _ours
    with _lock:
        _users -= 1
        # Only what was started here is stopped; a Spark of the user's goes on.
        if not _users and _ours is not None:
            context = _ours.sparkContext
            _ours.stop()
            _ours = None
            # Spark ends its context, but not the Java process.
            end_java(type(context))


_SETTINGS = {
    # A moment without a zone must be read alike on every machine.
    "spark.sql.session.timeZone": "UTC",
    # Columns keep the case that DuckDB gave them.
    "spark.sql.caseSensitive": "true",
    # Overflow and texts that are no numbers fail, as in DuckDB, rather than turn null.
    "spark.sql.ansi.enabled": "true",
    # Spark refuses nanoseconds unless they are numbers; _spark_types.py carries them as
    # such.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Rows that a Python worker gets in one batch.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "16384",
    "spark.sql.parquet.compression.codec": "lz4_raw",
    # Spark's own default, fixed here: a broadcast table is held by the driver and by
    # every executor.
    "spark.sql.autoBroadcastJoinThreshold": str(10 * 2**20),
    # `${…}` in the SQL or the paths of a recipe is text, not a variable of Spark's.
    "spark.sql.variable.substitute": "false",
    # Days before 1582 as they stand, in the calendar that DuckDB has.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    # Carriers are of plain Arrow types, whose offsets have 32 bits.
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.execution.pythonUDF.arrow.enabled": "true",
}
"""What a session must have, so that values mean the same as in DuckDB."""


def _is_local(master: str) -> bool:
    return master == "local" or master.startswith("local[")


def _master(master: str, threads: int) -> str:
    return f"local[{threads}]" if master == "local" else master


def _started(
    sql: Any, master: str, options: Mapping[str, str], *, memory_bytes: int, threads: int
) -> Any:
    given: dict[str, str | None] = {
        name: os.environ.get(name) for name in ("JAVA_HOME", "SPARK_LOCAL_IP")
    }
    local = _is_local(master)
    # Workers must have the driver's Python, since functions travel pickled by it.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    settings = {
        "spark.app.name": "penstock",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    # Loopback: Spark would look up this machine's own name, which need not resolve.
    if local:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        cores = threads
        settings |= {
            # One JVM is driver and executors here. It has half; Python workers and this
            # process share the rest.
            "spark.driver.memory": f"{max(memory_bytes // 2 // 2**20, 512)}m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            # Spark's own 200 partitions would be as many tasks, and files, of a few
            # rows each.
            "spark.sql.shuffle.partitions": str(max(2 * cores, 4)),
            "spark.default.parallelism": str(max(cores, 1)),
        }
    builder = sql.SparkSession.builder.master(_master(master, threads))
    # The user's words come last, so that they win.
    for word, value in {**settings, **options}.items():
        builder = builder.config(word, value)
    try:
        os.environ["JAVA_HOME"] = str(java_home(_java.path, _java.log, _WHY))
        # Spark's launcher sets a handler of Ctrl-C of its own.
        with interrupt_kept():
            return builder.getOrCreate()
    except _failures() as error:
        raise UserError(
            f"Spark does not start on {master}: {first_cause(str(error))}. Its log is"
            f" {_java.keep_log()}."
        ) from None
    # These variables are for Java's start alone; other children of this process must
    # not see them.
    finally:
        for name, before in given.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before


def _check_executors(session: Any, shared: Path) -> None:
    """Check that the executors see the folder `shared` and have this version of Penstock."""
    shared.mkdir(parents=True, exist_ok=True)
    probe = shared / ".probe"
    probe.write_text("", "utf-8")
    context = session.sparkContext
    # As many tasks as there are cores reach, as a rule, every executor.
    parts = max(context.defaultParallelism, 2)
    try:
        with plainly():
            sights = context.parallelize([str(probe)] * parts, parts).map(sees).collect()
    finally:
        probe.unlink(missing_ok=True)
    # A missing mount first: it makes every later step fail, each in its own way.
    if not all(sees_folder for sees_folder, _ in sights):
        raise UserError(
            f"Spark's executors do not see {shared}, where extracts and rows are written. Put the store on a"
            " file system that every machine mounts at the same place (--store)."
        )
    # Functions and summaries travel pickled, which only the same code reads rightly.
    if others := sorted({version for _, version in sights} - {__version__}):
        raise UserError(
            f"Spark's executors have Penstock {', '.join(others)}, and this is {__version__}. Install the"
            " same version on every machine."
        )


@contextmanager
def plainly(scratch: Path | None = None) -> Iterator[None]:
    """A context that turns errors of Spark into sentences."""
    try:
        yield
    except _failures() as error:
        raise _sentence(str(error), scratch) from None


def _failures() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError


def _sentence(text: str, scratch: Path | None) -> PenstockError:
    failure = failure_of(text)
    # A failure of our own code on an executor: its text came through Spark's whole,
    # between two marks.
    if failure is not None:
        kind, message = failure
        if kind == "row":
            return broken_row(message)
        if kind == "disk":
            return StoreError(
                f"an executor cannot write or read: {message}. Free some space, or put the store elsewhere"
                " with --store."
            )
        if kind != "memory":
            # Only these names become classes again: the text comes from another
            # process.
            for known in (ContractError, SourceError, StoreError, RecipeError):
                if known.__name__ == kind:
                    return known(message)
            return UserError(message)
        return UserError(
            "preparing needs more memory than a Python worker of an executor has. Raise "
            " spark.executor.pyspark.memory  in engine.options."
        )
    # Failures of Spark's own have no kind here, so they are told by their text.
    if "No space left on device" in text:
        return StoreError(
            f"the disk is full while Spark was writing under {scratch}. Nothing"
            " incomplete was kept. Free some space, or put the store elsewhere with"
            " --store."
        )
    if "OutOfMemoryError" in text or "Java heap space" in text:
        return UserError(
            "preparing needs more memory than Spark has. Raise resources.memory (on one machine), or "
            " spark.executor.memory  in engine.options."
        )
    missing = re.search(r"No module named '(penstock[\w.]*)'", text)
    if missing is not None:
        return UserError(
            f"the Python of Spark's executors has no Penstock, or another one (it lacks {missing[1]})."
            f" Install penstock {__version__} on every machine, or set PYSPARK_PYTHON to a Python that has"
            " it."
        )
    if re.search(r"FileNotFoundException|PATH_NOT_FOUND|does not exist", text):
        return SourceError(
            f"Spark cannot find a file: {first_cause(text)}. On a cluster the store must be on a file system"
            " that every machine mounts at the same place (--store)."
        )
    return UserError(f"Spark failed: {first_cause(text)}. Its log is {_java.keep_log()}.")
