"""Small slips in a stranger's table: a third value, a name too many or too few, lengths in two units."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import SourceError
from penstock.evaluate.compare import _deciding
from penstock.evaluate.judge import _leads
from penstock.inspect.columns import judge
from penstock.inspect.raw_column import Look
from penstock.recipe.schema import load_recipe


def table(path: Path, header: str, count: int, row: Callable[[int], str]) -> None:
    path.write_text("\n".join([header, *map(row, range(count))]) + "\n")


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("a,b,label", lambda i: f"r{i % 7},{i},{i * 3 % 5},{i % 2}", 4),
        ("a,b,label", lambda i: f"{i},{i % 2}", 2),
    ],
)
def test_one_name_too_few_or_too_many_is_refused_with_words_that_work(
    header: str,
    row: Callable[[int], str],
    columns: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "x.csv", header, 60, row)
    with pytest.raises(SourceError, match="--set") as caught:
        penstock.init("x.csv")
    words = re.search(r"--set .*", str(caught.value))
    assert words is not None
    assert main(["init", "x.csv", *shlex.split(words[0]), "-o", "r.yaml"]) == 0
    dataset = penstock.prepare("r.yaml", store=tmp_path / "store")
    assert dataset.counts["in"] == 60 and dataset.counts["quarantined"] == 0
    assert len(dataset.schema.names) == columns + 1, "the columns and the row's id"


def test_a_third_value_goes_to_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    table(
        path,
        "a,flag,label",
        400,
        lambda i: (
            f"{i % 9},{'?!' if i == 3 else 'xy'[i % 2]},"
            + ("maybe" if i in (5, 77) else ("yes", "no")[i % 2])
        ),
    )
    recipe = {
        "source": str(path),
        "inputs": {"a": "number", "flag": "binary"},
        "targets": {"label": "binary"},
    }
    feed = penstock.encode(recipe, store=tmp_path / "store", quiet=True)
    assert sum(feed.reasons.values()) == 3
    assert any("'maybe' is neither" in reason for reason in feed.reasons), feed.reasons
    assert any("'?!' is neither" in reason for reason in feed.reasons), feed.reasons


def test_the_metric_that_training_watches_decides() -> None:
    recipe = load_recipe(
        {
            "source": "x.csv",
            "inputs": {"a": "number"},
            "targets": {"ill": "binary", "old": "binary"},
            "train": {"early_stop": {"metric": "ill.average_precision"}},
        }
    )
    assert _leads(recipe) == {"ill": "average_precision"}
    figures = {"roc_auc": 0.9, "average_precision": 0.3, "log_loss": 0.2}
    judged = SimpleNamespace(kinds={"ill": "binary"}, metrics=lambda: {"ill": figures})
    decide = partial(_deciding, judged, "ill")  # type: ignore[arg-type]
    assert decide("average_precision")[0] == ("average_precision", "log_loss")
    assert decide(None)[0] == ("roc_auc", "log_loss")
    figures["average_precision"] = None  # type: ignore[assignment]
    assert decide("average_precision")[0] == ("roc_auc", "log_loss")


def test_units_that_cannot_be_compared_are_said_aloud() -> None:
    mixed = judge(Look("height", pa.array(["5 ft", "1.50 m", "6 ft", "1.82 m"] * 20)))
    assert mixed.type is None and mixed.loud
    assert "cannot be compared" in mixed.why
    one = judge(Look("height", pa.array(["5 ft", "6 ft", "7 ft", "4.5 ft"] * 20)))
    assert one.type == "number"
    codes = judge(Look("room", pa.array(["1 A", "2 B", "3 C", "4 A"] * 20)))
    assert "cannot be compared" not in codes.why
