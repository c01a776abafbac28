"""Data of people from a file to an answer: no private value is in a file of the store, or in what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

import penstock

pytestmark = pytest.mark.slow
SECRET = "planted-secret"
RECIPE = """
source: people.csv
key: [person]
derive: {age: "2026 - year(born)"}
expect: {email: {pattern: "[a-z0-9-]+@.*"}}
private:
  person: pseudonym
  email: drop
  born: drop
  city: {type: generalise, values: {Lyon: south, Lille: north}, other: elsewhere}
  note: redact_text
governance:
  consent: {column: agreed}
  anonymity: {columns: [city], k: 5}
inputs: {age: number, city: category, note: text}
targets: {pay: binary}
train: {epochs: 2}
store: store
"""


def _people(path: Path) -> None:
    lines = ["person,email,born,city,note,agreed,pay"]
    for i in range(400):
        age, city = 20 + i % 60, ("Lyon", "Lille", "Nantes")[i % 3]
        note = f"wrote from {SECRET}.{i}@mail.example yesterday"
        pay = "high" if age > 50 else "low"
        agreed = "true" if i % 10 else "false"
        lines.append(
            f"{SECRET}-{i},{SECRET}{i}@x.example,{2026 - age}-03-05,{city},{note},{agreed},{pay}"
        )
    lines.insert(40, f"{SECRET} torn")
    lines[70] = lines[70].replace(f",{SECRET}", f",IT'S {SECRET}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _text(path: Path) -> str:
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".parquet":
        text += str(pq.read_table(path).to_pylist())
    if path.suffix == ".arrow":
        text += str(ipc.open_file(path).read_all().to_pylist())
    return text


def test_from_a_file_to_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _people(tmp_path / "people.csv")
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    key = "the-key-of-this-test-0123456789"
    monkeypatch.setenv("PENSTOCK_KEY", key)
    command = [sys.executable, "-m", "penstock", "run", "recipe.yaml"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout + ran.stderr
    assert SECRET not in said and key not in said

    store = tmp_path / "store"
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        text = _text(path)
        assert SECRET not in text and key not in text, path

    [reference] = [f"bundle-{path.name}" for path in (store / "bundles").iterdir()]
    # The model saw no pseudonym, so the bundle needs no key.
    monkeypatch.delenv("PENSTOCK_KEY")
    bundle = penstock.Bundle.open(reference, store=str(store))
    row = {"born": "1966-03-05", "city": "Lyon", "note": f"from {SECRET}@x.example"}
    [answer] = bundle.predict([row])
    # What is hidden alike is answered alike.
    [other] = bundle.predict([{**row, "note": "from somebody.else@y.example"}])
    assert answer == other and answer["pay"] in ("high", "low")
    [south] = bundle.predict([{**row, "born": "1999-03-05"}])
    assert south["pay_probabilities"] != answer["pay_probabilities"]

    _people(tmp_path / "later.csv")
    command = [sys.executable, "-m", "penstock", "evaluate", reference, "later.csv"]
    judged = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stderr
    # Rows without consent are not measured, and the one that breaks a rule is told without its value.
    balance = "401 = 359 with a truth + 0 without + 1 that break a rule + 40 filtered + 1 unreadable"
    assert balance in judged.stdout, judged.stdout
    assert SECRET not in judged.stdout + judged.stderr
    assert not any(SECRET in _text(path) for path in store.rglob("*.*") if path.is_file())
