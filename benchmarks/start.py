"""How long the door takes to open: `import penstock`, `penstock --help`, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from benchmarks.harness import say


def seconds(*command: str, times: int = 15) -> np.ndarray:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return np.array(found)


def bench() -> None:
    bare = np.median(seconds(sys.executable, "-c", "pass"))
    imported = np.median(seconds(sys.executable, "-c", "import penstock")) - bare
    say(
        name="import penstock",
        value=float(imported),
        unit="s",
        goal="< 0.25",
        holds=bool(imported < 0.25),
    )
    shown = np.median(seconds(sys.executable, "-m", "penstock", "--help"))
    say(
        name="penstock --help",
        value=float(shown),
        unit="s",
        goal="< 0.4",
        holds=bool(shown < 0.4),
    )
