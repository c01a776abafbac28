"""Measures of forecasts: by hand, in pieces, with holes, in blocks; and the naive forecasts they are held
against.
"""

from __future__ import annotations

import numpy as np
import pytest

from penstock.contracts.learn import Decoder
from penstock.core.errors import PenstockError
from penstock.metrics import Forecasting, Measures, better, intervals, measure, names_for
from penstock.testing.laws import decoders
from penstock.testing.laws._learning import forecast

SCALE = Forecasting((2.0, 0.5), (1.0, None), (), 1)


def made(rows: int = 40, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    chance = np.random.default_rng(seed)
    truth = chance.normal(size=(rows, 3, 2))
    return truth, {"values": truth + chance.normal(size=truth.shape) / 3}


def test_by_hand() -> None:
    truth, answers = (
        np.array([[[1.0, 4.0], [2.0, np.nan]]]),
        {"values": np.array([[[2.0, 3.0], [2.0, 9.0]]])},
    )
    found = measure(names_for("series"), truth, answers, scale=SCALE)
    assert found["mse"] == pytest.approx(2 / 3) and found["mae"] == pytest.approx(2 / 3)
    assert (
        found["mse_standardised"] == pytest.approx((0.25 + 4) / 3)
        and found["mae_standardised"] == pytest.approx((0.5 + 2) / 3) == found["pinball"]
    )
    # the second variable never moved
    assert found["smape"] == pytest.approx((2 / 3 + 2 / 7) / 3) and found[
        "mase"
    ] == pytest.approx(0.5)
    assert all(better(name) == "lower" for name in found)


def test_smape_ends_at_two_and_so_does_its_interval() -> None:
    truth, answers = np.ones((40, 3, 2)), {"values": -np.ones((40, 3, 2))}
    assert measure(["smape"], truth, answers, scale=SCALE)["smape"] == 2
    # Nearly all answers as wrong as can be: an interval around it would reach beyond.
    truth[0], answers["values"][0] = 2.0, 2.0
    low, high = intervals(["smape"], truth, answers, scale=SCALE)["smape"]
    assert 1.5 < low < high <= 2


def test_quantiles() -> None:
    truth, values = np.array([[[1.0, 1.0]]]), np.zeros((1, 1, 2))
    quantiles = np.stack([values - 1, values, values + 3], axis=-1)
    scale = Forecasting((1.0, 1.0), (), (0.1, 0.5, 0.9))
    assert measure(
        ["pinball"], truth, {"values": values, "quantiles": quantiles}, scale=scale
    )["pinball"] == pytest.approx(2 * (0.1 * 2 + 0.5 * 1 + 0.1 * 2) / 3)
    assert measure(["pinball"], truth, {"values": values}, scale=scale)[
        "pinball"
    ] == pytest.approx(2 * (0.1 + 0.5 + 0.9) / 3)
    assert measure(["mase"], truth, {"values": values}, scale=scale)["mase"] is None


def test_a_row_without_the_variable_that_moves_says_nothing() -> None:
    truth = np.array([[[np.nan, 1.0]], [[2.0, 1.0]]])
    scale = Forecasting((1.0, 1.0), naive=(1.0, 0.0))
    answers = {"values": np.ones((2, 1, 2))}
    assert measure(["mase"], truth, answers, scale=scale)["mase"] == 1


def test_halves_merged_equal_the_whole_and_unseen_rows_are_left_out() -> None:
    truth, answers = made()
    truth[3] = np.nan
    whole = Measures(names_for("series"), scale=SCALE)
    whole.update(truth, answers)
    first, second = (
        Measures(names_for("series"), scale=SCALE),
        Measures(names_for("series"), scale=SCALE),
    )
    first.update(truth[:11], {"values": answers["values"][:11]})
    second.update(truth[11:], {"values": answers["values"][11:]})
    first.merge(second)
    assert first.result() == whole.result()
    keep = np.arange(40) != 3
    assert (
        measure(["mse"], truth[keep], {"values": answers["values"][keep]}, scale=SCALE)[
            "mse"
        ]
        == whole.result()["mse"]
    )
    weights = keep.astype(float)
    assert measure(["mse"], np.nan_to_num(truth), answers, weights, scale=SCALE)[
        "mse"
    ] == pytest.approx(whole.result()["mse"])


def test_an_answer_that_is_not_finite_breaks_all() -> None:
    truth, answers = made()
    answers["values"][2, 1, 0] = np.inf
    assert set(measure(names_for("series"), truth, answers, scale=SCALE).values()) == {
        None
    }
    with pytest.raises(PenstockError, match="rows, steps, variables"):
        measure(["mse"], truth[:, :2], answers)


def test_overlapping_windows_have_wider_intervals() -> None:
    truth, answers = made(400)
    wide = np.cumsum(answers["values"] - truth, axis=0) / 20  # neighbours err alike
    alike = {"values": truth + wide}
    low, high = intervals(["mae"], truth, alike, scale=Forecasting((1.0, 1.0)))["mae"]
    low_block, high_block = intervals(
        ["mae"], truth, alike, scale=Forecasting((1.0, 1.0), block=20)
    )["mae"]
    assert high_block - low_block > 1.5 * (high - low)


def test_a_forecast_of_quantiles_by_the_laws_of_decoders() -> None:
    decoders.check(Decoder.load("series"), forecast(quantiles=[0.1, 0.5, 0.9]))
    assert "leave `loss: mae` out" in str(
        Decoder.load({"type": "series", "loss": "mae"}).reads(forecast(quantiles=[0.5]))
    )
