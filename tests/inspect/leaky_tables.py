"""Thirty tables with a planted leak, and thirty without one.

A leaky table names the columns that must not be inputs (one of them is enough where several make the leak
together) and a word that the reason must hold. A clean table names the columns that must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

Columns = dict[str, Any]
Chance = np.random.Generator


@dataclass(frozen=True)
class Planted:
    """A table, its target, and what is to be left out of it and why."""

    columns: Columns
    target: str
    out: frozenset[str]
    word: str


@dataclass(frozen=True)
class Clean:
    """A table and its target; every column but those that may be left out for other reasons is to stay."""

    columns: Columns
    target: str
    may_go: frozenset[str] = frozenset()


LEAKY: dict[str, Callable[[Chance], Planted]] = {}
CLEAN: dict[str, Callable[[Chance], Clean]] = {}


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    """Columns as an Arrow table."""
    return pa.table(
        {k: v if isinstance(v, pa.Array) else pa.array(v) for k, v in columns.items()}
    )


def leaky(make: Callable[[Chance], Planted]) -> Callable[[Chance], Planted]:
    """Add a table to the leaky ones."""
    LEAKY[make.__name__] = make
    return make


def clean(make: Callable[[Chance], Clean]) -> Callable[[Chance], Clean]:
    """Add a table to the clean ones."""
    CLEAN[make.__name__] = make
    return make


def planted(columns: Columns, target: str, out: str, word: str) -> Planted:
    """A leaky table, its columns that leak with spaces between."""
    return Planted(columns, target, frozenset(out.split()), word)


def holes(chance: Chance, values: Any, share: float) -> list[Any]:
    """Values, some of them missing."""
    gone = chance.random(len(values)) < share
    return [
        None if g else v for v, g in zip(np.asarray(values).tolist(), gone, strict=True)
    ]


def dates(chance: Chance, rows: int, days: int = 700) -> np.ndarray:
    """Moments of some years, to the minute."""
    minutes = chance.integers(0, days * 1440, rows)
    return np.datetime64("2023-01-01T00:00:00", "us") + minutes * np.timedelta64(1, "m")


def person(chance: Chance, rows: int) -> tuple[Columns, np.ndarray]:
    """Honest columns and the score they make."""
    age = chance.integers(18, 80, rows)
    income = np.round(chance.lognormal(10, 0.5, rows), 2)
    city = chance.choice(["Bern", "Wien", "Graz", "Ulm", "Lyon"], rows)
    score = (
        (age - 50) / 18
        + (np.log(income) - 10) * 1.5
        + (city == "Wien") * 0.8
        + chance.normal(0, 1, rows)
    )
    return {"age": age, "income": income, "city": city}, score


# Leaks: classes.


@leaky
def copy_of_the_label(chance: Chance) -> Planted:
    columns, score = person(chance, 400)
    y = np.where(score > 0, "good", "bad")
    return planted(
        {**columns, "code": np.where(score > 0, "A7", "B2"), "y": y},
        "y",
        "code",
        "target",
    )


@leaky
def copy_with_missing_values(chance: Chance) -> Planted:
    columns, score = person(chance, 900)
    y = np.where(score > 0, "good", "bad")
    codes = holes(chance, np.where(score > 0, 3, 8), 0.35)
    return planted({**columns, "state": codes, "y": y}, "y", "state", "target")


@leaky
def diagnosis_code(chance: Chance) -> Planted:
    columns, _ = person(chance, 1_500)
    kind = chance.integers(0, 5, 1_500)
    y = np.array(["flu", "cold", "asthma", "covid", "none"])[kind]
    icd = [
        f"J{k}{d:02d}" for k, d in zip(kind, chance.integers(0, 25, 1_500), strict=True)
    ]
    return planted({**columns, "icd": icd, "diagnosis": y}, "diagnosis", "icd", "class")


@leaky
def binned_number(chance: Chance) -> Planted:
    columns, _ = person(chance, 300)
    points = np.round(chance.normal(60, 15, 300), 1)
    y = np.array(["E", "D", "C", "B", "A"])[np.digitize(points, [40, 52, 65, 78])]
    return planted({**columns, "points": points, "grade": y}, "grade", "points", "range")


@leaky
def present_only_when_churned(chance: Chance) -> Planted:
    columns, score = person(chance, 2_000)
    gone = score > 1.2
    when = pa.array(
        [
            d if g else None
            for d, g in zip(dates(chance, 2_000).tolist(), gone, strict=True)
        ]
    )
    return planted(
        {"signup": dates(chance, 2_000), **columns, "exit_date": when, "churn": gone},
        "churn",
        "exit_date",
        "filled in or missing",
    )


@leaky
def missing_only_in_one_class(chance: Chance) -> Planted:
    columns, score = person(chance, 800)
    y = np.where(score > 0, "accepted", "refused")
    rate = [
        None if (s > 0 and u < 0.8) else float(v)
        for s, u, v in zip(
            score, chance.random(800), chance.normal(5, 1, 800).round(2), strict=True
        )
    ]
    return planted({**columns, "rate": rate, "loan": y}, "loan", "rate", "missing")


@leaky
def reason_of_one_class(chance: Chance) -> Planted:
    rows = 3_000
    y = chance.choice(["negative", "neutral", "positive"], rows, p=[0.6, 0.25, 0.15])
    reason = [
        str(r) if v == "negative" else None
        for v, r in zip(y, chance.choice(["late", "rude", "lost"], rows), strict=True)
    ]
    columns = {
        "airline": chance.choice(["AA", "UA", "DL"], rows),
        "length": chance.poisson(80, rows) + 10 * (y == "negative"),
        "negativereason": reason,
        "sentiment": y,
    }
    return planted(columns, "sentiment", "negativereason", "negative")


@leaky
def one_hot_flags(chance: Chance) -> Planted:
    rows = 1_000
    y = chance.choice(["setosa", "virginica", "versicolor"], rows)
    columns = {
        "length": chance.normal(5, 1, rows) + (y == "setosa"),
        **{
            f"is_{c}": (y == c).astype(int) for c in ("setosa", "virginica", "versicolor")
        },
        "species": y,
    }
    return planted(columns, "species", "is_setosa is_virginica is_versicolor", "flag")


@leaky
def scores_of_each_class(chance: Chance) -> Planted:
    rows = 1_200
    k = chance.integers(0, 4, rows)
    scores = chance.dirichlet(np.ones(4), rows) * 0.5
    scores[np.arange(rows), k] += 0.5
    columns = {
        "width": chance.normal(0, 1, rows) + k,
        **{f"prob_{i}": scores[:, i].round(4) for i in range(4)},
        "label": np.array(["cat", "dog", "cow", "hen"])[k],
    }
    return planted(columns, "label", "prob_0 prob_1 prob_2 prob_3", "greatest")


@leaky
def prediction_of_another_model(chance: Chance) -> Planted:
    columns, score = person(chance, 700)
    y = np.where(score + chance.normal(0, 0.3, 700) > 0, "yes", "no")
    predicted = np.where(score > 0, "yes", "no")
    return planted({**columns, "y_pred": predicted, "y": y}, "y", "y_pred", "name")


@leaky
def gold_and_confidence(chance: Chance) -> Planted:
    rows = 1_500
    y = chance.choice(["happy", "sad", "angry"], rows)
    columns = {
        "text": [
            f"{a} {b} day at the {c}"
            for a, b, c in chance.choice(["my", "one", "fine", "old"], (rows, 3))
        ],
        "emotion:confidence": chance.beta(8, 2, rows).round(4),
        "emotion_gold": holes(chance, y, 0.95),
        "emotion": y,
    }
    return planted(columns, "emotion", "emotion:confidence emotion_gold", "name")


@leaky
def second_annotator(chance: Chance) -> Planted:
    columns, score = person(chance, 900)
    y = np.where(score > 0.5, "toxic", "fine")
    other = np.where(chance.random(900) < 0.05, np.where(y == "fine", "toxic", "fine"), y)
    return planted(
        {**columns, "label_b": other, "label": y}, "label", "label_b", "second label"
    )


@leaky
def annotator_column(chance: Chance) -> Planted:
    columns, score = person(chance, 500)
    columns["annotator"] = chance.choice(["ann", "bob", "eve"], 500)
    return planted(
        {**columns, "label": np.where(score > 0, "ham", "spam")},
        "label",
        "annotator",
        "labelled",
    )


@leaky
def sorted_by_class(chance: Chance) -> Planted:
    columns, score = person(chance, 1_000)
    order = np.argsort(score > 0, kind="stable")
    number = np.arange(1_000) * 3 + chance.integers(0, 3, 1_000)
    columns = {k: v[order] for k, v in columns.items()}
    return planted(
        {"record": number, **columns, "y": (score > 0)[order]}, "y", "record", "range"
    )


@leaky
def rare_class_told_by_a_flag(chance: Chance) -> Planted:
    columns, score = person(chance, 5_000)
    fraud = score > np.quantile(score, 0.99)
    return planted(
        {**columns, "blocked": np.where(fraud, "Y", "N"), "fraud": fraud.astype(int)},
        "fraud",
        "blocked",
        "target",
    )


@leaky
def class_folder_in_a_path(chance: Chance) -> Planted:
    rows = 600
    y = chance.choice(["pos", "neg"], rows)
    path = [
        f"{s}/{c}/{i}.txt"
        for i, (s, c) in enumerate(
            zip(chance.choice(["train", "test"], rows), y, strict=True)
        )
    ]
    text = [
        " ".join(w)
        for w in chance.choice(["good", "film", "plot", "dull", "long"], (rows, 8))
    ]
    return planted({"path": path, "content": text, "label": y}, "label", "path", "folder")


@leaky
def class_in_a_file_name(chance: Chance) -> Planted:
    rows = 500
    y = chance.integers(0, 10, rows)
    names = [
        f"{d}_{s}_{i % 50}.wav"
        for i, (d, s) in enumerate(
            zip(y, chance.choice(["ann", "theo", "yweweler"], rows), strict=True)
        )
    ]
    columns = {"file": names, "loudness": chance.normal(0, 1, rows) + 0.1 * y, "digit": y}
    return planted(columns, "digit", "file", "piece")


@leaky
def group_identifier(chance: Chance) -> Planted:
    patients = 60
    who = chance.integers(0, patients, 1_800)
    ill = chance.random(patients) < 0.4
    columns = {
        "patient_id": 7_000 + who,
        "pulse": chance.normal(70, 9, 1_800) + 6 * ill[who],
        "ill": ill[who].astype(int),
    }
    return planted(columns, "ill", "patient_id", "patient_id")


@leaky
def late_by_two_dates(chance: Chance) -> Planted:
    rows = 900
    due = dates(chance, rows)
    days = chance.normal(-1, 4, rows)
    shipped = due + (days * 86_400e6).astype("timedelta64[us]")
    columns = {
        "due_at": due,
        "weight": chance.gamma(2, 3, rows),
        "arrival": shipped,
        "late": days > 0,
    }
    return planted(columns, "late", "arrival", "time between")


@leaky
def winner_by_goals(chance: Chance) -> Planted:
    rows = 1_000
    home, away = chance.poisson(1.6, rows), chance.poisson(1.2, rows)
    y = np.where(home > away, "home", np.where(home < away, "away", "draw"))
    columns = {
        "rank": chance.integers(1, 20, rows),
        "home_goals": home,
        "away_goals": away,
        "result": y,
    }
    return planted(columns, "result", "home_goals away_goals", "greater")


@leaky
def label_inside_the_text(chance: Chance) -> Planted:
    rows = 700
    y = chance.choice(["sport", "politics", "science"], rows)
    words = chance.choice(["the", "win", "vote", "cell", "today", "new"], (rows, 9))
    columns = {
        "text": [f"[{c}] {' '.join(w)}" for c, w in zip(y, words, strict=True)],
        "length": chance.poisson(50, rows),
        "topic": y,
    }
    return planted(columns, "topic", "text", "word")


# Leaks: numbers.


@leaky
def casual_and_registered(chance: Chance) -> Planted:
    rows = 730
    heat = chance.normal(15, 8, rows)
    casual = chance.poisson(np.exp(4 + heat / 30))
    registered = chance.poisson(np.exp(6 + heat / 60))
    columns = {
        "heat": heat.round(1),
        "wind": chance.gamma(2, 4, rows).round(1),
        "casual": casual,
        "registered": registered,
        "total": casual + registered,
    }
    return planted(columns, "total", "casual registered", "casual + registered")


@leaky
def duration_of_a_trip(chance: Chance) -> Planted:
    rows = 2_000
    start = dates(chance, rows)
    minutes = chance.gamma(2, 9, rows).round() + 1
    end = start + (minutes * 60e6).astype("timedelta64[us]")
    columns = {
        "pickup": start,
        "dropoff": end,
        "miles": (minutes / 4 + chance.gamma(2, 1, rows)).round(2),
        "minutes": minutes,
    }
    return planted(columns, "minutes", "dropoff", "time between")


@leaky
def scaled_and_rounded(chance: Chance) -> Planted:
    columns, score = person(chance, 450)
    y = (score * 1_000 + 9_000).round(2)
    return planted(
        {**columns, "usd": (y * 1.0837).round(0), "eur": y}, "eur", "usd", "scale"
    )


@leaky
def logarithm(chance: Chance) -> Planted:
    columns, score = person(chance, 350)
    y = np.exp(score + 9).round(0)
    return planted(
        {**columns, "level": holes(chance, np.log(y), 0.1), "price": y},
        "price",
        "level",
        "order",
    )


@leaky
def bins_of_the_number(chance: Chance) -> Planted:
    columns, score = person(chance, 1_000)
    y = (score * 20 + 200).round(1)
    band = np.array(["low", "middle", "high", "top"])[np.digitize(y, [185, 200, 220])]
    return planted({**columns, "band": band, "value": y}, "value", "band", "ranges")


@leaky
def ratio_of_two(chance: Chance) -> Planted:
    rows = 600
    profit, sales = (
        chance.normal(20, 30, rows).round(2),
        chance.gamma(3, 90, rows).round(2) + 10,
    )
    columns = {
        "staff": chance.poisson(9, rows),
        "profit": profit,
        "sales": sales,
        "margin": (100 * profit / sales).round(2),
    }
    return planted(columns, "margin", "profit sales", "profit / sales")


@leaky
def product_with_missing_values(chance: Chance) -> Planted:
    rows = 1_200
    count, price = chance.integers(1, 30, rows), chance.gamma(2, 9, rows).round(2)
    columns = {
        "shop": chance.choice(["a", "b", "c"], rows),
        "count": holes(chance, count, 0.1),
        "unit": price,
        "amount": (count * price).round(2),
    }
    return planted(columns, "amount", "count unit", "count × unit")


@leaky
def sum_of_three(chance: Chance) -> Planted:
    rows = 500
    parts = chance.gamma(2, 40, (3, rows)).round(2)
    columns = {
        "people": chance.poisson(3, rows),
        "rent": parts[0],
        "food": parts[1],
        "other": parts[2],
        "spent": parts.sum(axis=0).round(2),
    }
    return planted(columns, "spent", "rent food other", "rent")


@leaky
def paid_afterwards(chance: Chance) -> Planted:
    columns, score = person(chance, 1_500)
    claim = np.exp(score / 2 + 7).round(2)
    paid = (claim * (1 - np.clip(chance.normal(0.03, 0.02, 1_500), 0, 0.2))).round(2)
    return planted(
        {**columns, "paid_amount": paid, "claim": claim}, "claim", "paid_amount", "name"
    )


# Clean: nothing to be left out.


def _signals(
    chance: Chance, rows: int, columns: int, weight: float = 1.0
) -> tuple[Columns, np.ndarray]:
    x = chance.normal(size=(columns, rows))
    score = weight * (x[0] + 0.6 * x[1] - 0.4 * x[2]) + chance.normal(size=rows)
    return {f"x{i}": x[i].round(4) for i in range(columns)}, score


@clean
def honest_numbers(chance: Chance) -> Clean:
    columns, score = _signals(chance, 500, 6)
    return Clean({**columns, "y": score > 0}, "y")


@clean
def very_strong_signals(chance: Chance) -> Clean:
    columns, score = _signals(chance, 3_000, 5, weight=12.0)
    return Clean({**columns, "y": np.where(score > 0, "up", "down")}, "y")


@clean
def sensor_of_auc_995(chance: Chance) -> Clean:
    y = chance.random(2_000) < 0.5
    return Clean(
        {
            "sensor": chance.normal(size=2_000) + 3.64 * y,
            "noise": chance.normal(size=2_000),
            "y": y,
        },
        "y",
    )


@clean
def sensor_with_few_positives(chance: Chance) -> Clean:
    y = chance.random(4_000) < 0.01
    return Clean(
        {
            "sensor": chance.normal(size=4_000) + 3.3 * y,
            "noise": chance.normal(size=4_000),
            "y": y,
        },
        "y",
    )


@clean
def thousand_columns_of_noise(chance: Chance) -> Clean:
    columns: Columns = {f"n{i}": chance.normal(size=200) for i in range(900)}
    columns |= {f"c{i}": chance.choice(list("abcde"), 200) for i in range(50)}
    columns |= {f"b{i}": chance.integers(0, 2, 200) for i in range(50)}
    return Clean({**columns, "y": chance.random(200) < 0.06}, "y")


@clean
def noise_and_a_number(chance: Chance) -> Clean:
    columns: Columns = {f"n{i}": chance.normal(size=150).round(2) for i in range(400)}
    return Clean({**columns, "y": chance.normal(size=150)}, "y")


@clean
def exclusive_or(chance: Chance) -> Clean:
    a, b = chance.integers(0, 2, 800), chance.integers(0, 2, 800)
    return Clean({"a": a, "b": b, "c": chance.normal(size=800), "y": a ^ b}, "y")


@clean
def exclusive_or_of_signs(chance: Chance) -> Clean:
    a, b = chance.normal(size=(2, 1_000))
    return Clean({"a": a, "b": b, "y": (a > 0) != (b > 0)}, "y")


@clean
def groups_with_one_class_each(chance: Chance) -> Clean:
    who = chance.integers(0, 40, 1_200)
    ill = chance.random(40) < 0.5
    height = chance.normal(172, 9, 40).round(1)
    columns = {
        "patient": [f"p{w:03d}" for w in who],
        "height": height[who],
        "born": chance.integers(1930, 2005, 40)[who],
        "pulse": chance.normal(70, 9, 1_200) + 5 * ill[who],
        "ill": ill[who],
    }
    return Clean(columns, "ill", frozenset({"patient"}))


@clean
def ten_copies_of_each_row(chance: Chance) -> Clean:
    columns, score = _signals(chance, 90, 5)
    return Clean(
        {k: np.repeat(v, 10) for k, v in {**columns, "y": score > 0}.items()}, "y"
    )


@clean
def sorted_by_a_strong_column(chance: Chance) -> Clean:
    columns, score = _signals(chance, 900, 4, weight=3.0)
    order = np.argsort(columns["x0"])
    return Clean(
        {k: np.asarray(v)[order] for k, v in {**columns, "y": score > 0}.items()}, "y"
    )


@clean
def sorted_by_class_without_a_counter(chance: Chance) -> Clean:
    columns, score = _signals(chance, 900, 4)
    order = np.argsort(score > 0, kind="stable")
    return Clean(
        {k: np.asarray(v)[order] for k, v in {**columns, "y": score > 0}.items()}, "y"
    )


@clean
def texts_with_telling_words(chance: Chance) -> Clean:
    y = chance.choice(["sport", "politics"], 900)
    words = {"sport": ["match", "goal", "team"], "politics": ["vote", "law", "party"]}
    plain = ["the", "of", "a", "today", "they", "said", "again"]
    text = [
        " ".join(
            [
                *chance.choice(plain, 6),
                *chance.choice(words[c] if chance.random() < 0.7 else plain, 2),
            ]
        )
        for c in y
    ]
    return Clean({"text": text, "length": chance.poisson(40, 900), "topic": y}, "topic")


@clean
def dates_and_a_season(chance: Chance) -> Clean:
    when = dates(chance, 1_500)
    season = np.sin(
        (when - np.datetime64("2023-01-01")) / np.timedelta64(365, "D") * 2 * np.pi
    )
    return Clean(
        {
            "when": when,
            "shop": chance.choice(["a", "b"], 1_500),
            "sold": (20 + 9 * season + chance.normal(0, 2, 1_500)).round(1),
        },
        "sold",
    )


@clean
def two_dates_that_say_little(chance: Chance) -> Clean:
    start = dates(chance, 900)
    planned = start + (chance.gamma(2, 10, 900) * 86_400e6).astype("timedelta64[us]")
    columns, score = _signals(chance, 900, 3)
    return Clean(
        {"ordered_at": start, "planned_at": planned, **columns, "y": score > 0}, "y"
    )


@clean
def imbalanced_and_categorical(chance: Chance) -> Clean:
    y = chance.random(3_000) < 0.02
    kind = np.where(
        y & (chance.random(3_000) < 0.7),
        "risky",
        chance.choice(["a", "b", "c", "risky"], 3_000, p=[0.5, 0.3, 0.15, 0.05]),
    )
    return Clean({"kind": kind, "size": chance.gamma(2, 3, 3_000), "y": y}, "y")


@clean
def three_flowers(chance: Chance) -> Clean:
    k = np.repeat([0, 1, 2], 50)
    petal = chance.normal(
        np.array([1.46, 4.26, 5.55])[k], np.array([0.17, 0.47, 0.55])[k]
    ).round(1)
    width = chance.normal(
        np.array([0.25, 1.33, 2.03])[k], np.array([0.11, 0.2, 0.27])[k]
    ).round(1)
    sepal = chance.normal(np.array([5.0, 5.94, 6.59])[k], 0.5).round(1)
    return Clean(
        {
            "sepal": sepal,
            "petal": petal,
            "width": width,
            "species": np.array(["setosa", "versicolor", "virginica"])[k],
        },
        "species",
    )


@clean
def animals_with_feathers(chance: Chance) -> Clean:
    y = chance.choice(["mammal", "bird", "fish", "insect", "reptile"], 400)
    columns = {
        "feathers": (y == "bird").astype(int),
        "milk": (y == "mammal").astype(int),
        "legs": np.where(
            y == "insect", 6, np.where(y == "bird", 2, chance.choice([0, 4], 400))
        ),
        "eggs": ((y != "mammal") | (chance.random(400) < 0.02)).astype(int),
        "type": y,
    }
    return Clean(columns, "type")


@clean
def price_by_area(chance: Chance) -> Clean:
    area = chance.gamma(6, 15, 1_000).round(0)
    rate = chance.normal(3_000, 60, 1_000)
    return Clean(
        {
            "area": area,
            "rooms": (area / 25).round() + chance.integers(0, 2, 1_000),
            "price": (area * rate).round(0),
        },
        "price",
    )


@clean
def open_and_close(chance: Chance) -> Clean:
    close = 100 + np.cumsum(chance.normal(0, 1, 1_500))
    begin = close + chance.normal(0, 0.8, 1_500)
    columns = {
        "open": begin.round(2),
        "high": (np.maximum(begin, close) + chance.gamma(1, 0.6, 1_500)).round(2),
        "low": (np.minimum(begin, close) - chance.gamma(1, 0.6, 1_500)).round(2),
        "close": close.round(2),
    }
    return Clean(columns, "close")


@clean
def yesterdays_value(chance: Chance) -> Clean:
    y = 20 + 8 * np.sin(np.arange(2_001) / 60) + np.cumsum(chance.normal(0, 0.05, 2_001))
    return Clean(
        {
            "temp_prev": y[:-1].round(2),
            "wind": chance.gamma(2, 2, 2_000).round(1),
            "temp": y[1:].round(2),
        },
        "temp",
    )


@clean
def missing_at_random(chance: Chance) -> Clean:
    columns, score = _signals(chance, 700, 5)
    return Clean(
        {**{k: holes(chance, v, 0.3) for k, v in columns.items()}, "y": score > 0}, "y"
    )


@clean
def missing_that_says_something(chance: Chance) -> Clean:
    columns, score = _signals(chance, 1_000, 3)
    gone = chance.random(1_000) < np.where(score > 0, 0.6, 0.2)
    columns["lab"] = [
        None if g else float(v)
        for g, v in zip(gone, chance.normal(size=1_000), strict=True)
    ]
    return Clean({**columns, "y": np.where(score > 0, "ill", "well")}, "y")


@clean
def earlier_outcomes(chance: Chance) -> Clean:
    columns, score = _signals(chance, 2_000, 3)
    before = np.where(score + chance.normal(0, 1, 2_000) > 0.5, "success", "failure")
    return Clean(
        {
            **columns,
            "poutcome": before,
            "last_result": before[::-1],
            "payment_history": chance.normal(size=2_000) + score,
            "y": score > 0,
        },
        "y",
    )


@clean
def scores_that_are_inputs(chance: Chance) -> Clean:
    columns, score = person(chance, 1_500)
    return Clean(
        {
            **columns,
            "credit_score": (600 + 60 * score + chance.normal(0, 60, 1_500)).round(),
            "default": score < -1,
        },
        "default",
    )


@clean
def many_classes(chance: Chance) -> Clean:
    k = chance.integers(0, 20, 2_000)
    centre = chance.normal(0, 2, (4, 20))
    columns = {f"f{i}": centre[i, k] + chance.normal(0, 0.8, 2_000) for i in range(4)}
    return Clean({**columns, "y": [f"class {v}" for v in k]}, "y")


@clean
def rare_classes(chance: Chance) -> Clean:
    k = np.r_[np.zeros(480, int), np.ones(12, int), np.full(8, 2)]
    return Clean(
        {
            "x": chance.normal(size=500) + 2.2 * k,
            "kind": chance.choice(list("abcdefgh"), 500),
            "y": np.array(["common", "rare", "odd"])[k],
        },
        "y",
    )


@clean
def small_table(chance: Chance) -> Clean:
    columns, score = _signals(chance, 60, 8)
    return Clean({**columns, "y": score > 0}, "y")


@clean
def towns_that_recur(chance: Chance) -> Clean:
    town = chance.integers(0, 300, 1_000)
    rich = chance.random(300)
    return Clean(
        {
            "town": [f"town {t}" for t in town],
            "size": chance.gamma(2, 40, 1_000).round(),
            "y": chance.random(1_000) < rich[town],
        },
        "y",
        frozenset({"town"}),
    )


@clean
def parts_of_more_than_the_target(chance: Chance) -> Clean:
    parts = chance.gamma(2, 30, (3, 800)).round(1)
    return Clean(
        {
            "a": parts[0],
            "b": parts[1],
            "c": parts[2],
            "total": (parts.sum(axis=0) + chance.normal(0, 4, 800)).round(1),
        },
        "total",
    )
