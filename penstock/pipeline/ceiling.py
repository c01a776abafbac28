"""The memory ceiling over the stages: what cannot fit is refused before it starts, and
what grows too large is stopped (core.memory).

`resources.memory` is kept by preparing and encoding always; by training, packing, evaluating and predicting
where it is declared, since its default knows nothing of the model. Memory that the process held before the
first stage, beyond what a fresh one holds, is the caller's (a notebook's tables), and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from penstock.core.errors import UserError
from penstock.core.events import Event, Events
from penstock.core.memory import Ceiling, held_bytes
from penstock.encode.feed import Feed, batch_size_for
from penstock.prepare.budget import BASE_BYTES, TORCH_BYTES
from penstock.recipe.schema import OwnModel, Recipe, Resources

_ALWAYS = ("prepare", "encode")
_PARAMETER_BYTES = 16
"""Weight, gradient and two moments in single precision."""
_FORMS = 4
"""Of a batch at once: as collated, as tensors, and what is kept for the gradients at the least."""
_ADVICE = {
    "prepare": (
        "Raise resources.memory, lower resources.threads, or leave wide columns out with `source.columns`."
    ),
    "encode": (
        "Raise resources.memory, lower resources.threads, or look at the inputs with the longest values."
    ),
    "train": (
        "Raise resources.memory, lower train.batch_size (or raise train.accumulate), or make the model"
        " smaller."
    ),
    "pack": "Raise resources.memory, or make the model smaller.",
    "evaluate": "Raise resources.memory, or ask less of `evaluate`.",
    "predict": "Give more with `memory` (--memory), or leave wide columns out with the input's `columns`.",
}


@contextmanager
def over(
    stage: str, resources: Resources, events: Events, *, callers_bytes: int | None = None
) -> Iterator[None]:
    """Run a stage below the memory ceiling, where the ceiling holds for that stage.

    Args:
        callers_bytes: what the process held for others; what it holds now, beyond a fresh one, unless given.

    Raises:
        UserError: it came near it.
    """
    # The default ceiling knows nothing of the model, so only a declared one holds
    # there.
    if stage not in _ALWAYS and "memory" not in resources.model_fields_set:
        yield
        return
    if callers_bytes is None:
        callers_bytes = _callers_bytes()
    with Ceiling(
        resources.memory + callers_bytes, stage=stage, advice=_ADVICE[stage]
    ) as ceiling:
        # Checked at each event as well, since a signal can interrupt only the main
        # thread.
        def look(event: Event) -> None:
            ceiling.check()

        events.attach(look)
        try:
            yield
        finally:
            events.detach(look)


def _callers_bytes() -> int:
    return max(held_bytes() - BASE_BYTES - TORCH_BYTES, 0)


class Limits:
    """The memory ceiling of one pipeline."""

    def __init__(self, recipe: Recipe, events: Events) -> None:
        self._recipe, self._events = recipe, events
        self._callers = _callers_bytes()

    def over(self, stage: str) -> AbstractContextManager[None]:
        """Run a stage below the ceiling.

        Raises:
            UserError: it came near it.
        """
        return over(
            stage, self._recipe.resources, self._events, callers_bytes=self._callers
        )

    def training_fits(self, feed: Feed) -> None:
        """Compare the least memory that training takes with a declared ceiling, before
        it starts.

        Raises:
            UserError: it cannot fit; with the smallest ceiling that it might.
        """
        resources = self._recipe.resources
        # How large a user's own module is shows only once it is built.
        if "memory" not in resources.model_fields_set or isinstance(
            self._recipe.model, OwnModel
        ):
            return
        parameters = _parameters(self._recipe, feed)
        if parameters is None:
            return
        batch_size = batch_size_for(self._recipe, feed.sizes["train"])
        row_bytes = sum(spec_bytes(feed, side) for side in ("inputs", "targets"))
        least = (
            BASE_BYTES
            + TORCH_BYTES
            + parameters * _PARAMETER_BYTES
            + batch_size * row_bytes * _FORMS
        )
        if least > resources.memory:
            raise UserError(
                "Training does not fit into resources.memory:"
                f" {resources.memory / 2**20:,.0f} MiB. {parameters:,} parameters take"
                f" {parameters * _PARAMETER_BYTES / 2**20:,.0f} MiB with their gradients and"
                f" moments, a batch of {batch_size:,} rows at least"
                f" {batch_size * row_bytes * _FORMS / 2**20:,.0f} MiB, and the process"
                f" itself {(BASE_BYTES + TORCH_BYTES) / 2**20:,.0f} MiB. The smallest limit"
                f" that may work is {-(-least // 2**20):,}MiB; or lower train.batch_size, or"
                " make the model smaller."
            )


def spec_bytes(feed: Feed, side: str) -> int:
    """Return the bytes of a row's arrays; an axis that varies counts 1."""
    sized = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "uint8": 1, "bool": 1}
    total = 0
    for specs in feed.encoding.specs(
        "inputs" if side == "inputs" else "targets"
    ).values():
        for spec in specs.values():
            # An axis that varies counts 1: the least that it can be.
            elements = 1
            for size in spec.shape:
                elements *= size if isinstance(size, int) else 1
            total += elements * sized.get(spec.dtype, 4)
    return total


def _parameters(recipe: Recipe, feed: Feed) -> int | None:
    """Count the network's parameters without allocating them; None where a part cannot
    be built so.
    """
    import torch

    from penstock.model import build_network, parameter_count

    try:
        with torch.device("meta"):
            return parameter_count(build_network(recipe, feed.encoding, seed=recipe.seed))
    except (NotImplementedError, RuntimeError):
        return None  # weights that are read from a file, say: the watch will tell
