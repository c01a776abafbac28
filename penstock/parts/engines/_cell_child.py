"""The program of a cell's child: SQL over Arrow tables from one pipe, answers to another, within a bounded
address space.

It is run by its path in an isolated interpreter, so it imports nothing of Penstock, and nothing that lies in
the current folder. Its parent kills it where it takes too long (`_cell.py`); where its parent dies, it ends
by itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import signal
import struct
import sys
import threading
import time
from typing import Any

_HEAD = struct.Struct("<QQ")
_SLACK_BYTES = 64 * 2**20
_LOOK_SECONDS, _STUCK_SECONDS = 1.0, 60.0


def _end_with(parent: int) -> None:
    """End this process when its parent ends, or when no Python code runs for a minute: a library
    that finds no memory may wait for ever.
    """
    looks = 0
    try:
        with open(os.devnull, "w", encoding="ascii") as nowhere:
            # When its parent dies, a process is given another.
            while os.getppid() == parent:
                # Set anew every tenth look. If no Python runs for a minute, it fires
                # from a thread of C and ends the process.
                if looks % 10 == 0:
                    faulthandler.dump_traceback_later(
                        _STUCK_SECONDS, exit=True, file=nowhere
                    )
                looks += 1
                time.sleep(_LOOK_SECONDS)
    finally:
        # Without any clean-up, which may need the memory that is not there.
        os._exit(0)


def _bound(memory_bytes: int) -> None:
    """Limit this process's address space to what it has mapped, plus `memory_bytes` and some slack."""
    import resource

    # Elsewhere than on Linux there is no such file, and DuckDB's own limit must do.
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/statm", encoding="ascii") as file,
    ):
        # The first number is the pages of the whole address space.
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        # What the libraries have mapped is no row's fault, so the limit counts from
        # there.
        limit = mapped + memory_bytes + _SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _connection(memory_bytes: int) -> Any:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            # DuckDB's own limit comes first where it counts: it ends as an error, not
            # as a failed allocation.
            "memory_limit": f"{memory_bytes}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    # Nothing is spilled: a value that needs the disk does not fit.
    connection.execute("SET temp_directory = ''")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    # The first query loads and starts what the later ones use.
    connection.execute("SELECT 1").fetchall()
    return connection


def _read(count: int) -> bytes:
    content = sys.stdin.buffer.read(count)
    # The parent closed the pipe, or is gone.
    if len(content) < count:
        os._exit(0)
    return content


def _reply(message: dict[str, Any], content: Any = b"") -> None:
    text = json.dumps(message).encode()
    out = sys.stdout.buffer
    out.write(_HEAD.pack(len(text), len(content)) + text)
    out.write(content)
    out.flush()


def _answer(duck: Any, query: str, content: bytes, answer_bytes: int) -> Any:
    """The answer as an Arrow stream.

    Raises:
        MemoryError: it is larger than it may be.
    """
    # Imported here, since the path that has it comes by the pipe.
    import pyarrow as pa

    # not a table, which Arrow would read by threads of its own
    reader = pa.ipc.open_stream(pa.py_buffer(content))
    duck.register("__p_rows", reader)
    try:
        asked = duck.execute(query)
        answer = (
            asked.to_arrow_table()
            if hasattr(asked, "to_arrow_table")
            else asked.fetch_arrow_table()
        )
    finally:
        duck.unregister("__p_rows")
    # The parent holds the answer as well, so it is refused before it is copied.
    if answer.nbytes > answer_bytes:
        raise MemoryError
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_table(answer)
    return sink.getvalue()


def _work(duck: Any, answer_bytes: int) -> None:
    """Read one request, and reply to it."""
    import duckdb
    import pyarrow as pa

    first, second = _HEAD.unpack(_read(_HEAD.size))
    request = json.loads(_read(first))
    content = _read(second)
    try:
        answer = _answer(duck, request["query"], content, answer_bytes)
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
        _reply({"state": "memory"})
    except duckdb.Error as error:
        text = str(error).split("\n")[0]
        # An allocation that fails inside a function comes as an error of that function.
        if "bad_alloc" in text or "bad allocation" in text or "llocat" in text:
            _reply({"state": "memory"})
        else:
            plain = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
            _reply({"state": "row", "message": plain.removesuffix(".")})
    else:
        _reply({"state": "answer"}, answer)


def _rehearse(duck: Any) -> None:
    """Load and start whatever the first request would, before the bound is set, so that it does not
    count against a row.
    """
    import pyarrow as pa

    # Threads that start after the bound need addresses for their stacks.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    sink = pa.BufferOutputStream()
    table = pa.table({"$0": ["a"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    _answer(
        duck,
        'SELECT upper("$0") AS v FROM __p_rows',
        sink.getvalue().to_pybytes(),
        1 << 20,
    )


def main() -> None:
    """Serve requests until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent hears it, and decides
        signal.signal(number, signal.SIG_IGN)
    first, _ = _HEAD.unpack(_read(_HEAD.size))
    limits = json.loads(_read(first))
    sys.path[:0] = limits["paths"]
    # Stacks count as address space, whether they are used or not.
    threading.stack_size(512 * 1024)
    threading.Thread(target=_end_with, args=(limits["parent"],), daemon=True).start()
    # Everything that is loaded or started comes before the bound.
    duck = _connection(limits["memory_bytes"])
    _rehearse(duck)
    _bound(limits["memory_bytes"])
    _reply({"state": "ready"})
    while True:
        _work(duck, limits["answer_bytes"])


if __name__ == "__main__":
    main()
