"""What docs/loader.md shows runs as it stands there."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "loader.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("people", 0), ("more", 7)):
        rows = [f"{20 + (i + shift) % 50},{('clerk', 'smith')[i % 2]},{('low', 'low', 'high')[i % 3]}" for i in range(600)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,job,income", *rows]))
    (tmp_path / "recipe.yaml").write_text("source: {type: files, path: people.csv}\ninputs: {age: number}\ntargets: {income: binary}\n")
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for block in blocks:
        with monkeypatch.context() as patch:
            for word, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items() if "init_process_group" in block else ():
                patch.setenv(word, value)
            exec(compile(block, str(PAGE), "exec"), names if "init_process_group" not in block else {})
    assert "tensor" in capsys.readouterr().out
