"""The audit log of a store: who did what to whose rows, and when; added to, and never edited.

    audit/00000001.json      one line of JSON: an entry; created once, by whoever was first
    audit/00000002.json      …

An entry has the hash of the one before it, so one that was removed or changed is named by `check`. A file is
created only where there is none of its name (`core.shelf`), in a folder as in a bucket: of several processes
that write at once each gets a number of its own. The last entry has none after it; what this machine wrote
last is remembered outside of the store (`core.mine`), so a log whose end was cut off is known where it was
written.

What an entry holds: names of artefacts, counts, the user of the operating system, the machine. No value of a
row, no secret. What this file refuses to know: what was done.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from penstock.core.credentials import address
from penstock.core.errors import StoreError
from penstock.core.identity import canonical, new_ulid, sha256_text
from penstock.core.jsons import parsed
from penstock.core.listeners import as_here, notify
from penstock.core.mine import recall, remember
from penstock.core.redact import redacted_data
from penstock.core.shelf import Shelf
from penstock.core.store import Store, as_store_error

FOLDER = "audit"
"""The folder of a store with its log."""
_KIND = "audit"
_TRIES = 1_000
_WALKED = 20
"""Entries of others that are read one by one before the log is listed."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Head:
    """The last entry that is known."""

    log: str
    """The log's own id, which a store that is made anew does not share."""
    number: int
    hash: str


_heads: dict[str, Head] = {}
_writing = threading.Lock()


def note(store: Store, act: str, reference: str, **facts: Any) -> None:
    """Add an entry; where the log cannot be written, that is a notice and no error.

    Args:
        act: what was done, in one word: `prepared`, `read`, `exported`, `trained`, `packed`, `erased`.
        reference: of the artefact that it was done to.
        facts: references and counts; never a row's value.
    """
    try:
        append(store, act, reference, **facts)
    except (StoreError, OSError) as error:
        notify(f"The audit log does not have that {reference} was {act}: {error}")


def append(store: Store, act: str, reference: str, **facts: Any) -> dict[str, Any]:
    """Add an entry, and return it. Args as `note`.

    Raises:
        StoreError: the log cannot be written.
    """
    shelf = store.shelf
    # For its check alone: a link must not lead out of the store.
    store.at(_key(1))
    with _writing, as_store_error(store.folder / FOLDER):
        head = _head(store, shelf)
        if head is None and (earlier := _recalled(store)) is not None:
            # The store was made anew, or its log was taken away: the new one says so.
            facts |= {"earlier_entries": earlier.number}
        for walked in range(_TRIES):
            log = new_ulid() if head is None else head.log
            entry: dict[str, Any] = {
                "log": log,
                "number": 1 if head is None else head.number + 1,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": _user(),
                "host": socket.gethostname(),
                "act": act,
                "reference": reference,
                **redacted_data(facts),
                "before": "" if head is None else head.hash,
                # Two entries are never equal, so that a bucket can tell who was first.
                "nonce": secrets.token_hex(8),
            }
            entry["hash"] = _hash(entry)
            line = json.dumps(entry, ensure_ascii=False) + "\n"
            if shelf.create(_key(entry["number"]), line.encode()):
                _remember(store, Head(log, entry["number"], entry["hash"]))
                return entry
            # Another has that number: its entry is the head now.
            head = _last(shelf) if walked % _WALKED == _WALKED - 1 else _next(shelf, head)
    raise StoreError(f"the audit log of {store.url} is written by others all the time.")


def _next(shelf: Shelf, head: Head | None) -> Head | None:
    number = 1 if head is None else head.number + 1
    return _read_head(shelf, number) or _last(shelf)


def _head(store: Store, shelf: Shelf) -> Head | None:
    """The head as this process or this machine knows it; the log is listed where neither does."""
    where = address(store.url)
    head = _heads.get(where) or _recalled(store)
    if head is not None:
        first = _read_head(shelf, 1)
        if first is not None and first.log == head.log:
            return head
        if first is not None and head.number == 1:
            return first
    # Not known, or the log of a store that is no more.
    return _last(shelf)


def _last(shelf: Shelf) -> Head | None:
    numbers = _numbers(shelf)
    return _read_head(shelf, numbers[-1]) if numbers else None


def _read_head(shelf: Shelf, number: int) -> Head | None:
    entry = _entry(shelf, number)
    if entry is None:
        return None
    return Head(str(entry.get("log", "")), number, str(entry.get("hash") or _hash(entry)))


