"""Reads damaged files in child processes, so that a crash or a hang of a reader is one line of the verdict.

    python -m tests.safety.fuzzing parquet 0 2000     # CI does this for 200; prints every verdict that is bad

A child reads one damaged file after the other and prints a line before and after each. Where it dies, or
stays silent for `HANG_SECONDS`, the damage under its hands is the culprit, and another child goes on behind
it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.safety import specimens
from tests.safety.mutate import mutate

HANG_SECONDS = 60
"""No damaged file of some kilobytes may take so long; generous, since machines are busy."""
_HOUSE = Path(__file__).resolve().parents[2]


@dataclass
class Verdict:
    """What became of the damaged files of one format."""

    counts: Counter[str] = field(default_factory=Counter)
    """By outcome: `taken`, `refused`, and the bad ones: `traceback`, `crash`, `hang`, `lost`."""
    bad: list[tuple[int, str, str]] = field(default_factory=list)
    """Seed, outcome and what was seen."""


def fuzz(format: str, start: int, stop: int) -> Verdict:
    """Read damaged copies number `start` to `stop` of a format's specimen."""
    verdict = Verdict()
    while start < stop:
        start = _one_child(format, start, stop, verdict)
    return verdict


def _one_child(format: str, start: int, stop: int, verdict: Verdict) -> int:
    """Run a child until it ends, dies or hangs; the seed to go on with."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.safety.fuzzing",
        "--child",
        format,
        str(start),
        str(stop),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_HOUSE), os.environ.get("PYTHONPATH", "")]),
    }
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=_HOUSE,
        )
        assert child.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_pour, args=(child.stdout, lines), daemon=True)
        reader.start()
        current = start
        try:
            while True:
                try:
                    line = lines.get(timeout=HANG_SECONDS)
                except queue.Empty:
                    _note(verdict, current, "hang", f"silent for {HANG_SECONDS} s")
                    return current + 1
                if not line:
                    break
                message = json.loads(line)
                if "begin" in message:
                    current = message["begin"]
                    continue
                _note(verdict, message["seed"], message["outcome"], message["text"])
                current = message["seed"] + 1
        finally:
            child.kill()
            child.wait()
            reader.join()
            child.stdout.close()
        if child.returncode == 0 and current >= stop:
            return stop
        errors.seek(0)
        _note(
            verdict,
            current,
            "crash",
            f"ended with {child.returncode}: {errors.read()[-1500:]}",
        )
        return current + 1


def _pour(stream: object, lines: queue.Queue[str]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")


def _note(verdict: Verdict, seed: int, outcome: str, text: str) -> None:
    verdict.counts[outcome] += 1
    if outcome not in ("taken", "refused"):
        verdict.bad.append((seed, outcome, text))


# -- the child -----------------------------------------------------------------------------------------------


def _child(format: str, start: int, stop: int) -> None:
    specimen = specimens.SPECIMENS[format]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        data, other = specimen.make(0), specimen.make(1)
        for seed in range(start, stop):
            print(json.dumps({"begin": seed}), flush=True)
            outcome, text = judge(specimen, mutate(data, seed, other=other), Path(folder))
            print(
                json.dumps({"seed": seed, "outcome": outcome, "text": text}), flush=True
            )


def judge(specimen: specimens.Specimen, damaged: bytes, folder: Path) -> tuple[str, str]:
    """What becomes of one damaged file, and the words for it."""
    try:
        problem = specimen.read(damaged, folder)
    except specimens.Refused as refusal:
        return (
            ("refused", str(refusal))
            if str(refusal).strip()
            else ("traceback", "an empty sentence")
        )
    except BaseException:  # noqa: BLE001 - whatever escapes is the finding
        return "traceback", traceback.format_exc()[-2500:]
    return ("lost", problem) if problem else ("taken", "")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        for name in (
            sys.argv[1].split(",") if sys.argv[1] != "all" else specimens.SPECIMENS
        ):
            found = fuzz(name, int(sys.argv[2]), int(sys.argv[3]))
            print(name, dict(found.counts), flush=True)
            for seed, outcome, text in found.bad:
                print(f"--- {name} {seed} {outcome}\n{text}", flush=True)
