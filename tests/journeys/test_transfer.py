"""An encoder learnt on many rows, taken over for a task with few: the tokens mean the same, the weights start
where they ended.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from penstock.core.errors import RecipeError, StoreError, UserError
from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.nn.weights import read_tensors
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import load_recipe

GOOD, BAD = ["fine", "lovely", "great", "warm"], ["poor", "dull", "bad", "cold"]
TEXT: dict[str, Any] = {"type": "text", "min_count": 1}


def lake(folder: Path, rows: int, seed: int) -> Path:
    chance = random.Random(seed)
    labels = [chance.choice([0, 1]) for _ in range(rows)]
    texts = [
        " ".join(
            [
                chance.choice(["the", "a", "this", "one"]),
                chance.choice((BAD, GOOD)[label]),
                chance.choice(["room", "stay", "bed"]),
            ]
        )
        for label in labels
    ]
    path = folder / f"lake{seed}.parquet"
    pq.write_table(
        pa.table(
            {
                "review": texts,
                "liked": ["yes" if label else "no" for label in labels],
                "stars": [chance.choice([4, 5] if label else [1, 2]) for label in labels],
                "city": [chance.choice(["Oslo", "Bergen"]) for _ in labels],
                "town": [chance.choice(["Ås", "Ski"]) for _ in labels],
            }
        ),
        path,
    )
    return path


def run(
    folder: Path,
    data: Path,
    until: str = "pack",
    heard: list[Event] | None = None,
    **words: Any,
) -> Outcome:
    declared: dict[str, Any] = {
        "name": "reviews",
        "seed": 1,
        "source": {"type": "files", "path": str(data)},
        "inputs": {"review": TEXT, "city": "category"},
        "targets": {"liked": "binary"},
        "model": {
            "encoders": {"review": {"type": "bag", "width": 16}},
            "combiner": {"type": "mlp", "width": 16},
        },
        "trackers": [],
        "train": {"epochs": 4, "batch_size": 32, "lr": 0.01, "early_stop": None},
        "launcher": {"type": "local", "processes": 1, "threads": 1},
        **words,
    }
    events = Events(*([heard.append] if heard is not None else []))
    return Pipeline(
        load_recipe(declared, base=folder), Store(folder / "store"), events
    ).until(until)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and the bundle that was made there."""
    folder = tmp_path_factory.mktemp("transfer")
    torch.set_num_threads(1)
    bundle = run(folder, lake(folder, 400, 0)).bundle
    assert bundle is not None
    return folder, bundle.reference


def test_tokens_and_weights_are_taken_over_and_stay_frozen(
    earlier: tuple[Path, str],
) -> None:
    folder, bundle = earlier
    heard: list[Event] = []
    train = {
        "epochs": 8,
        "batch_size": 16,
        "lr": 0.01,
        "early_stop": None,
        "from": {"weights": bundle, "only": "review"},
        "freeze": "review",
    }
    made = run(
        folder,
        lake(folder, 80, 1),
        heard=heard,
        inputs={"review": {**TEXT, "fitted_from": bundle}, "city": "category"},
        targets={"stars": "category"},
        train=train,
    )
    assert made.feed is not None and made.run is not None and made.bundle is not None
    said = [event.fields["text"] for event in heard if event.name == "said"]
    assert any(
        f"review is taken over from {bundle} as it was fitted there" in text
        for text in said
    )
    assert any(f"tensors of review start from {bundle}" in text for text in said)

    store = Store(folder / "store")
    theirs = read_tensors(
        store.open(f"bundles/{bundle.removeprefix('bundle-')}").path
        / "weights.safetensors"
    )
    ours = read_tensors(made.run.weights)
    words = [name for name in ours if name.startswith("encoders.:bag:review.")]
    assert words and all(torch.equal(ours[name], theirs[name]) for name in words)
    assert not torch.equal(
        ours["combiner.layers.0.weight"], theirs["combiner.layers.0.weight"]
    )
    # The bundle stands alone: what it took over travels with it.
    answered = made.bundle.predict(
        [
            {"review": "a lovely stay", "city": "Oslo"},
            {"review": "one bad room", "city": "Oslo"},
        ]
    )
    assert answered[0]["stars"] in ("4", "5") and answered[1]["stars"] in ("1", "2")


