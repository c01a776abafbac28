"""The audit log: entries of several processes in one chain; what was removed or changed is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core import audit
from penstock.core.store import Store


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "store")
    return Store(f"memory://audit-{tmp_path.name}-{id(request)}")


def _three(store: Store) -> None:
    for i in range(3):
        audit.note(store, "prepared", f"people@{i}", rows=i)


def _key(number: int) -> str:
    return f"audit/{number:08d}.json"


def test_entries_say_who_did_what(store: Store) -> None:
    _three(store)
    rows = audit.entries(store)
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert [row["reference"] for row in rows] == ["people@0", "people@1", "people@2"]
    assert all(row["user"] and row["host"] and row["time"] for row in rows)
    assert rows[1]["before"] == rows[0]["hash"]
    assert not audit.check(store)


def test_entries_of_one_artefact(store: Store) -> None:
    audit.note(store, "prepared", "people@0123456789abcdef")
    audit.note(store, "trained", "people@0123456789abcdef", run="run-1", feed="f")
    audit.note(store, "prepared", "peoples@01")
    assert len(audit.entries(store, "people@0123")) == 2
    assert len(audit.entries(store, "run-1")) == 1
    assert len(audit.entries(store, "people@0123456789abcdef")) == 2


def test_a_removed_entry_is_named(store: Store) -> None:
    _three(store)
    store.shelf.drop(_key(2))
    assert audit.check(store) == [
        "entry 2 is not there: removed after it was written",
    ]


def test_a_removed_end_is_named_by_who_wrote_it_and_not_written_over(
    store: Store,
) -> None:
    _three(store)
    store.shelf.drop(_key(3))
    assert audit.check(store) == ["its end is not there: this machine wrote entry 3"]
    audit.note(store, "prepared", "people@4")
    assert audit.entries(store)[-1]["number"] == 4
    assert audit.check(store) == ["entry 3 is not there: removed after it was written"]


def test_a_changed_entry_is_named(store: Store) -> None:
    _three(store)
    entry = json.loads(store.shelf.read(_key(2)) or b"")
    store.shelf.write(_key(2), json.dumps({**entry, "user": "nobody"}).encode())
    assert audit.check(store) == ["entry 2 is not what was written: changed since"]
    store.shelf.write(_key(2), b"torn {")
    assert audit.check(store) == ["entry 2 is not what was written: changed since"]


def test_an_entry_written_anew_breaks_the_chain(store: Store) -> None:
    _three(store)
    entry = {**json.loads(store.shelf.read(_key(2)) or b""), "user": "nobody"}
    entry["hash"] = audit._hash(entry)
    store.shelf.write(_key(2), json.dumps(entry).encode())
    [problem] = audit.check(store)
    assert problem.startswith("entry 3 does not follow entry 2")
    # Of the last one only this machine's own record can tell.
    store.shelf.drop(_key(3))
    assert audit.check(store)


def test_a_log_that_was_taken_away_begins_anew_and_says_so(store: Store) -> None:
    _three(store)
    for number in (1, 2, 3):
        store.shelf.drop(_key(number))
    assert audit.check(store) == ["the log is gone: this machine wrote its entry 3"]
    audit.note(store, "prepared", "people@4")
    [row] = audit.entries(store)
    assert row["number"] == 1 and row["earlier_entries"] == 3
    assert not audit.check(store)


def test_secrets_are_blanked(store: Store) -> None:
    audit.note(store, "read", "people@1", url="s3://anna:planted-pass@host/x")
    assert "planted-pass" not in json.dumps(audit.entries(store))


def test_a_log_that_cannot_be_written_is_told_and_stops_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "audit").write_text("a file in its place", "utf-8")
    with pytest.warns(RuntimeWarning, match=r"does not have that people@1 was read"):
        audit.note(store, "read", "people@1")


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    code = (
        "import sys; from penstock.core import audit; from penstock.core.store import Store\n"
        "for i in range(20): audit.append(Store(sys.argv[1]), 'read', f'{sys.argv[2]}@{i}')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    store = Store(tmp_path / "store")
    rows = audit.entries(store)
    assert [row["number"] for row in rows] == list(range(1, 61))
    assert {row["reference"] for row in rows} == {
        f"{name}@{i}" for name in "abc" for i in range(20)
    }
    assert not audit.check(store)
