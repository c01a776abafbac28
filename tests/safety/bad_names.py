"""Bad names, and what tests of them share."""

from __future__ import annotations

import hashlib

OUTSIDE = [
    "../planted",
    "../../planted",
    "a/../../planted",
    "a/b/../../../planted",
    "..",
    "../",
    "/tmp/planted-absolute",
    "//tmp/planted",
    "~/../../planted\0",
    "..\\planted",
    "a\\..\\..\\planted",
    "C:\\planted",
    "C:/planted",
    "c:planted",
    "\\\\host\\share\\planted",
]
"""Names that lead out, here or on another system."""
ODD = [
    "",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "\udcff",
    "x" * 300,
    "a/" * 2_500 + "b",
    "\u2028",
]
"""Names that are not spelt in the one normal way."""
BAD = OUTSIDE + ODD


def entry(content: bytes) -> dict[str, object]:
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def ids(name: str) -> str:
    return ascii(name)[:30]
