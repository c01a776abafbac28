"""Who is who: fingerprints of declarations, seeds derived by name, ids of runs, stable hashes.

Pure functions, but for `new_ulid`, which reads the clock. One seed is declared in a recipe; every other is
derived from it by name, so that adding a consumer never shifts the numbers of another.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def canonical(value: Any) -> str:
    """`value` as JSON with one spelling: sorted keys, no spaces, infinities as words.

    Raises:
        TypeError: something in `value` has no JSON form.
    """
    return json.dumps(
        _plain(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        # JSON has text for keys alone, so 1 and "1" as keys are one.
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # JSON has no word for infinity; a mapping cannot be taken for a number or a text.
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that stand for `values`; equal values have equal fingerprints on every
    machine.
    """
    # 64 bits: among a million names two collide with a chance of about 3 in 10^8.
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:16]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the consumer called `names`, derived from the recipe's one seed."""
    digest = hashlib.sha256("/".join([str(seed), *map(str, names)]).encode()).digest()
    # 63 bits, so that it fits a signed integer of any library.
    return int.from_bytes(digest[:8], "big") >> 1


def new_ulid() -> str:
    """A sortable id (github.com/ulid/spec): 48 bits of milliseconds, 80 bits of chance, in lower case."""
    number = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    # 26 letters of 5 bits; alphabetical order is the order of time.
    return "".join(
        _CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5)
    ).lower()


def sha256_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: str | Path, *, chunk_bytes: int = 1 << 20) -> str:
    """The SHA-256 of a local file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        # In pieces: files may be larger than memory.
        while chunk := file.read(chunk_bytes):
            digest.update(chunk)
    return digest.hexdigest()
