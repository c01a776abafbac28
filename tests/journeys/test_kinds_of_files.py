"""A bundle that learnt from CSV answers the rows of any kind of file; init knows tables in a zip."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pytest
import yaml

import penstock
from penstock.cli import main

ROWS = [
    {"area": 20 + i * 7 % 180, "city": ["Oslo", "Bergen"][i % 2], "share": i / 4}
    for i in range(200)
]
NEW = ROWS[:12]


def dear(row: dict) -> str:
    return "yes" if row["area"] + 40 * (row["city"] == "Oslo") > 120 else "no"


def csv(rows: list[dict], *, targets: bool = False) -> bytes:
    names = [*rows[0], *(["dear"] if targets else [])]
    lines = [",".join(names)]
    for row in rows:
        cells = [*row.values(), *([dear(row)] if targets else [])]
        lines.append(",".join(map(str, cells)))
    return ("\n".join(lines) + "\n").encode()


def xlsx(rows: list[dict]) -> bytes:
    book = openpyxl.Workbook()
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def sqlite(rows: list[dict]) -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE flats (area INTEGER, city TEXT, share REAL)")
        for row in rows:
            base.execute("INSERT INTO flats VALUES (?, ?, ?)", tuple(row.values()))
        base.commit()
        return base.serialize()


def npz(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **{name: np.array([row[name] for row in rows]) for name in rows[0]})
    return out.getvalue()


def npy(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    kinds = [("area", "i8"), ("city", "U9"), ("share", "f8")]
    np.save(out, np.array([tuple(row.values()) for row in rows], kinds))
    return out.getvalue()


def fixed(rows: list[dict]) -> bytes:
    lines = [f"{'area':<6}{'city':<9}share"]
    lines += [f"{r['area']:<6}{r['city']:<9}{r['share']}" for r in rows]
    return ("\n".join(lines) + "\n").encode()


def zipped(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("README.md", "flats")
        archive.writestr("a/first.csv", csv(rows[:5]))
        archive.writestr("b/second.csv", csv(rows[5:]))
    return out.getvalue()


FILES = {
    "new.json": json.dumps(NEW).encode(),
    "held.json": json.dumps({"page": 1, "records": NEW}, indent=1).encode(),
    "new.xlsx": xlsx(NEW),
    "new.sqlite": sqlite(NEW),
    "new.npz": npz(NEW),
    "new.npy": npy(NEW),
    "new.fwf": fixed(NEW),
    "new.zip": zipped(NEW),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flats")
    (folder / "flats.csv").write_bytes(csv(ROWS, targets=True))
    (folder / "new.csv").write_bytes(csv(NEW))
    recipe = {
        "name": "flats",
        "source": {"type": "files", "path": "flats.csv"},
        "inputs": {"area": "number", "city": "category", "share": "number"},
        "targets": {"dear": {"type": "binary", "positive": "yes"}},
        "train": {"epochs": 2, "batch_size": 32},
        "evaluate": {"baselines": False},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def answers(workshop):
    """What a file's rows are answered, by a bundle that learnt from CSV."""
    bundle = penstock.run(workshop / "recipe.yaml").bundle.path

    def go(name: str) -> list[dict]:
        target = workshop / f"{name}.answers.parquet"
        assert (
            main(["predict", str(bundle), str(workshop / name), "-o", str(target)]) == 0
        )
        return pq.read_table(target).to_pylist()

    return go


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_answered_as_csv_is(answers, name):
    expected, seen = answers("new.csv"), answers(name)
    assert len(seen) == len(NEW) and seen == expected


def test_init_takes_the_members_of_a_zip_for_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("shop.zip").write_bytes(zipped([{**row, "dear": dear(row)} for row in ROWS]))
    assert main(["init", "shop.zip", "--target", "dear"]) == 0
    written = list(Path(".").glob("*.y*ml"))
    text = written[0].read_text("utf-8") if written else capsys.readouterr().out
    recipe = yaml.safe_load(text)
    source = recipe["source"]
    assert source in ("shop.zip", {"type": "files", "path": "shop.zip"}), source
    assert (
        set(recipe["inputs"]) <= {"area", "city", "share"} and "dear" in recipe["targets"]
    )
    dataset = penstock.prepare(penstock.Recipe.load(recipe))
    assert dataset.counts["in"] == len(ROWS)
