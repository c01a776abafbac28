"""`penstock audit`: the log on the screen, as JSON, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.core import audit
from penstock.core.store import Store


def test_the_log_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "store")
    store = Store(place)
    audit.note(store, "prepared", "people@0123456789abcdef", rows=1200)
    audit.note(store, "trained", "people@0123456789abcdef", run="run-1")
    assert main(["audit", "--store", place]) == 0
    shown = capsys.readouterr().out
    assert "prepared" in shown and "rows 1,200" in shown and "run run-1" in shown
    assert main(["audit", "run-1", "--store", place, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["act"] == "trained"
    assert main(["audit", "--check", "--store", place]) == 0
    assert "whole: 2 entries" in capsys.readouterr().out
    store.shelf.drop("audit/00000001.json")
    assert main(["audit", "--check", "--store", place]) == 3
    assert "entry 1 is not there" in capsys.readouterr().out
