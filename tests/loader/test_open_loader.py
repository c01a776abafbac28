"""What a loader may be given, and how it finds its place among processes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import penstock
from penstock.cli import main
from penstock.core.errors import UserError
from penstock.encode import feed as feeds
from penstock.loader.loader import Loader
from penstock.loader.options import place_in_world
from penstock.recipe.order import TrainOrder

torch.set_num_threads(1)
WORDS: dict[str, Any] = {
    "inputs": {"a": "number", "c": "category"},
    "targets": {"y": "binary"},
}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    rows = [
        f"{i},{'red' if i % 3 else 'blue'},{'yes' if i % 4 == 0 else 'no'},{i % 5}"
        for i in range(400)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["a,c,y,odds", *rows]))
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(
            {
                "name": "lake",
                "seed": 5,
                "source": {"type": "files", "path": "rows.csv"},
                **WORDS,
                "train": {"batch_size": 50, "order": {"balance": "y"}},
            }
        )
    )
    return tmp_path


def ids(loader: Loader) -> list[list[int]]:
    return [[int(row) for row in np.asarray(batch["row_id"])[:, 0]] for batch in loader]


def test_a_recipe_is_prepared_and_encoded_and_says_its_own_words(lake: Path) -> None:
    from_path = penstock.Loader(lake / "recipe.yaml", numpy=True)
    assert (
        from_path.batch_size == 50
        and from_path.seed == 5
        and from_path.order.balance == "y"
    )
    recipe = penstock.Recipe.load(lake / "recipe.yaml")
    feed = penstock.encode(recipe)
    assert feed.id == from_path.feed.id
    assert (
        ids(from_path)
        == ids(penstock.Loader(recipe, numpy=True))
        == ids(
            penstock.Loader(
                feed, batch_size=50, seed=5, order={"balance": "y"}, numpy=True
            )
        )
    )
    others = penstock.Loader(
        lake / "recipe.yaml", split="validation", shuffle=False, numpy=True
    )
    assert (
        others.order.balance is None
        and sum(map(len, ids(others))) == feed.sizes["validation"]
    )
    assert (
        penstock.Loader(lake / "recipe.yaml", shuffle="stored", numpy=True).order.balance
        is None
    ), "words that are given are instead of the recipe's"
    with pytest.raises(UserError, match="A recipe sets inputs itself"):
        penstock.Loader(lake / "recipe.yaml", inputs={"a": "number"})
    with pytest.raises(UserError, match="already encoded, so inputs cannot"):
        penstock.Loader(feed, batch_size=5, inputs={"a": "number"})
    with pytest.raises(UserError, match="has no `inputs`"):
        penstock.encode(
            {
                "name": "lake",
                "source": {"type": "files", "path": str(lake / "rows.csv")},
                "store": str(lake / "store"),
            }
        )


def test_of_several_who_want_the_same_feed_one_makes_it(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, found = [], []
    make = feeds._write

    def counted(*arguments: Any, **named: Any) -> Any:
        made.append(named["id"])
        return make(*arguments, **named)

    monkeypatch.setattr(feeds, "_write", counted)
    several = [
        threading.Thread(
            target=lambda: found.append(penstock.encode(lake / "recipe.yaml").id)
        )
        for _ in range(3)
    ]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert (
        found == made * 3
        and len(list((lake / "store" / "datasets" / "lake").iterdir())) == 1
    )
    assert not list((lake / "store" / ".leases").iterdir())


def test_a_dataset_is_encoded_into_its_own_store(lake: Path) -> None:
    dataset = penstock.prepare(lake / "recipe.yaml")
    loader = penstock.Loader(
        dataset, batch_size=32, order={"weights": "odds"}, numpy=True, **WORDS
    )
    assert (lake / "store" / "feeds" / loader.feed.id).is_dir() and loader.feed.manifest[
        "order"
    ] == {"weights": "odds"}
    feed = penstock.encode(dataset, weights="odds", **WORDS)
    assert (
        feed.id == loader.feed.id
        and penstock.encode(lake / "recipe.yaml").id
        == penstock.encode(dataset, **WORDS).id
    )
    alone = penstock.Loader(dataset, batch_size=32, inputs={"a": "number"})
    assert sorted(next(iter(alone))) == [
        "a.missing",
        "a.value",
        "row_id",
        "weight",
    ], "a loader needs no targets"
    like = penstock.encode(dataset, like=feed)
    assert like.encoding.fitted == feed.encoding.fitted and like.id != feed.id
    with pytest.raises(UserError, match="needs features"):
        penstock.Loader(dataset, batch_size=32)
    with pytest.raises(UserError, match="Overrides change a recipe"):
        penstock.encode(dataset, overrides=["seed=3"], **WORDS)
    with pytest.raises(UserError, match="`like` takes the features"):
        penstock.encode(dataset, like=feed, **WORDS)
    with pytest.raises(UserError, match="Put `weights` and `mix` under"):
        penstock.encode(lake / "recipe.yaml", weights="odds")
    with pytest.raises(UserError, match="found int"):
        penstock.Loader(3, batch_size=32)  # type: ignore[arg-type]


def test_its_place_is_given_or_the_environments(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(word, raising=False)
    assert (
        place_in_world(None, None) == (0, 1)
        and place_in_world(2, 3) == (2, 3)
        and place_in_world(None, 3) == (0, 3)
    )
    monkeypatch.setenv("RANK", "1")
    assert place_in_world(None, None) == (0, 1), "half a place is none"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert place_in_world(None, None) == place_in_world(None, 4) == (
        1,
        4,
    ) and place_in_world(0, 1) == (0, 1)
    loader = penstock.Loader(lake / "recipe.yaml", numpy=True)
    assert (loader.rank, loader.world) == (1, 4)
    for rank, world, text in (
        (None, 3, "one of 4 processes"),
        (2, None, "`rank` needs `world`"),
    ):
        with pytest.raises(UserError, match=text):
            place_in_world(rank, world)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(UserError, match="RANK=4 of WORLD_SIZE=4, which is no place"):
        place_in_world(None, None)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert place_in_world(None, None) == (0, 1), (
            "torch.distributed comes before the environment"
        )
    finally:
        dist.destroy_process_group()


def test_under_anybodys_loop_a_loader_has_a_length_and_goes_on(lake: Path) -> None:
    feed = penstock.encode(lake / "recipe.yaml")
    loader = penstock.Loader(feed, batch_size=64)
    weights = torch.zeros(1, requires_grad=True)
    for _ in range(2):
        for batch in loader:
            ((batch["a.value"] * weights - batch["y.label"]) ** 2).mean().backward()
    assert loader.epoch == 2 and len(loader) == -(-feed.rows["train"] // 64)
    state = json.loads(json.dumps(loader.state_dict()))
    other = penstock.Loader(feed, batch_size=64)
    other.load_state_dict(state)
    assert [b["row_id"].tolist() for b in other] == [b["row_id"].tolist() for b in loader]


def test_what_is_no_number_or_no_state_is_said_at_once(lake: Path) -> None:
    feed = penstock.encode(penstock.prepare(lake / "recipe.yaml"), **WORDS)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": "64"}, "batch_size must be a whole number; found '64'"),
        ({"batch_size": 6.5}, "found 6.5"),
        ({"batch_size": True}, "found True"),
        ({"seed": "a"}, "seed"),
        ({"options": {"threads": "2"}}, "threads"),
        ({"options": {"memory_bytes": "1GiB"}}, "memory_bytes"),
        ({"options": {"accumulate": 0}}, "at least 1"),
        ({"options": {"rank": 2, "world": 2}}, "rank must be below"),
    ]
    for words, text in wrong:
        with pytest.raises(ValueError, match=text):
            penstock.Loader(feed, **{"batch_size": 32, **words})
    refused: list[tuple[dict[str, Any], str]] = [
        ({"order": {"fraction": 0}}, "greater than 0"),
        ({"shuffle": "blocks", "order": {"block": 0}}, "at least 1 row"),
        ({"shuffle": "blocks", "order": {"window": 0}}, "window"),
        (
            {"shuffle": "blocks", "order": {"shuffle": "full"}},
            "shuffle='blocks' cannot be given as well",
        ),
        (
            {"shuffle": False, "order": TrainOrder()},
            "shuffle=False cannot be given as well",
        ),
        ({"order": "blocks"}, "`order` is a mapping of words"),
        ({"order": {"bucket": 1}}, "bucket"),
        ({"options": {"thread": 2}}, "no 'thread'. Did you mean 'threads'"),
        ({"options": 2}, "options are a mapping of rank, world"),
    ]
    for words, text in refused:
        with pytest.raises(UserError, match=text):
            penstock.Loader(feed, batch_size=32, **words)
    with pytest.raises(UserError, match="what torch calls one"):
        penstock.Loader(feed, batch_size=32, options={"device": "cudda"})
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds 0 CUDA devices"):
            penstock.Loader(feed, batch_size=32, options={"device": "cuda"})
    for mixture, text in [
        ([(feed, 1), (feed, 2)], "more than once"),
        ({feed: "a"}, "weights of a mixture are numbers"),
    ]:
        with pytest.raises(UserError, match=text):
            penstock.Loader(mixture, batch_size=32)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="features by name"):
        penstock.Loader(
            penstock.prepare(lake / "recipe.yaml"), batch_size=32, inputs=["a"]
        )  # type: ignore[arg-type]
    loader = penstock.Loader(feed, batch_size=np.int64(32), numpy=True)  # type: ignore[arg-type]
    state = loader.state_dict()
    for bad in (
        5,
        {},
        {**state, "position": -1},
        {**state, "position": len(loader) + 1},
        {**state, "epoch": -1},
        {word: value for word, value in state.items() if word != "position"},
    ):
        with pytest.raises(UserError, match="a state"):
            loader.load_state_dict(bad)  # type: ignore[arg-type]
    loader.load_state_dict({**state, "position": len(loader)})
    assert not list(loader), "at the end of its epoch"
    with pytest.raises(ValueError, match="start must be at least 0"):
        next(loader.batches(0, start=-3))


@pytest.mark.parametrize(
    "words",
    [
        {"balance": "y"},
        {"replacement": True},
        {"mix": {"by": "c", "weights": {"red": 1, "blue": 1}}},
    ],
)
def test_a_split_without_rows_has_an_empty_epoch_however_rows_are_drawn(
    lake: Path, words: dict[str, Any]
) -> None:
    (lake / "one.csv").write_text("a,c,y,odds\n1,red,yes,1")
    feed = penstock.encode(
        penstock.prepare(lake / "recipe.yaml"), mix=words.get("mix"), **WORDS
    )
    one = penstock.prepare(
        {
            "name": "one",
            "source": {"type": "files", "path": str(lake / "one.csv")},
            "store": str(lake / "store"),
        }
    )
    held = penstock.encode(one, like=feed, mix=words.get("mix"))
    empty = next(split for split, rows in held.sizes.items() if not rows)
    assert [
        list(penstock.Loader(held, split=empty, batch_size=8, order=words))
        for _ in range(2)
    ] == [[], []]
    with pytest.raises(UserError, match="no row can be drawn"):
        penstock.Loader(
            held, split=empty, batch_size=8, order={**words, "epoch_rows": 10}
        )


def test_the_command_encodes_what_a_loader_then_finds(
    lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "encode",
                str(lake / "recipe.yaml"),
                "--store",
                str(lake / "store"),
                "--json",
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (
        told["feed"] == penstock.Loader(lake / "recipe.yaml", numpy=True).feed.id
        and sum(told["rows"].values()) == 400
    )
    assert (
        main(["encode", str(lake / "recipe.yaml"), "--store", str(lake / "store")]) == 0
    )
    assert told["feed"] in capsys.readouterr().out
    assert (
        main(["encode", str(lake / "recipe.yaml"), "--set", "inputs={aa: number}"]) == 2
        and "inputs.aa" in capsys.readouterr().err
    )
