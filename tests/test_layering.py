"""The floors of the house hold (importlinter.ini), and every room has chosen its floor."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_floors_hold():
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(tool), "--config", "importlinter.ini", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_no_file_is_two_ideas_long():
    long = [
        (path.relative_to(ROOT).as_posix(), lines)
        for path in (ROOT / "penstock").rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > 500
    ]
    assert not long, f"over 500 lines: {long}"
