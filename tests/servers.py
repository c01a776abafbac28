"""Real servers of tests: started on loopback in a folder of their own, stopped by their own commands.

A server that is not installed is installed once with apt-get where that can be (root, Debian); else its tests
are skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "sesame-open-4711"


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    user: str = "admin"

    def url(self, database: str = "postgres", scheme: str = "postgresql") -> str:
        """Without a password."""
        return f"{scheme}://{self.user}@127.0.0.1:{self.port}/{database}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installed(package: str, look: str) -> Path | None:
    """The folder of a server's programs, installed if it can be; None where it cannot."""
    found = sorted(Path("/").glob(look))
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", package],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )
        found = sorted(Path("/").glob(look))
    return found[-1].parent if found else None


def _as_owner(user: str) -> list[str]:
    """What a command begins with so that it runs as the server's user: servers refuse root."""
    return ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []


@contextmanager
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL of one's own, with the superuser `admin`, who needs `PASSWORD`."""
    programs = installed("postgresql", "usr/lib/postgresql/*/bin/initdb")
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="penstock-pg-") as name:
        folder, port, run = Path(name), free_port(), _as_owner("postgres")
        (folder / "password").write_text(PASSWORD + "\n", "utf-8")
        if run:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres")
        data = folder / "data"
        subprocess.run(
            [
                *run,
                str(programs / "initdb"),
                *("-D", str(data), "-U", "admin", "-A", "scram-sha-256"),
                *("--pwfile", str(folder / "password"), "-E", "UTF8", "--no-sync"),
                "--locale=C.UTF-8",
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        control = [*run, str(programs / "pg_ctl"), "-D", str(data), "-w"]
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run(
            [*control, "-l", str(folder / "log"), "-o", options, "start"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield Server(port)
        finally:
            subprocess.run(
                [*control, "-m", "immediate", "stop"],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )


@contextmanager
def mariadb_server() -> Iterator[Server]:
    """A MariaDB of one's own, with the user `admin`, who needs `PASSWORD`, and an empty database `shop`."""
    programs = installed("mariadb-server", "usr/sbin/mariadbd")
    maker = shutil.which("mariadb-install-db")
    if programs is None or maker is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    with tempfile.TemporaryDirectory(prefix="penstock-my-") as name:
        folder, port, run = Path(name), free_port(), _as_owner("mysql")
        (folder / "begin.sql").write_text(
            f"CREATE USER admin@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION;\nCREATE DATABASE shop;\n",
            "utf-8",
        )
        if run:
            for path in (folder, folder / "begin.sql"):
                shutil.chown(path, "mysql")
        data = folder / "data"
        # Servers that are made at one time take each other's tables away in a common folder.
        small = [f"--tmpdir={folder}", "--innodb-buffer-pool-size=32M"]
        made = subprocess.run(
            [
                *(*run, maker, "--no-defaults", f"--datadir={data}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db", *small),
            ],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        server = subprocess.Popen(
            [
                *(*run, str(programs / "mariadbd"), "--no-defaults"),
                *(f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"),
                *(f"--socket={folder / 's'}", f"--init-file={folder / 'begin.sql'}"),
                *("--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve", *small),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr is not None
        drain: threading.Thread | None = None
        try:
            for line in server.stderr:
                # It says so when it takes connections, after the first statements.
                if "ready for connections" in line:
                    break
            else:
                pytest.fail("MariaDB did not start")
            # What it says later must not fill the pipe.
            drain = threading.Thread(target=server.stderr.read, daemon=True)
            drain.start()
            yield Server(port)
        finally:
            server.terminate()
            server.wait(30)
            if drain is not None:
                drain.join(30)
            server.stderr.close()
