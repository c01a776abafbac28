"""The laws of combiners: `check(Combiner.load("mlp"))`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from penstock.contracts.learn import Combiner, Encoded
from penstock.model import seeded
from penstock.testing.laws import _learning as _

ROWS = 32
Law = Callable[[Combiner], None]


class _Stub(nn.Module):
    """What a combiner needs to know of an encoder."""

    def __init__(self, width: int, pooled_width: int) -> None:
        super().__init__()
        self.width, self.pooled_width = width, pooled_width


def _width(combiner: Combiner) -> int:
    return combiner.token_width() or _.WIDTH


def _module(combiner: Combiner, *, seed: int = 0) -> nn.Module:
    width = _width(combiner)
    return _.built(
        lambda: combiner.build([_Stub(width, width), _Stub(width, 3 * width)]), seed=seed
    )


def _parts(
    combiner: Combiner, *, padding: int = 0, garbage: float = 0.0
) -> list[Encoded]:
    """A sequence (5 tokens, the rest padding) and three features encoded together."""
    width = _width(combiner)
    words, facts = _.encoded(ROWS, 5, width), _.encoded(ROWS, 3, width, seed=1)
    blank = torch.full((ROWS, padding, width), garbage)
    words = Encoded(
        torch.cat([words.tokens, blank], 1),
        torch.cat([words.mask, torch.zeros(ROWS, padding, dtype=torch.bool)], 1),
        words.pooled,
    )
    return [words, facts._replace(pooled=facts.tokens.flatten(1))]


def shapes(combiner: Combiner) -> None:
    """`Encoded` out, pooled `[B, width]`."""
    module = _module(combiner)
    out = module(_parts(combiner))
    assert isinstance(out, Encoded), (
        f"shapes: forward must return Encoded; it returned {type(out).__name__}"
    )
    assert list(out.pooled.shape) == [
        ROWS,
        module.width,
    ], (
        f"shapes: pooled has shape {list(out.pooled.shape)}; expected {[ROWS, module.width]}"
    )
    assert (
        out.tokens.dim() == 3
        and list(out.mask.shape) == list(out.tokens.shape[:2])
        and out.mask.dtype == torch.bool
    ), "shapes: tokens [B, T, W] need a bool mask [B, T]"


def gradients(combiner: Combiner) -> None:
    """Gradients reach every parameter."""
    module = _module(combiner).eval()
    _.moved("gradients", module, _.projected(module(_parts(combiner)).pooled))


def listens(combiner: Combiner) -> None:
    """Every part changes what comes out."""
    module = _module(combiner).eval()
    parts = _parts(combiner)
    with torch.no_grad():
        before = module(parts).pooled
        for i, part in enumerate(parts):
            changed = [
                *parts[:i],
                part._replace(tokens=part.tokens.flip(0), pooled=part.pooled.flip(0)),
                *parts[i + 1 :],
            ]
            assert not torch.allclose(module(changed).pooled, before), (
                f"listens: another part {i} changes nothing"
            )


def rows_alone(combiner: Combiner) -> None:
    """In eval mode a row is combined alone as in a batch."""
    module = _module(combiner).eval()
    parts = _parts(combiner)
    with torch.no_grad():
        whole = module(parts)
        alone = module([Encoded(*(t[1:2] for t in part)) for part in parts])
    _.same_encoded("rows_alone", alone, Encoded(*(t[1:2] for t in whole)))


def padding(combiner: Combiner) -> None:
    """Tokens that are not there change nothing, whatever they hold."""
    module = _module(combiner).eval()
    with torch.no_grad():
        wanted = module(_parts(combiner)).pooled
        for garbage in (0.0, 1e3):
            _.same(
                "padding",
                "pooled",
                module(_parts(combiner, padding=4, garbage=garbage)).pooled,
                wanted,
            )


def deterministic(combiner: Combiner) -> None:
    """One seed, one module, one answer, in training as well."""
    outs = []
    for _run in range(2):
        module = _module(combiner)
        with seeded(3):
            outs.append(module(_parts(combiner)))
    _.same_encoded("deterministic", outs[0], outs[1], tolerance=0)


def saved(combiner: Combiner) -> None:
    """Saved weights loaded into another module give the same answers."""
    module = _module(combiner).eval()
    width = _width(combiner)
    again = _.reborn(
        lambda: combiner.build([_Stub(width, width), _Stub(width, 3 * width)]), module
    )
    with torch.no_grad():
        _.same_encoded(
            "saved", again(_parts(combiner)), module(_parts(combiner)), tolerance=0
        )


def declared(combiner: Combiner) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", combiner)


def light(combiner: Combiner) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", combiner)


LAWS: tuple[Law, ...] = (
    shapes,
    gradients,
    listens,
    rows_alone,
    padding,
    deterministic,
    saved,
    declared,
    light,
)


def check(combiner: Combiner) -> None:
    """Judge one combiner by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(combiner)
