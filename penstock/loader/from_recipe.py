"""What a loader is given → feeds; and which of how many processes this is.

a feed                               as it is
a dataset, with inputs and targets   encoded into the store that the dataset is in
a recipe, or its path                prepared and encoded into the recipe's store, unless it is there
{a: 0.7, b: 0.3}, [(a, 0.7), …]      any of these, mixed by weights
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe, load_recipe

Features = Mapping[str, Any]
Data = Feed | Dataset | Recipe | str | Path
"""What rows can be had of."""


@dataclass(frozen=True)
class Opened:
    """Feeds with their weights, and the recipe that says more, if there is one."""

    feeds: list[Feed]
    weights: list[float]
    recipe: Recipe | None = None


def opened(
    data: Data | Mapping[Data, float] | Sequence[tuple[Data, float]],
    *,
    inputs: Features | None = None,
    targets: Features | None = None,
    weight: str | None = None,
    order: Mapping[str, Any] | None = None,
    store: Store | str | Path | None = None,
    events: Events | None = None,
) -> Opened:
    """The feeds that `data` means. `Raises` as `feed_of`; UserError: it is no data, or a mixture of none."""
    if isinstance(data, (Feed, Dataset, Recipe, str, Path)):
        recipe = (
            load_recipe(data) if isinstance(data, (str, Path)) else data if isinstance(data, Recipe) else None
        )
        return Opened(
            [
                feed_of(
                    recipe or data,
                    inputs=inputs,
                    targets=targets,
                    weight=weight,
                    order=order,
                    store=store,
                    events=events,
                )
            ],
            [1.0],
            recipe,
        )
    if not isinstance(data, (Mapping, Sequence)):  # what has no types checked
        raise UserError(
            "a loader takes a feed, a dataset, a recipe or its path, or a mixture of those by weights; found"
            f" {type(data).__name__}"
        )
    pairs: list[Any] = list(data.items()) if isinstance(data, Mapping) else list(data)
    if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise UserError("a mixture is {feed: weight, …} or a list of (feed, weight), with at least one feed")
    if any(isinstance(share, bool) or not isinstance(share, numbers.Real) for _, share in pairs):
        raise UserError(
            f"the weights of a mixture are numbers; found {', '.join(repr(share) for _, share in pairs)}"
        )
    feeds = [
        feed_of(one, inputs=inputs, targets=targets, weight=weight, store=store, events=events)
        for one, _ in pairs
    ]
    ids = [feed.id for feed in feeds]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise UserError(
            f"the mixture has the feed {twice[0]} more than once; name it once, with the sum of its weights"
        )
    return Opened(feeds, [float(share) for _, share in pairs])


def feed_of(
    data: Data,
    *,
    inputs: Features | None = None,
    targets: Features | None = None,
    weight: str | None = None,
    order: Mapping[str, Any] | None = None,
    like: Feed | None = None,
    store: Store | str | Path | None = None,
    events: Events | None = None,
) -> Feed:
    """One feed; encoded if it is not there yet.

    Args:
        data: a feed, a dataset, a recipe or its path.
        inputs, targets, weight: as in a recipe; for a dataset.
        order: words of `train.order` that go by columns (`weights`, `mix`), so that these are stored; for a
            dataset.
        like: a feed whose features are taken, as they were fitted there; for a dataset.
        store: where it goes, unless into the store of the dataset or of the recipe.

    Raises:
        UserError: a feed or a recipe is told its inputs once more, or a dataset is not told them.
        RecipeError, SourceError, ContractError, StoreError: as preparing and encoding.
    """
    told = [
        word
        for word, value in (("inputs", inputs), ("targets", targets), ("weight", weight), ("like", like))
        if value
    ]
    if isinstance(data, Feed):
        if told:
            raise UserError(
                f"a feed is encoded already; {', '.join(told)} can no longer be said of it. Give the dataset"
                " instead"
            )
        return data
    if isinstance(data, (str, Path)):
        data = load_recipe(data)
    if isinstance(data, Recipe):
        if told:
            raise UserError(f"a recipe says its own {', '.join(told)}; change them there, or give a dataset")
        if not data.inputs:
            raise UserError(f"the recipe {data.name!r} declares no `inputs`, so there is nothing to encode")
        from penstock.prepare.prepare import find_dataset, prepare

        where = _store(store) or Store(
            data.store if "://" in data.store else data.base / data.store, cache_bytes=data.resources.cache
        )
        dataset = find_dataset(data, where)
        if dataset is None:
            dataset = prepare(data, where, events or Events())
        return write_feed(data, dataset, where, events or Events())
    for side, said in (("inputs", inputs), ("targets", targets)):
        if said is not None and not isinstance(said, Mapping):
            raise UserError(
                f"`{side}` are features by name, as in {side}={{'age': 'number'}}; found {said!r}"
            )
    where = _store(store) or data.store
    words: dict[str, Any] = {"inputs": dict(inputs or {}), "targets": dict(targets or {}), "weight": weight}
    if like is not None:
        if len(told) > 1:
            raise UserError(
                f"`like` says the features of the other feed; {', '.join(told[:-1])} go not with it"
            )
        encoding = like.encoding
        words = {
            "inputs": {name: feature.to_dict() for name, feature in encoding.inputs.items()},
            "targets": {name: feature.to_dict() for name, feature in encoding.targets.items()},
            "weight": encoding.weight,
        }
        if like.samples is not None:
            raise UserError(
                f"the feed {like.id} has samples of series; only a recipe can say how rows make samples"
            )
    elif not inputs:
        raise UserError(
            f"the dataset {data.reference} has columns, and a model sees features: say which, as in"
            " inputs={'age': 'number'}, targets={'income': 'binary'}"
        )
    recipe = load_recipe(
        {
            # the rows come from the dataset; its source is not read again
            "name": data.name,
            "source": {"type": "files", "path": data.reference},
            **words,
            "train": {
                "order": {
                    word: value
                    for word, value in (order or {}).items()
                    if word in ("weights", "mix") and value
                }
            },
        }
    )
    return write_feed(recipe, data, where, events or Events(), like=like)


def _store(store: Store | str | Path | None) -> Store | None:
    return store if store is None or isinstance(store, Store) else Store(store)


def check_whole(**numbers_told: tuple[Any, int | None]) -> None:
    """That each is a whole number, and not below its least; None is not told.

    Raises:
        ValueError: one is not.
    """
    for word, (value, least) in numbers_told.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"{word} must be a whole number; found {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{word} must be at least {least}; found {value}")


def device_there(device: Any) -> Any:
    """A torch device that this machine has.

    Raises:
        UserError: there is no such device, or none of its kind.
    """
    from penstock.core.optional import require

    torch = require("torch", extra="train", why="batches on a device")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"device is what torch calls one, such as 'cpu' or 'cuda:0'; found {device!r}"
            f" ({str(error).splitlines()[0]})"
        ) from None
    if found.type == "cuda" and (
        not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()
    ):
        raise UserError(
            f"device is {str(found)!r}, and torch finds {torch.cuda.device_count()} CUDA devices here. Leave"
            " it out for the CPU"
        )
    return found


def place_in_world(rank: int | None, world: int | None) -> tuple[int, int]:
    """Which of how many processes this is: as given, or as torch.distributed or torchrun's environment says,
    or the only one.

    Raises:
        UserError: they are given by halves, or the environment does not hold.
    """
    if rank is not None and world is not None:
        return rank, world
    known = _known_place()
    if known is not None and world is not None and known[1] != world:
        raise UserError(
            f"world is {world}, but this is one of {known[1]} processes; give `rank` too, or neither"
        )
    if rank is not None:
        raise UserError(
            "`rank` needs `world`, the number of processes: give both, or neither to take them from"
            " torch.distributed or from the environment"
        )
    return known or (0, world or 1)


def _known_place() -> tuple[int, int] | None:
    torch: Any = sys.modules.get("torch.distributed")  # whoever set it up has imported it
    if torch is not None and torch.is_available() and torch.is_initialized():
        return int(torch.get_rank()), int(torch.get_world_size())
    words = [os.environ.get("RANK"), os.environ.get("WORLD_SIZE")]
    if None in words:
        return None
    try:
        found = int(words[0] or ""), int(words[1] or "")
    except ValueError:
        found = (0, 0)
    if not 0 <= found[0] < found[1]:
        raise UserError(
            f"the environment says RANK={words[0]} of WORLD_SIZE={words[1]}, which is no place among"
            " processes. Unset them, or give `rank` and `world`"
        )
    return found
