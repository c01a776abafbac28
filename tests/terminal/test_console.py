from __future__ import annotations

from penstock.terminal.console import _measured


def test_figures_of_progress_are_measured_in_their_units() -> None:
    told = [
        _measured(word, value)
        for word, value in {
            "loss": 0.51234,
            "examples_per_second": 81_234.5,
            "model": 0.713,
            "waiting": 0.034,
        }.items()
    ]
    assert told == [
        "loss 0.5123",
        "81,234 examples/s",
        "computing 71%",
        "waiting for data 3%",
    ]
