"""What tests of trust share: a module that leaves a marker when it is run, and where it is planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"
PLANTED = "planted_by_test_trust"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))


def code(marker: Path) -> str:
    return f"from pathlib import Path\nPath({str(marker)!r}).write_text('it ran')\n"


def plant(folder: Path, marker: Path, *, name: str = PLANTED) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code(marker))
    (folder / f"{name}_package").mkdir(exist_ok=True)
    (folder / f"{name}_package" / "__init__.py").write_text(code(marker))
    (folder / f"{name}_package" / "part.py").write_text(code(marker))


def change(file: Path, **words: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **words}), "utf-8")
