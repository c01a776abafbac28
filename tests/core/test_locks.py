"""One process at a time, and no lock that outlives its holder."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock.core.locks import alone


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(30):
            with alone(tmp_path / "making" / "a"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not list(tmp_path.iterdir())


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    code = f"import sys\nfrom pathlib import Path\nfrom penstock.core.locks import alone\nwith alone(Path({str(tmp_path / 'making' / 'a')!r})):\n    print('in', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "in\n"
        holder.kill()
    with alone(tmp_path / "making" / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_without_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with alone(tmp_path / "making" / "a"), alone(tmp_path / "making" / "a"):
        pass
