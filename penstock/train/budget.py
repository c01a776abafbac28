"""`train.budget`: steps and judging are measured where training begins, and epochs chosen by `train.pace`.

What was chosen stands in the run's world.json, and is what a resumed run keeps to, wherever it goes on: the
schedule of the learning rate ends with the last step, so another number in the middle would be another
training.

A measurement may be wrong by what the machine does beside it; so `Loop` looks at the clock after each epoch
as well, and begins none that would end a tenth after the budget.
"""

from __future__ import annotations

import socket
from typing import Any

from penstock.contracts.learn import World
from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.wording import counted, duration
from penstock.encode.feed import Feed, batch_size_for
from penstock.recipe.schema import Recipe
from penstock.train.autotune import Chosen, speeds, speeds_of_feed
from penstock.train.pace import Pace, fitted

_TRY_SHARE = 0.01
_SHORTEST_TRY, _LONGEST_TRY = 0.3, 3.0
"""Seconds that measuring takes, as a share of the budget and within these."""
_AMPLE = 4
"""A budget is ample where it is so many times what the steps of all epochs take."""
_OTHERWISE = 1.5
"""How much longer a machine must take, to be told of at resume."""


def within_budget(
    recipe: Recipe,
    feed: Feed,
    chosen: Chosen,
    store_url: str,
    events: Events,
    *,
    earlier: Any = None,
) -> Pace | None:
    """The epochs that fit into the recipe's budget, said aloud; None without one.

    Args:
        chosen: where training happens.
        store_url: where other processes find the feed.
        earlier: what was chosen when this run began, if it did.

    Raises:
        StoreError: the run says nonsense of what was chosen.
    """
    budget = recipe.train.budget
    if budget is None:
        return None
    begun = _begun_with(earlier) if earlier else None
    if begun and begun.host == socket.gethostname():
        return begun
    rows = recipe.train.order.an_epoch(feed.sizes["train"])
    # Small data need no measurement but the one that chose the threads.
    known = chosen.speeds.get(f"{chosen.processes}x{chosen.threads}")
    if not begun and known and _AMPLE * recipe.train.epochs * rows / known < budget:
        return Pace(recipe.train.epochs, recipe.train.max_steps, rows / known)
    training, judging = _measured(recipe, feed, chosen, store_url, budget)
    judged = feed.sizes.get("validation", 0) / judging
    if begun:
        _compare(begun, rows / training + judged, events)
        return begun
    pace = fitted(
        recipe.train.epochs,
        recipe.train.max_steps,
        budget=budget,
        training_seconds=rows / training,
        judging_seconds=judged,
        steps=-(-rows // batch_size_for(recipe, feed.sizes["train"])),
    )
    _say(recipe, pace, budget, events)
    return pace


def _begun_with(facts: Any) -> Pace:
    try:
        return Pace.of(facts)
    except ValueError:
        raise StoreError(
            "The run's world.json does not say as it should how many epochs were chosen for its budget"
            " (`chosen.budget`): the file was changed. Train again, with `penstock run --fresh`."
        ) from None


def _compare(begun: Pace, epoch_seconds: float, events: Events) -> None:
    """Say where this machine would choose otherwise; the run keeps what it began with."""
    ratio = epoch_seconds / max(begun.epoch_seconds, 1e-9)
    if ratio > _OTHERWISE or ratio < 1 / _OTHERWISE:
        events.say(
            f"An epoch takes about {duration(epoch_seconds)} on this machine, and took"
            f" {duration(begun.epoch_seconds)} where the run began. It goes on with the"
            f" {counted(begun.epochs, 'epoch')} that were chosen there for its budget",
            epoch_seconds=epoch_seconds,
        )


def _measured(
    recipe: Recipe, feed: Feed, chosen: Chosen, store_url: str, budget: float
) -> tuple[float, float]:
    """Examples a second of training and of judging, on the processes and threads that were chosen."""
    seconds = min(max(_TRY_SHARE * budget, _SHORTEST_TRY), _LONGEST_TRY)
    if chosen.processes == 1:
        return speeds(World(threads=chosen.threads), recipe, feed, seconds)
    training, judging = recipe.launcher.launch(
        speeds_of_feed,
        (recipe, store_url, feed.id, seconds),
        processes=chosen.processes,
        threads=chosen.threads,
    )
    return float(training), float(judging)


def _say(recipe: Recipe, pace: Pace, budget: float, events: Events) -> None:
    each = f"an epoch takes about {duration(pace.epoch_seconds)}"
    declared = counted(recipe.train.epochs, "epoch")
    if (pace.epochs, pace.max_steps) == (recipe.train.epochs, recipe.train.max_steps):
        text = f"{each}, so the declared {declared} fit into the budget of {duration(budget)}"
    elif pace.max_steps == recipe.train.max_steps:
        text = (
            f"{each}, so {pace.epochs} of the declared {declared} fit into the budget of"
            f" {duration(budget)}; the learning rate ends with them"
        )
    else:
        text = (
            f"{each}, so not one fits into the budget of {duration(budget)}:"
            f" {counted(pace.max_steps or 1, 'step')} are taken, and some rows are never seen"
        )
    events.say(f"{text[0].upper()}{text[1:]}", **pace.to_dict())


__all__ = ["within_budget"]
