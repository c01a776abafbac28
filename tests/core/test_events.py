"""Events reach every sink in order; the diary survives."""

import json

import pytest

from penstock.core.errors import MissingPackage
from penstock.core.events import Events, JsonLines
from penstock.core.memory import MemoryWatch, held_bytes
from penstock.core.optional import require


def test_a_stage_is_bracketed_even_when_it_fails(tmp_path):
    seen = []
    events = Events(seen.append)
    with pytest.raises(ValueError), events.stage("train"):
        raise ValueError
    assert [(e.name, e.fields.get("ok")) for e in seen] == [
        ("stage_started", None),
        ("stage_ended", False),
    ]


def test_the_diary_is_lines_of_json_without_progress(tmp_path):
    events = Events()
    diary = JsonLines(tmp_path / "events.jsonl")
    events.attach(diary)
    events.say("positive is '>50K'")
    events.progress("train", 1, 2, "steps")
    events.emit("measured", step=3, loss=0.5)
    events.detach(diary)
    events.say("not heard")
    lines = [
        json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()
    ]
    assert [line["event"] for line in lines] == ["said", "measured"]
    assert lines[1]["loss"] == 0.5


def test_an_absent_package_is_a_sentence():
    with pytest.raises(MissingPackage, match=r"pip install 'penstock\[train\]'"):
        require("nosuchpackage.inner", extra="train", why="flying")
    assert require("json", extra="train", why="x") is json


def test_memory_held_is_seen():
    before = held_bytes()
    with MemoryWatch(every_seconds=0.01) as watch:
        block = bytearray(b"x" * 60_000_000)
    assert watch.peak_bytes - before > 40_000_000
    assert len(block) == 60_000_000
