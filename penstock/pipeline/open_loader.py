"""`penstock.Loader`: rows from whatever a user has, as batches.

The loader itself (`loader.loader`) takes a feed and an order, and knows no recipe. Here its data is prepared
and encoded first, with its progress told to `events`, and what a recipe says (batch size, seed, order) stands
in for what is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.encode.feed import Feed, batch_size_for
from penstock.loader import loader as loaders
from penstock.loader.feeds import Mixture, weighted
from penstock.loader.options import LoaderOptions
from penstock.pipeline.feeds import Data, Features, feed_of
from penstock.pipeline.profiled import dataset_reference
from penstock.prepare.dataset import Dataset
from penstock.prepare.versions import open_version
from penstock.recipe.order import TrainOrder
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.stores import StoreLike, as_store


def Loader(
    data: Data | Mixture[Data],
    *,
    split: str = "train",
    batch_size: int | None = None,
    seed: int | None = None,
    shuffle: bool | Literal["auto", "full", "blocks", "stored"] = True,
    order: TrainOrder | Mapping[str, Any] | None = None,
    inputs: Features | None = None,
    targets: Features | None = None,
    numpy: bool = False,
    options: LoaderOptions | Mapping[str, Any] | None = None,
    store: StoreLike | None = None,
    events: Events | None = None,
) -> loaders.Loader:
    """Batches of a split, in an order that is a function of seed and epoch; prepared and encoded if need be.

        for batch in penstock.Loader("recipe.yaml"):      # an epoch
            loss(model(batch), batch["income.label"])

    Args:
        data: a feed; a dataset or a subset, or the text that names one (`NAME@ID?where=…`, in `store`), with
            `inputs` and perhaps `targets`; or a recipe or its path. They are prepared and encoded if they are
            not yet. Or several of them mixed by weights,
            `{feed: 0.7, other: 0.3}` or a list of (feed, weight).
        split: `train`, `validation` or `test`.
        batch_size: rows of a global batch, over all processes; a recipe's own unless given.
        seed: what the order is derived from; a recipe's own, or 0, unless given.
        shuffle: True is `auto`, False is `stored` and without augmentation; or a word of `TrainOrder`.
        order: the other words of `recipe.order.TrainOrder`: `block`, `window`, `last`, `fraction`,
            `replacement`, `weights`, `balance`, `mix`, `epoch_rows`, `bucket`. For the training split of a
            recipe they are the recipe's unless `order` or `shuffle` is given.
        inputs, targets: features of a dataset, as a recipe says them. (What else a recipe says of features,
            such as `weight`, is for `penstock.encode`.)
        numpy: yield numpy arrays.
        options: this process's place (`rank`, `world`, `accumulate`), `threads`, `memory_bytes` and `device`:
            `loader.options.LoaderOptions`, or a mapping of these words.
        store: where a feed goes that has to be made, if not into the store of its dataset or recipe.
        events: gets choices, and the progress of what has to be made.

    Returns:
        `loader.loader.Loader`, whose docstring says what a batch has.

    Raises:
        UserError: words that contradict each other; feeds that cannot be mixed or do not have what is named.
        RecipeError, SourceError, ContractError, StoreError: preparing or encoding fails.
        ValueError: a number that cannot be.
    """
    rows_order = _order(shuffle, order)
    by_columns = (
        # Words that go by columns must be known before encoding, which stores those
        # columns.
        rows_order.to_dict() if isinstance(rows_order, TrainOrder) else rows_order
    )

    def encoded(one: Data) -> Feed:
        return feed_of(
            one,
            inputs=inputs,
            targets=targets,
            order=by_columns,
            store=store,
            events=events,
        )

    recipe = None
    if isinstance(data, str) and (reference := dataset_reference(data)):
        data = open_version(as_store(store), reference)
    if isinstance(data, (str, Path, Recipe)):
        recipe = data if isinstance(data, Recipe) else load_recipe(data)
    feeds = _feeds(data if recipe is None else recipe, encoded)
    if recipe is not None:
        # The recipe's order is for its training split.
        if rows_order is None and split == "train":
            rows_order = recipe.train.order
        if batch_size is None and isinstance(feeds, Feed):
            # A batch's size follows from the training split, whichever split is read.
            batch_size = batch_size_for(recipe, feeds.sizes.get("train", 0))
        seed = recipe.seed if seed is None else seed
    # A feed or a mixture says no size of its own.
    if batch_size is None:
        raise UserError(
            "Give `batch_size`: the rows of a batch, over all processes together"
        )
    return loaders.Loader(
        feeds,
        split=split,
        batch_size=batch_size,
        seed=0 if seed is None else seed,
        order={} if rows_order is None else rows_order,
        augment=shuffle is not False,
        numpy=numpy,
        options=options,
        events=events,
    )


def _feeds(data: Any, encoded: Callable[[Any], Feed]) -> Feed | list[tuple[Feed, float]]:
    """Return the feed of the data; for a mixture, each feed with its weight."""
    if isinstance(data, (Feed, Dataset, Recipe)):
        return encoded(data)
    if isinstance(data, (Mapping, Sequence)):
        return [(encoded(one), weight) for one, weight in weighted(data)]
    raise UserError(  # a caller without type checks
        "A loader takes a feed, a dataset, a recipe or its path, or a weighted"
        f" mixture of those; found {type(data).__name__}"
    )


def _order(
    shuffle: bool | str, order: TrainOrder | Mapping[str, Any] | None
) -> TrainOrder | dict[str, Any] | None:
    """Combine `shuffle` and `order`; None if neither says anything."""
    word = (
        {True: "auto", False: "stored"}[shuffle] if isinstance(shuffle, bool) else shuffle
    )
    if order is None:
        return None if word == "auto" else {"shuffle": word}
    if isinstance(order, TrainOrder):
        if word != "auto":
            raise UserError(
                f"`order` sets the whole order, so shuffle={shuffle!r} cannot be given as well"
            )
        return order
    if not isinstance(order, Mapping):  # a caller without type checks
        raise UserError(
            f"`order` is a mapping of words, as in {{'last': 'drop'}}; found {order!r}"
        )
    if word == "auto":
        return dict(order)
    if "shuffle" in order:
        raise UserError(
            f"`order` already sets `shuffle`, so shuffle={shuffle!r} cannot be given as"
            " well"
        )
    return {"shuffle": word, **order}
