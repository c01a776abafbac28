"""The classical models that a specialist would set, kind by kind, and what the report says of them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.events import Events
from penstock.evaluate import boosting, evaluate, forecasters, report_markdown
from penstock.evaluate import classical as classical_module
from penstock.evaluate.budget import fit_within
from penstock.evaluate.forecast import naive_forecast
from penstock.evaluate.in_short import in_short
from penstock.evaluate.items import Places
from penstock.evaluate.target_means import TargetMeans
from penstock.evaluate.training import ReadRows
from penstock.recipe.evaluate import Evaluate
from tests.evaluate.judged import Model, Rows, fitted, ids, recipe


def splits(table):
    """Training, validation and test rows of a maker of tables."""
    return table(600, "a"), table(200, "v"), table(200, "b")


def judged(inputs, targets, answer, tables, **words):
    """The report of a model, beside the classical ones."""
    train, valid, test = tables
    return evaluate(
        Model(fitted(inputs, targets, train), answer),
        Rows(train=train, validation=valid, test=test),
        recipe(**{"bootstrap": 0, **words}),
        Events(),
    )


def test_places_in_a_sequence_are_seen():
    """Letters of a made alphabet: two neighbouring places decide among three classes."""
    chance = np.random.default_rng(5)

    def table(rows, salt):
        letters = chance.integers(0, 4, (rows, 12))
        kind = (letters[:, 5] + letters[:, 6]) % 3
        dna = ["".join("ACGT"[i] for i in row) for row in letters]
        # Sorted by class: whoever takes the first rows sees one class.
        order = np.argsort(kind)
        return pa.table(
            {"row_id": ids(rows, salt), "dna": dna, "y": [f"k{i}" for i in kind]}
        ).take(pa.array(order))

    tables = splits(table)
    blind = lambda rows: {"y.probabilities": np.full((len(rows), 3), 1 / 3)}  # noqa: E731
    dna = {"dna": {"type": "sequence", "unit": "characters"}}
    result = judged(dna, {"y": "category"}, blind, tables)
    assert result["classical"]["metrics"]["y"]["accuracy"] >= 0.99
    # A text without white space is read by its letters, too.
    small = tuple(each.take(pa.array(np.arange(0, len(each), 2))) for each in tables)
    result = judged({"dna": "text"}, {"y": "category"}, blind, small)
    assert result["classical"]["metrics"]["y"]["accuracy"] >= 0.99
    assert "misses a signal" in result["verdict"]
    report = report_markdown(result)
    assert "In short, for y: do not use it: a quick classical model finds" in report
    assert "| 300 of 300 |" in report and "60 s of a core altogether" in report
    assert "accuracy, validation" in report


def test_pictures_are_compared_by_simple_features():
    pillow = pytest.importorskip("PIL.Image")
    chance = np.random.default_rng(0)

    def table(rows, salt):
        kind = chance.integers(0, 2, rows)
        content = []
        for each in kind:
            pixels = chance.integers(0, 60, (12, 12, 3)).astype(np.uint8)
            # A bright bar, lying or standing, anywhere.
            at = chance.integers(0, 10)
            bar = (
                (slice(at, at + 2), slice(None))
                if each
                else (slice(None), slice(at, at + 2))
            )
            pixels[bar] = 250
            file = io.BytesIO()
            pillow.fromarray(pixels).save(file, "PNG")
            content.append(file.getvalue())
        return pa.table(
            {
                "row_id": ids(rows, salt),
                "photo": pa.array(content, pa.binary()),
                "size": kind * 2.0 + 0.1 * chance.normal(size=rows),
                "kind": ["flat" if each else "tall" for each in kind],
            }
        )

    result = judged(
        {"photo": {"type": "image", "size": 12}},
        {"kind": {"type": "binary", "positive": "flat"}, "size": "number"},
        lambda rows: {
            "kind.probability": np.full(len(rows), 0.5),
            "size.value": np.ones(len(rows)),
        },
        tuple(table(rows, salt) for rows, salt in ((200, "a"), (60, "v"), (60, "b"))),
    )
    metrics = result["classical"]["metrics"]
    assert metrics["kind"]["roc_auc"] > 0.95 and metrics["size"]["r2"] > 0.7
    assert len(result["classical"]["tried"]["kind"]) == 2


def test_many_values_are_told_by_the_target_of_other_folds():
    chance = np.random.default_rng(0)
    code = chance.integers(0, 300, 3_000)
    names = pa.array([f"n{i}" for i in code])
    pure = ReadRows({"c": names})
    means = TargetMeans(["c"], "number", seed=1)
    noise = chance.normal(size=3_000)
    # Of noise a row's own target must not be told: nothing is left to learn from.
    of_noise = means.fit(pure, noise)[:, 0]
    assert abs(np.corrcoef(of_noise, noise)[0, 1]) < 0.1
    signal = chance.normal(size=300)[code]
    of_signal = TargetMeans(["c"], "number", seed=1).fit(pure, signal)[:, 0]
    assert np.corrcoef(of_signal, signal)[0, 1] > 0.9
    fresh = means.transform(ReadRows({"c": pa.array(["n1", "new", None])}))
    assert fresh.shape == (3, 2) and np.isfinite(fresh).all() and fresh[1, 1] == 0


def test_items_are_placed_from_both_ends():
    places = Places(pa.array([list("abc"), list("ab"), [], None, list("cabcab")]))
    codes, lengths = places.codes(pa.array([list("abx"), None]))
    assert lengths.tolist() == [3, 0] and codes[0, 2] == 0 and (codes[1] == -1).all()
    at = places.at_places(codes, lengths)
    assert at.shape == (2, places.places) and at[0, places.ends] == 0  # x, from the end
    # a, b, and ab; no run with an item that was never seen is known.
    counts = places.counts(codes)
    assert counts[0].sum() == 3 and not counts[1].any()


def test_forecasts_are_in_closed_form_and_the_best_is_reported():
    chance = np.random.default_rng(2)

    def table(rows, salt):
        start = chance.integers(0, 24, rows)[:, None] + np.arange(36)
        wave = np.sin(start * np.pi / 6) + chance.normal(size=(rows, 1)) * 3
        wave += 0.05 * chance.normal(size=wave.shape)
        return pa.table(
            {
                "row_id": ids(rows, salt),
                "past": wave[:, :30].tolist(),
                "next": wave[:, 30:].tolist(),
            }
        )

    tables = splits(table)
    inputs = {"past": {"type": "series", "window": 30, "variables": ["v"]}}
    targets = {"next": {"type": "series", "horizon": 6, "season": 12, "variables": ["v"]}}
    result = judged(
        inputs, targets, lambda rows: {"next.values": np.zeros((len(rows), 6, 1))}, tables
    )
    tried = {one["model"]: one for one in result["classical"]["tried"]["next"]}
    assert set(tried) == {forecasters.RIDGE, forecasters.SEASONAL, forecasters.SMOOTHING}
    assert tried[forecasters.RIDGE]["chosen"] and tried[forecasters.RIDGE]["rows"] == 600
    # A wave with noise of 0.05: nobody can do much better.
    assert result["classical"]["metrics"]["next"]["mse"] < 0.004
    assert all(one["judged"] is not None for one in tried.values())
    # The error that its sums tell is that of its answers.
    encoding = fitted(inputs, targets, tables[0])
    naive = naive_forecast(encoding, "next")
    ridge = forecasters.fit_ridge(
        encoding, Rows(train=tables[0], validation=tables[1]), "next", naive, seconds=9
    )
    column, _ = encoding.inputs["past"].accept([tables[1]["past"].combine_chunks()])
    error = ridge.answers({"past": column})["values"][:, :, 0] - np.array(
        tables[1]["next"].to_pylist()
    )
    assert np.mean((error / ridge.std) ** 2) == pytest.approx(ridge.validated, rel=1e-6)


def test_as_many_rows_as_fit_the_time():
    rows = ReadRows({"x": pa.array(np.arange(40_000.0))})
    sizes = []

    def fit(some):
        sizes.append(len(some))
        return len(some)

    assert (
        fit_within(fit, rows, seconds=1e9, cost=1) == (40_000, 40_000) and len(sizes) == 1
    )
    # A trial first; there is no time for more.
    assert fit_within(fit, rows, seconds=0, cost=1_000) == (2_000, 2_000)
    assert fit_within(fit, rows, seconds=1e9, cost=1_000) == (40_000, 40_000)
    assert Evaluate(baseline_budget="5min").baseline_budget == 300
    assert "baseline_budget" not in Evaluate().model_dump()


def test_what_was_not_learnt_is_not_beaten(monkeypatch):
    """A model without an input that varies, and one that is worse than the trivial answer."""
    chance = np.random.default_rng(0)

    def table(rows, salt):
        y = chance.normal(size=rows)
        return pa.table({"row_id": ids(rows, salt), "x": np.ones(rows), "y": y})

    tables = splits(table)
    truth = tables[2]["y"].to_numpy()
    result = judged(
        {"x": "number"}, {"y": "number"}, lambda rows: {"y.value": truth}, tables
    )
    assert "y" not in result["classical"]["metrics"]
    assert (
        "not compared with" in result["verdict"] and "no input tells" in result["verdict"]
    )
    noisy = lambda rows: {"value": 5 * chance.normal(size=len(rows))}  # noqa: E731
    monkeypatch.setattr(
        boosting,
        "fit_boosting",
        lambda *args, **words: type("M", (), {"answers": staticmethod(noisy)}),
    )
    monkeypatch.setattr(classical_module, "fit_linear", lambda *args, **words: "left out")
    result = judged(
        {"x": "number"}, {"y": "number"}, lambda rows: {"y.value": truth}, tables
    )
    assert "That model is itself no better than the trivial answer" in result["verdict"]
    assert in_short(result["verdict"], {}) == (
        "In short, for y: it is of use, and better than a quick classical model."
    )
