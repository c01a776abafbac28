"""The peers: other libraries, each at work in its own environment and its own process, beside ours.

    python -m benchmarks.peers [GROUP …]      # or `make peers`: makes the environments, .venv-peers/<group>

A group is a file of exact versions beside this one. `Peer` starts `serve.py` with the environment's python,
ours with the project's, and asks it for one run at a time, so that runs can be interleaved; what runs is in
the files beside.

Everything is installed without following dependencies (the file names them all): a looser request would bring
gigabytes of CUDA. torch comes first, since what requires it may ask for another.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

from benchmarks.harness import Cannot, Took

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GROUPS = tuple(sorted(file.stem for file in HERE.glob("*.txt")))
LIMIT_SECONDS = 600.0
"""How long a peer may take to answer, writing its own format included."""


def python_of(group: str) -> Path:
    """The python of a group's environment.

    Raises:
        Cannot: it is not there.
    """
    python = ROOT / ".venv-peers" / group / "bin" / "python"
    if not (python.parents[1] / ".installed").is_file():
        raise Cannot(f"the peers' environment {group!r} is not here: run make peers")
    return python


def install(group: str) -> None:
    """Make a group's environment, or bring it up to its file."""
    folder = ROOT / ".venv-peers" / group
    wanted = (HERE / f"{group}.txt").read_text("utf-8")
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        print(f"{group}: as it should be")
        return
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    torch = [line for line in wanted.splitlines() if line.startswith("torch==")]
    for arguments in (
        [["--upgrade", "pip>=24"], torch] if torch else [["--upgrade", "pip>=24"]]
    ):
        subprocess.run([*pip, *arguments], check=True)
    subprocess.run([*pip, "-r", str(HERE / f"{group}.txt")], check=True)
    for library in folder.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
        # Of a build for another torch: with it torchaudio refuses to import, without it goes on, as it is
        # meant to.
        library.unlink()
    _link_ffmpeg(folder)
    stamp.write_text(wanted, "utf-8")
    print(f"{group}: installed")


def _link_ffmpeg(folder: Path) -> None:
    """FFmpeg's libraries, which the package `av` brings under names of its own, by the names that SPDL looks
    for.
    """
    links = folder / "ffmpeg"
    for library in folder.glob("lib/python*/site-packages/av.libs/*.so*"):
        links.mkdir(exist_ok=True)
        plain = re.sub(
            r"^(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)\..*$", r"\1.so.\2", library.name
        )
        for name in {plain, library.name}:
            (links / name).unlink(missing_ok=True)
            (links / name).symlink_to(library)


class Peer:
    """A process at work on one task. Use as a context manager.

    Args:
        script: the file beside this one, without `.py`.
        group: whose environment; None for the project's own.
        cores: cores that it keeps to, its threads and children together.
        folder: where it may write; its home folder too, so that nothing is left elsewhere.
    """

    def __init__(
        self, script: str, *, group: str | None, cores: int, folder: Path
    ) -> None:
        self.script, self.group, self.cores = script, group, cores
        self.versions: dict[str, str] = {}
        self._folder = folder / script
        self._python = Path(sys.executable) if group is None else python_of(group)
        self._log = self._folder / "log.txt"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        threads = str(self.cores)
        surroundings = {
            **os.environ,
            "HOME": str(self._folder),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "ARROW_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if (ffmpeg := self._python.parents[1] / "ffmpeg").is_dir():
            surroundings["LD_LIBRARY_PATH"] = str(ffmpeg)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-P", str(HERE / "serve.py"), self.script, threads],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=surroundings,
                text=True,
            )
        self._answers: Queue[str] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def __exit__(self, *problem: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        self._process.stdout.close()

    def _ask(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=LIMIT_SECONDS)
        except (BrokenPipeError, Empty):
            line = ""
        if not line:
            self._process.kill()
            tail = self._log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise Cannot(
                f"{self.script} ended, or did not answer in {LIMIT_SECONDS:.0f} s: {' '.join(tail)}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Cannot(f"{self.script} cannot do it: {answer['error']}")
        return answer

    def setup(self, task: str, **how: Any) -> Self:
        """Have it write the common data in its own form (once a folder) and open them.

        Raises:
            Cannot: it could not; with the first line of its error.
        """
        own = self._folder / task
        own.mkdir(exist_ok=True)
        self.versions = self._ask(
            do="setup", task=task, **{"with": {"folder": str(own), **how}}
        )["versions"]
        return self

    def check(self) -> dict[str, Any]:
        """An epoch, counted: rows, the total that must be everybody's, and the arrays of the first batch."""
        return self._ask(do="check")

    def run(self, epoch: int) -> Took:
        """An epoch, timed."""
        return Took(**self._ask(do="run", epoch=epoch))


def main(names: Sequence[str]) -> int:
    strange = [name for name in names if name not in GROUPS]
    if strange:
        print(
            f"no group of peers is called {', '.join(strange)}; known: {', '.join(GROUPS)}",
            file=sys.stderr,
        )
        return 2
    for name in names or GROUPS:
        install(name)
    return 0
