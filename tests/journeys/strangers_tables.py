"""Small data sets as strangers have them, each with the quirks that a first hour meets, and what a good
recipe would say of it. Written from what users expect, not from what `init` does.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 1_500


@dataclass(frozen=True)
class Stranger:
    """A data set, and what is right for it."""

    write: Callable[[Path], str]
    """Writes the data below a folder; returns the path that its owner would give to `init`."""
    target: str | None
    kinds: tuple[str, ...]
    """Types of the target that are right."""
    rows: int
    """Data rows of the source, bad ones included."""
    split: dict[str, Any] = field(default_factory=dict)
    """Words that the proposed split must have."""
    out: tuple[str, ...] = ()
    """Columns that must not be learnt from."""
    used: tuple[str, ...] = ()
    """Columns that must be learnt from."""
    warns: tuple[str, ...] = ()
    """Words, any of which the recipe or the screen must say."""
    better_than_trivial: bool = True


def _csv(
    path: Path, header: list[str], rows: list[list[Any]], mark: str = ",", **how: Any
) -> str:
    lines = [mark.join(header), *(mark.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", **({"encoding": "utf-8"} | how))
    return path.name


def _german(number: float, digits: int = 2) -> str:
    """1234.5 → 1.234,50"""
    return f"{number:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def machines(folder: Path) -> str:
    """Sorted by class, cp1252, semicolons, decimal commas, euros; in the head much is constant."""
    chance = np.random.default_rng(1)
    rows = []
    for kind in range(8):
        for _ in range(400):
            heat = 20 + 3 * kind + chance.normal(0, 2)
            price = 1_000 * (1 + kind % 3) + chance.normal(0, 150)
            day = date(2021, 1, 1) + timedelta(days=int(chance.integers(0, 700)))
            hall = "Süd" if kind < 2 else ("Süd", "Nord", "Öst")[chance.integers(0, 3)]
            rows.append(
                [
                    _german(heat, 1),
                    f"{_german(price)} €",
                    f"{day:%d.%m.%Y}",
                    hall,
                    f"Typ {kind}",
                ]
            )
    header = ["Temperatur", "Preis", "Datum", "Halle", "Klasse"]
    return _csv(folder / "maschinen.csv", header, rows, ";", encoding="cp1252")


def trade(folder: Path) -> str:
    """Rows in time order, dollars with thousands separators, units, two columns whose sum is the target."""
    chance = np.random.default_rng(2)
    rows = []
    for i in range(ROWS):
        day = date(2020, 1, 1) + timedelta(days=i // 3)
        weight = chance.uniform(1, 50)
        insured = chance.random() < 0.4
        price = round(
            200 + 40 * weight + 300 * insured + 0.2 * i + chance.normal(0, 60), 2
        )
        tax = round(price * chance.uniform(0.05, 0.3), 2)
        rows.append(
            [
                f"{day:%d-%b-%y}",
                f"{weight:.1f} kg",
                "yes" if insured else "no",
                f'"${price - tax:,.2f}"',
                f'"${tax:,.2f}"',
                f'"${price:,.2f}"',
            ]
        )
    header = ["shipped", "weight", "insured", "net", "tax", "price"]
    return _csv(folder / "trade.csv", header, rows)


def churn(folder: Path) -> str:
    """Folders that are splits; a date that is there only for those who left; a free identifier, an e-mail."""
    chance = np.random.default_rng(3)
    root = folder / "churn"
    number = 0
    for split, count in (("train", 1_000), ("validation", 200), ("test", 300)):
        (root / split).mkdir(parents=True)
        rows = []
        for _ in range(count):
            number += 1
            months, calls = int(chance.integers(1, 70)), int(chance.poisson(2))
            left = chance.random() < 1 / (1 + np.exp(0.08 * months - 0.7 * calls + 0.4))
            plan = ("basic", "family", "pro")[chance.integers(0, 3)]
            gone = (
                f"2023-{chance.integers(1, 13):02d}-{chance.integers(1, 29):02d}"
                if left
                else ""
            )
            mail = f"user{number}@mail.example"
            rows.append(
                [
                    f"C{number:05d}",
                    mail,
                    months,
                    calls,
                    plan,
                    gone,
                    "yes" if left else "no",
                ]
            )
        header = ["customer", "email", "months", "calls", "plan", "closed_on", "churned"]
        _csv(root / split / "part.csv", header, rows)
    return "churn"


def reviews(folder: Path) -> str:
    """Texts in folders of splits and classes."""
    chance = np.random.default_rng(4)
    words = {"good": "great lovely crisp warm happy", "bad": "dull broken cold awful sad"}
    common = "the a film book meal was and with very it of again place time".split()
    for split, count in (("train", 300), ("test", 100)):
        for label, own in words.items():
            below = folder / "reviews" / split / label
            below.mkdir(parents=True)
            for i in range(count):
                text = [*chance.choice(common, 12), *chance.choice(own.split(), 2)]
                chance.shuffle(text)
                (below / f"{i}.txt").write_text(" ".join(text), encoding="utf-8")
    return "reviews"


def genes(folder: Path) -> str:
    """Long strings over four letters; classes + and -."""
    chance = np.random.default_rng(5)
    rows = []
    for i in range(ROWS):
        letters = list(chance.choice(list("acgt"), 57))
        promoter = i % 2 == 0
        if promoter:
            at = int(chance.integers(5, 40))
            letters[at : at + 6] = list("tataat")
        rows.append(["+" if promoter else "-", f"S{i}", "".join(letters)])
    return _csv(folder / "genes.csv", ["class", "instance", "sequence"], rows)


def hourly(folder: Path) -> str:
    """One series by the hour, some hours missing."""
    chance = np.random.default_rng(6)
    start = datetime(2022, 1, 1)
    rows = []
    for i in range(1_500):
        if i % 97 == 50:
            continue
        load = 50 + 20 * np.sin(2 * np.pi * i / 24) + chance.normal(0, 2)
        heat = 10 + 8 * np.sin(2 * np.pi * (i - 4) / 24) + chance.normal(0, 1)
        rows.append(
            [f"{start + timedelta(hours=i):%Y-%m-%d %H:%M}", f"{load:.2f}", f"{heat:.1f}"]
        )
    return _csv(folder / "load.csv", ["time", "load", "heat"], rows)


def ratings(folder: Path) -> str:
    """User × item: identifiers that repeat carry the signal."""
    chance = np.random.default_rng(7)
    users, items = chance.normal(0, 0.8, 150), chance.normal(0, 0.9, 60)
    rows = []
    for _ in range(6_000):
        u, i = int(chance.integers(0, 150)), int(chance.integers(0, 60))
        stars = int(np.clip(round(3 + users[u] + items[i] + chance.normal(0, 0.4)), 1, 5))
        rows.append([1_000 + u, 7_000 + i, stars])
    return _csv(folder / "ratings.csv", ["user_id", "item_id", "rating"], rows)


def fraud(folder: Path) -> str:
    """Nine positives in a thousand."""
    chance = np.random.default_rng(8)
    rows = []
    for i in range(4_000):
        is_fraud = i % 111 == 5
        amount = chance.lognormal(3 + 1.6 * is_fraud, 0.6)
        rows.append(
            [
                f"{amount:.2f}",
                int(chance.integers(0, 24)),
                int(chance.poisson(1 + 4 * is_fraud)),
                int(is_fraud),
            ]
        )
    order = chance.permutation(len(rows))
    return _csv(
        folder / "fraud.csv",
        ["amount", "hour", "tries", "fraud"],
        [rows[i] for i in order],
    )


def people(folder: Path) -> str:
    """A JSON array of nested records with names of persons."""
    chance = np.random.default_rng(9)
    first = [
        "Ada",
        "Grace",
        "Alan",
        "Edsger",
        "Barbara",
        "Donald",
        "Frances",
        "John",
        "Jean",
        "Kathleen",
    ]
    last = [
        "Lovelace",
        "Hopper",
        "Turing",
        "Dijkstra",
        "Liskov",
        "Knuth",
        "Allen",
        "Backus",
        "Bartik",
        "Booth",
    ]
    records = []
    for _ in range(ROWS):
        income, debt = float(chance.normal(40, 12)), float(chance.normal(12, 6))
        records.append(
            {
                "applicant": {
                    "name": f"{chance.choice(first)} {chance.choice(last)}{chr(97 + chance.integers(0, 26))}",
                    "phone": f"+49 151 {chance.integers(1_000_000, 9_999_999)}",
                    "age": int(chance.integers(18, 80)),
                },
                "money": {"income": round(income, 1), "debt": round(debt, 1)},
                "approved": bool(income - 1.5 * debt + chance.normal(0, 6) > 20),
            }
        )
    (folder / "people.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    return "people.json"


def shop(folder: Path) -> str:
    """A zip of two tables with one header each."""
    chance = np.random.default_rng(10)
    with zipfile.ZipFile(folder / "shop.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for month in ("january", "february"):
            lines = ["pages,minutes,source,bought"]
            for _ in range(ROWS // 2):
                pages, minutes = int(chance.poisson(5)), chance.exponential(6)
                bought = chance.random() < 1 / (
                    1 + np.exp(3 - 0.35 * pages - 0.1 * minutes)
                )
                source = chance.choice(["ad", "mail", "search"])
                lines.append(
                    f"{pages},{minutes:.2f},{source},{'true' if bought else 'false'}"
                )
            archive.writestr(f"{month}.csv", "\n".join(lines) + "\n")
    return "shop.zip"


def patients(folder: Path) -> str:
    """Several rows of each patient, alike among themselves."""
    chance = np.random.default_rng(11)
    rows = []
    for patient in range(250):
        base, ill = chance.normal(120, 15), chance.random() < 0.4
        for visit in range(6):
            pressure = base + 18 * ill + chance.normal(0, 8)
            rows.append(
                [
                    f"P{patient:04d}",
                    visit,
                    f"{pressure:.0f}",
                    f"{chance.normal(37 + 0.4 * ill, 0.4):.1f}",
                    "ill" if ill else "well",
                ]
            )
    return _csv(
        folder / "visits.csv",
        ["patient_id", "visit", "pressure", "temperature", "state"],
        rows,
    )


def years(folder: Path) -> str:
    """A header with numbers among its names, classes 1 and 2, a missing number written "?"."""
    chance = np.random.default_rng(12)
    rows = []
    for _ in range(ROWS):
        kind = int(chance.integers(1, 3))
        before, after = chance.normal(10 + 2 * kind, 2), chance.normal(10 + 3 * kind, 2)
        staff = "?" if chance.random() < 0.05 else int(chance.integers(1, 90))
        rows.append([f"{before:.1f}", f"{after:.1f}", staff, kind])
    return _csv(folder / "sales.csv", ["2019", "2020", "staff", "group"], rows)


def phrases(folder: Path) -> str:
    """A text to be answered with a text."""
    chance = np.random.default_rng(13)
    pairs = {
        "red": "rot",
        "dog": "Hund",
        "runs": "rennt",
        "house": "Haus",
        "green": "grün",
        "cat": "Katze",
        "sleeps": "schläft",
        "tree": "Baum",
        "big": "groß",
        "small": "klein",
        "sees": "sieht",
        "the": "das",
    }
    rows = []
    for _ in range(ROWS):
        words = list(chance.choice(list(pairs), int(chance.integers(5, 9))))
        rows.append([" ".join(words), " ".join(pairs[w] for w in words)])
    return _csv(folder / "phrases.tsv", ["english", "german"], rows, "\t")


STRANGERS: dict[str, Stranger] = {
    "machines": Stranger(
        machines, "Klasse", ("category",), 3_200, used=("Temperatur", "Preis", "Halle")
    ),
    "trade": Stranger(
        trade,
        "price",
        ("number",),
        ROWS,
        {"by": "time"},
        out=("net", "tax"),
        used=("weight", "insured"),
    ),
    "churn": Stranger(
        churn,
        "churned",
        ("binary",),
        1_500,
        {"by": "files"},
        out=("customer", "email", "closed_on"),
        used=("months", "calls"),
    ),
    "reviews": Stranger(
        reviews,
        "label",
        ("category", "binary"),
        800,
        {"by": "column", "on": "split"},
        out=("path",),
        used=("content",),
    ),
    "genes": Stranger(
        genes,
        "class",
        ("binary", "category"),
        ROWS,
        out=("instance",),
        used=("sequence",),
    ),
    "hourly": Stranger(
        hourly, "load", ("series",), 1_485, {"by": "time", "on": "time"}, used=("load",)
    ),
    "ratings": Stranger(
        ratings, "rating", ("number", "category"), 6_000, used=("user_id", "item_id")
    ),
    "fraud": Stranger(
        fraud,
        "fraud",
        ("binary",),
        4_000,
        {"stratify": "fraud"},
        used=("amount", "tries"),
        warns=("positive", "rare"),
    ),
    "people": Stranger(
        people,
        "approved",
        ("binary",),
        ROWS,
        out=("applicant.name", "applicant.phone"),
        used=("money.income", "money.debt"),
    ),
    "shop": Stranger(shop, "bought", ("binary",), ROWS, used=("pages", "minutes")),
    "patients": Stranger(
        patients,
        "state",
        ("binary",),
        ROWS,
        {"on": "patient_id"},
        out=("patient_id",),
        used=("pressure",),
    ),
    "years": Stranger(
        years, "group", ("binary", "category"), ROWS, used=("2019", "2020", "staff")
    ),
    "phrases": Stranger(phrases, "german", ("text",), ROWS, used=("english",)),
}
