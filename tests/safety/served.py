"""What tests of the server share."""

from __future__ import annotations

from tests.bundle import made


def record() -> dict:
    return made.people(1).to_pylist()[0]
