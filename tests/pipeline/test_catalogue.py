"""Listing a large store reads few files: what was listed once is in a catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.catalogue import WORTH_WRITING, Catalogue
from penstock.core.identity import new_ulid
from penstock.core.store import MANIFEST, Store
from penstock.pipeline.listing import listed, listed_runs

RUNS = 1_000


def finished_run(store: Store, name: str = "tips") -> str:
    """A finished run's small files, written by hand: a thousand real ones would take minutes."""
    id = f"run-{new_ulid()}"
    path = store.folder / "runs" / id
    path.mkdir(parents=True)
    facts = {
        "format": 1,
        "id": id,
        "name": name,
        "status": "done",
        "key": "k",
        "dataset": "tips@0123456789abcdef",
        "feed": "f",
        "created": "2026-11-21T07:50:24Z",
        "base": ".",
        "process": {},
    }
    (path / "run.json").write_text(json.dumps(facts), "utf-8")
    (path / MANIFEST).write_text("{}", "utf-8")
    return id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file of the store that is read from now on."""
    files: list[str] = []
    for method in ("read_bytes", "read_text"):
        real = getattr(Path, method)

        def read(path: Path, *rest: Any, _real: Any = real) -> Any:
            files.append(path.name)
            return _real(path, *rest)

        monkeypatch.setattr(Path, method, read)
    return files


def test_a_thousand_runs_are_listed_from_one_file(store: Store, reads: list[str]) -> None:
    ids = sorted(finished_run(store) for _ in range(RUNS))
    first = listed_runs(store)
    assert len(reads) >= RUNS and [row["reference"] for row in first] == ids[::-1]
    reads.clear()
    assert listed_runs(store) == first
    assert reads == ["runs.json"], "what was listed once is read from the catalogue alone"

    newest = finished_run(store, "newest")
    reads.clear()
    assert listed_runs(store) == [
        {**first[0], "reference": newest, "name": "newest"},
        *first,
    ]
    assert sorted(reads) == ["run.json", "runs.json"]


def test_what_was_changed_by_hand_is_read_as_it_is_now(store: Store) -> None:
    ids = sorted(finished_run(store) for _ in range(WORTH_WRITING))
    listed_runs(store)
    record = store.folder / "runs" / ids[0] / "run.json"
    record.write_text(record.read_text("utf-8").replace("tips", "another"), "utf-8")
    assert listed_runs(store)[-1]["name"] == "another"
    record.write_text("torn", "utf-8")
    assert "problem" in listed_runs(store)[-1]


def test_a_run_that_was_removed_is_listed_no_more(store: Store) -> None:
    ids = sorted(finished_run(store) for _ in range(WORTH_WRITING))
    listed_runs(store)
    (store.folder / "runs" / ids[3] / MANIFEST).unlink()
    (store.folder / "runs" / ids[3] / "run.json").unlink()
    assert [row["reference"] for row in listed_runs(store)] == [
        id for id in ids[::-1] if id != ids[3]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "torn",
        "[]",
        "{}",
        '{"format": 2, "rows": {}}',
        '{"format": 1, "rows": {"runs/x": 3}}',
    ],
)
def test_a_catalogue_that_does_not_hold_is_made_anew(store: Store, text: str) -> None:
    ids = sorted(finished_run(store) for _ in range(WORTH_WRITING))
    store.write_text("index/catalogue/runs.json", text=text)
    assert [row["reference"] for row in listed_runs(store)] == ids[::-1]
    assert len(
        json.loads(store.read_text("index/catalogue/runs.json") or "")["rows"]
    ) == len(ids)


def test_a_catalogue_s_row_with_what_no_terminal_can_show_is_not_taken(
    store: Store,
) -> None:
    id = finished_run(store)
    catalogue = Catalogue(store, "runs", file="run.json")
    for _ in range(WORTH_WRITING):
        catalogue.add(f"runs/{id}", {"reference": id, "name": "\x1b[2J"})
    catalogue.save([f"runs/{id}"])
    assert [row["name"] for row in listed_runs(store)] == ["tips"]


def test_a_small_store_has_no_catalogue(store: Store) -> None:
    finished_run(store)
    listed_runs(store)
    assert store.read_text("index/catalogue/runs.json") is None


def test_other_shelves_are_listed_from_theirs(store: Store, reads: list[str]) -> None:
    for number in range(WORTH_WRITING):
        path = store.folder / "bundles" / f"{number:016x}"
        path.mkdir(parents=True)
        manifest = {
            "format": 1,
            "type": "bundle",
            "name": "tips",
            "created": "2026",
            "counts": {"in": number},
        }
        (path / MANIFEST).write_text(json.dumps({**manifest, "files": {}}), "utf-8")
    first = listed(store, "bundles")
    assert [row["rows"] for row in first] == list(range(WORTH_WRITING))
    reads.clear()
    assert listed(store, "bundles") == first and reads == ["bundles.json"]
