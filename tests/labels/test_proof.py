"""A fifth of the labels of real data changed: what is found, against cleanlab's whole path."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.label_errors import measure


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("adult", marks=pytest.mark.slow),
        pytest.param("goemotions", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_half_of_the_wrong_labels_are_in_the_first_rows(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    figures = measure(name, shared_data, tmp_path)
    assert figures["precision at recall 0.5, by self_confidence"] > 0.7
    # Where it is installed.
    if "cleanlab precision" in figures:
        for word in ("precision", "recall"):
            assert figures[word] == pytest.approx(figures[f"cleanlab {word}"], abs=0.01)
