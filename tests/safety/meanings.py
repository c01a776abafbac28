"""Texts that look like values of several types."""

from __future__ import annotations

VALUES = [
    "1",
    "01",
    "1.0",
    "1e3",
    "",
    "NA",
    "x",
    "true",
    "True",
    "2024-01-05",
    "2024-01-05T10:00:00Z",
    "c",
    "t",
    "9007199254740993",
]
