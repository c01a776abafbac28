"""What a run depends on beyond its recipe: code, packages, Python, hardware, and the process that works on
it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from penstock.core.cores import usable_cores
from penstock.core.manifest import FORMAT
from penstock.core.redact import redacted_words

_PACKAGES = (
    "penstock",
    "numpy",
    "pyarrow",
    "pandas",
    "pydantic",
    "duckdb",
    "ibis-framework",
    "sqlglot",
    "torch",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "scikit-learn",
)


def world_now() -> dict[str, Any]:
    """What this process would make a run depend on: code, packages, Python, hardware."""
    packages: dict[str, str | None] = {}
    # By their metadata, so that none is imported for its version.
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "format": FORMAT,
        "code": _code(Path.cwd()),
        "packages": packages,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "hardware": {
            "host": socket.gethostname(),
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": usable_cores(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        # The first core's; they are alike on nearly every machine. ARM names none.
        for line in info.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _code(folder: Path) -> dict[str, Any] | None:
    """The git commit that `folder` is at and the SHA-256 of what differs from it; None outside a
    repository.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    # `--no-ext-diff`: a user's own diff program would give another text, or wait.
    diff = _git(folder, "diff", "--no-ext-diff", "--binary", "HEAD")
    return {
        "commit": commit.decode().strip(),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
    }


def _git(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            capture_output=True,
            # A repository on a slow network must not hold up the run.
            timeout=20,
            # No prompt for a password can wait for an answer.
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def this_process() -> dict[str, Any]:
    """Who works on a run: pid, when it started, machine, and the command without its secrets."""
    return {
        "pid": os.getpid(),
        # Seconds since 1970; with the pid it names one process, since pids are given
        # again.
        "started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "command": " ".join(redacted_words(sys.argv))[:500],
    }
