"""Tests that name a kind of failure: what must not run, leak, hang, be lost or change its meaning.

`docs/promises.md` says which file watches which promise.
"""

from pathlib import Path

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
"""Small inputs that failed once, each with a README; beside the project."""