def test_without_freeze_it_moves_on_from_there(earlier: tuple[Path, str]) -> None:
    folder, bundle = earlier
    train = {"epochs": 1, "batch_size": 16, "early_stop": None, "from": bundle}
    made = run(
        folder,
        lake(folder, 80, 2),
        "train",
        inputs={"review": {**TEXT, "fitted_from": bundle}},
        train=train,
    )
    assert made.run is not None
    theirs = read_tensors(
        Store(folder / "store").open(f"bundles/{bundle.removeprefix('bundle-')}").path
        / "weights.safetensors"
    )
    table = "encoders.:bag:review.table.table.weight"
    moved = (read_tensors(made.run.weights)[table] - theirs[table]).abs().max()
    assert 0 < float(moved) < 0.5


def test_columns_of_another_sort_are_warned_of(earlier: tuple[Path, str]) -> None:
    """Numbers where text was learnt: whether features are taken over, or weights alone, of a bundle or a
    run.
    """
    folder, bundle = earlier
    table = pq.read_table(lake(folder, 60, 4))
    numbers = table.set_column(
        table.column_names.index("city"), "city", pa.array([row % 3 for row in range(60)])
    )
    pq.write_table(numbers, folder / "numbers.parquet")
    train = {"epochs": 1, "batch_size": 32, "early_stop": None}
    first = run(
        folder,
        folder / "numbers.parquet",
        "train",
        inputs={"city": "category"},
        model={},
        train=train,
    )
    assert first.run is not None
    said = "city reads the column 'city', which has {} here and had {} where {} learnt"
    for source, city, weights, here, there in (
        (
            "numbers.parquet",
            {"type": "category", "fitted_from": bundle},
            None,
            "numbers",
            "text",
        ),
        ("numbers.parquet", "category", bundle, "numbers", "text"),
        ("lake0.parquet", "category", first.run.id, "text", "numbers"),
        ("lake0.parquet", "category", bundle, "", ""),
    ):
        heard: list[Event] = []
        run(
            folder,
            folder / source,
            "train",
            heard=heard,
            inputs={"city": city},
            model={"combiner": {"type": "mlp", "width": 16}},
            train={**train, **({"from": weights} if weights else {})},
        )
        told = [
            event.fields["text"]
            for event in heard
            if event.name == "warned" and "learnt" in event.fields["text"]
        ]
        expected = said.format(here, there, weights or bundle)
        assert any(expected in text for text in told) if here else not told, (
            source,
            told,
        )


def test_what_cannot_be_taken_over_is_told(earlier: tuple[Path, str]) -> None:
    folder, bundle = earlier
    data = lake(folder, 80, 3)
    with pytest.raises(
        RecipeError,
        match=r"inputs.review.lower: is False here, but True in bundle-\w+, from which it is taken over",
    ):
        run(
            folder,
            data,
            "encode",
            inputs={"review": {**TEXT, "lower": False, "fitted_from": bundle}},
        )
    with pytest.raises(
        RecipeError, match=r"inputs.town.fitted_from: bundle-\w+ has no input 'town'"
    ):
        run(
            folder,
            data,
            "encode",
            model={},
            inputs={"town": {"type": "category", "fitted_from": bundle}},
        )
    with pytest.raises(RecipeError, match="is of type 'text' in"):
        run(
            folder,
            data,
            "encode",
            model={},
            inputs={"review": {"type": "category", "fitted_from": bundle}},
        )
    with pytest.raises(StoreError, match="bundles/0123456789abcdef is not in the store"):
        run(
            folder,
            data,
            "encode",
            inputs={"review": {**TEXT, "fitted_from": "bundle-0123456789abcdef"}},
        )
    with pytest.raises(RecipeError, match="fitted_from"):
        run(folder, data, "encode", inputs={"review": {**TEXT, "fitted_from": "run-7"}})
    fresh = {"epochs": 1, "batch_size": 32, "early_stop": None}
    with pytest.raises(
        RecipeError,
        match=r"train.freeze: 'reviev' is not an input. Did you mean 'review'\?",
    ):
        run(folder, data, "train", train={**fresh, "freeze": "reviev"})
    with pytest.raises(RecipeError, match="'city' shares its encoder with 'town'"):
        run(
            folder,
            data,
            "train",
            inputs={"city": "category", "town": "category"},
            model={},
            train={**fresh, "freeze": "city"},
        )
    with pytest.raises(UserError, match="nothing could be taken over"):
        run(
            folder,
            data,
            "train",
            inputs={"review": TEXT},
            model={"encoders": {"review": {"type": "bag", "width": 4}}},
            train={**fresh, "from": {"weights": bundle, "only": "review"}},
        )
