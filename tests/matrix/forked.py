"""A training process that is a fork of the one that starts it, in the place of `subprocess.Popen`.

The local launcher starts a fresh Python for each process, which imports torch for seconds. Here the process
that starts it has imported all of that already, and the child does from its first line of the launcher's own
(`local.child`) what a fresh one does: in a session of its own, with the same environment, pipes and signals.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Any


class Forked:
    """As much of `Popen` as the local launcher asks for."""

    def __init__(
        self,
        arguments: list[str],
        *,
        pass_fds: tuple[int, ...],
        env: dict[str, str],
        **_: Any,
    ) -> None:
        reading, writing = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(reading, pass_fds, env)
            finally:
                os._exit(1)
        os.close(reading)
        self.stdin = os.fdopen(writing, "wb")

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _become(stdin: int, pass_fds: tuple[int, ...], env: dict[str, str]) -> None:
    """Be what a fresh Python would be once it has imported the launcher."""
    from penstock.core.interrupts import interrupts
    from penstock.parts.launchers import local

    os.setsid()
    os.dup2(stdin, 0)
    os.dup2(2, 1)
    faulthandler.disable()
    # Not closed: who still knows such a number would write into whatever has it next.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) not in (nowhere, *pass_fds):
            os.dup2(nowhere, int(name))
    os.environ.clear()
    os.environ.update(env)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    interrupts.__init__()  # type: ignore[misc]
    streams = (
        sys.stdin,
        sys.stdout,
        sys.stderr,
    )  # not closed: their files are others' by now
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
    )
    local.child()
    del streams
