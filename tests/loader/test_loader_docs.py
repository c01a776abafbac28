"""What docs/loader.md shows runs as it stands there."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "loader.md"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shift in (("people", 0), ("more", 7)):
        rows = [
            f"{20 + (i + shift) % 50},{('clerk', 'smith')[i % 2]},{('low', 'low', 'high')[i % 3]}"
            for i in range(600)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,job,income", *rows]))
    (tmp_path / "recipe.yaml").write_text(
        "source: {type: files, path: people.csv}\ninputs: {age: number}\ntargets: {income: binary}\n"
    )
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, Any] = {}
    for block in blocks:
        if "init_process_group" not in block:
            exec(compile(block, str(PAGE), "exec"), names)
            continue
        # In a process of its own, as the page says, which ends without taking objects down: torch 2.13's gloo
        # group may wait for its thread, and that for the interpreter, when a model of DistributedDataParallel
        # is the last to let go of it.
        place = {
            "RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        done = subprocess.run(
            [sys.executable, "-c", f"{block}\nimport os\nos._exit(0)"],
            env=os.environ | place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "tensor" in capsys.readouterr().out
