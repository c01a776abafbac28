from __future__ import annotations

from penstock.terminal.console import _told


def test_figures_of_progress_are_told_in_their_units() -> None:
    told = [
        _told(word, value)
        for word, value in {
            "loss": 0.51234,
            "examples_per_second": 81_234.5,
            "model": 0.713,
            "waiting": 0.034,
        }.items()
    ]
    assert told == ["loss 0.5123", "81,234 ex/s", "model 71%", "waiting for data 3%"]