def _numbers(shelf: Shelf) -> list[int]:
    names = (key.rsplit("/", 1)[-1] for key in shelf.below(FOLDER))
    return sorted(
        int(name.removesuffix(".json"))
        for name in names
        if name.endswith(".json") and name.removesuffix(".json").isdigit()
    )


def _entry(shelf: Shelf, number: int) -> dict[str, Any] | None:
    """An entry as it lies there; an empty one where it cannot be read; None without any."""
    content = shelf.read(_key(number))
    if content is None:
        return None
    try:
        entry = parsed(content)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _key(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _hash(entry: Mapping[str, Any]) -> str:
    return sha256_text(
        canonical({word: value for word, value in entry.items() if word != "hash"})
    )


@cache
def _user() -> str:
    """The user of the operating system, by the id of the process: the environment can say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container without a record of its users
        return f"user {os.getuid()}"


def _recalled(store: Store) -> Head | None:
    facts = recall(_KIND, address(store.url))
    if facts is None or not isinstance(facts.get("number"), int):
        return None
    return Head(str(facts.get("log")), facts["number"], str(facts.get("hash")))


def _remember(store: Store, head: Head) -> None:
    _heads[address(store.url)] = head
    last = _recalled(store)
    # Another process of this machine may have written a later one meanwhile.
    if last is None or last.log != head.log or last.number < head.number:
        facts = {"log": head.log, "number": head.number, "hash": head.hash}
        remember(_KIND, address(store.url), facts)


# -- reading -------------------------------------------------------------------------------------------------


def entries(store: Store, reference: str | None = None) -> list[dict[str, Any]]:
    """The entries of a store's log, oldest first.

    Args:
        reference: only those that name this artefact, or one whose reference begins so.

    Raises:
        StoreError: the store cannot be read.
    """
    shelf = store.shelf
    numbers = _numbers(shelf)

    def read(number: int) -> dict[str, Any]:
        return {"number": number, **(_entry(shelf, number) or {})}

    if store.is_remote:
        with ThreadPoolExecutor(_AT_ONCE, "penstock-audit") as pool:
            rows = list(pool.map(as_here(read), numbers))
    else:
        rows = [read(number) for number in numbers]
    if reference is None:
        return rows
    return [row for row in rows if _names(row, reference)]


def _names(entry: Mapping[str, Any], reference: str) -> bool:
    own = ("log", "time", "user", "host", "act", "before", "nonce", "hash")
    return any(
        text == reference or text.startswith((f"{reference}@", reference))
        for word, value in entry.items()
        if word not in own
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str)
    )


def check(store: Store) -> list[str]:
    """What is wrong with a store's log, in sentences: entries that were removed or changed; none where it is
    whole.

    Raises:
        StoreError: the store cannot be read.
    """
    problems: list[str] = []
    rows = entries(store)
    number = 0
    hash: str | None = ""
    for row in rows:
        last, number = number, row["number"]
        if number != last + 1:
            gone = f"entry {last + 1}" + (
                f" to {number - 1}" if number > last + 2 else ""
            )
            problems.append(f"{gone} is not there: removed after it was written")
        is_sound = row.get("hash") == _hash(row)
        if not is_sound:
            problems.append(f"entry {number} is not what was written: changed since")
        # What follows a changed one is not held against it as well.
        elif number == last + 1 and hash is not None and row["before"] != hash:
            problems.append(
                f"entry {number} does not follow entry {last}: one of both was put in the place of another"
            )
        hash = row["hash"] if is_sound else None
    head = _recalled(store)
    if head is not None:
        problems += _against(head, rows)
    return problems


def _against(head: Head, rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the log by what this machine remembers of it."""
    if not rows:
        return [f"the log is gone: this machine wrote its entry {head.number}"]
    if rows[0].get("log") != head.log:
        return ["the log is another than the one that this machine wrote to last"]
    by_number = {row["number"]: row for row in rows}
    if head.number not in by_number:
        if head.number > rows[-1]["number"]:
            return [f"its end is not there: this machine wrote entry {head.number}"]
        return []  # it was named as a gap
    if by_number[head.number].get("hash") != head.hash:
        return [f"entry {head.number} is not the one that this machine wrote"]
    return []


__all__ = ["FOLDER", "Head", "append", "check", "entries", "note"]
