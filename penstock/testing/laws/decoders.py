"""The laws of decoders.

`check(Decoder.load("binary"))` judges a part by the targets it can read; give `target` (array → spec) for one
that no feature of Penstock has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec
from penstock.model import fake_batch
from penstock.testing.laws import _learning as _

ROWS = 32
Target = Mapping[str, TensorSpec]
Law = Callable[[Decoder, Target], None]


def readable(decoder: Decoder) -> dict[str, Target]:
    """The standard targets that this decoder reads."""
    return {word: spec for word, spec in _.targets().items() if not decoder.reads(spec)}


def _module(decoder: Decoder, target: Target, *, seed: int = 0) -> torch.nn.Module:
    return _.built(lambda: decoder.build(target, _.WIDTH), seed=seed)


def _truth(target: Target, rows: int = ROWS) -> dict[str, torch.Tensor]:
    return {
        name.partition(".")[2]: array
        for name, array in fake_batch({"t": dict(target)}, rows).items()
    }


def shapes(decoder: Decoder, target: Target) -> None:
    """Raw `[B, …]`, losses `[B]` float32 and finite, answers `[B, …]`."""
    raw = _module(decoder, target)(_.encoded(ROWS, 2, _.WIDTH))
    losses = decoder.loss(raw, _truth(target), target)
    assert raw.shape[0] == ROWS, (
        f"shapes: raw has shape {list(raw.shape)}; expected {ROWS} rows"
    )
    assert list(losses.shape) == [ROWS] and losses.dtype == torch.float32, (
        f"shapes: losses must be float32 [{ROWS}]; they are {losses.dtype} {list(losses.shape)}"
    )
    assert bool(torch.isfinite(losses).all()), "shapes: losses must be finite"
    answers = decoder.answer(raw, target)
    assert answers, "shapes: nothing is answered"
    for name, value in answers.items():
        assert value.shape[0] == ROWS and bool(torch.isfinite(value).all()), (
            f"shapes: the answer {name!r} must have {ROWS} finite rows; it has shape {list(value.shape)}"
        )


def extremes(decoder: Decoder, target: Target) -> None:
    """A very sure network gives finite losses, gradients and answers."""
    for sure in (-1e4, 1e4):
        raw = torch.full_like(
            _module(decoder, target)(_.encoded(ROWS, 2, _.WIDTH)), sure
        ).requires_grad_()
        losses = decoder.loss(raw, _truth(target), target)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None and bool(
            torch.isfinite(losses).all() and torch.isfinite(raw.grad).all()
        ), f"extremes: raw {sure:g} gives a loss or gradient that is not finite"
        assert all(
            bool(torch.isfinite(v).all())
            for v in decoder.answer(raw.detach(), target).values()
        ), f"extremes: raw {sure:g} gives an answer that is not finite"


def gradients(decoder: Decoder, target: Target) -> None:
    """Gradients of the loss reach every parameter."""
    module = _module(decoder, target).eval()
    _.moved(
        "gradients",
        module,
        decoder.loss(module(_.encoded(ROWS, 2, _.WIDTH)), _truth(target), target).sum(),
    )


def learns(decoder: Decoder, target: Target) -> None:
    """Going down the loss's gradient makes it less for every row."""
    raw = _module(decoder, target)(_.encoded(ROWS, 2, _.WIDTH)).detach().requires_grad_()
    truth = _truth(target)
    first = decoder.loss(raw, truth, target).detach()
    optimiser = torch.optim.Adam([raw], lr=0.05)
    for _step in range(300):
        optimiser.zero_grad()
        decoder.loss(raw, truth, target).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    last = decoder.loss(raw, truth, target).detach()
    assert bool((last <= first + 1e-3).all()) and float(last.mean()) < 0.8 * float(
        first.mean()
    ), (
        f"learns: the mean loss went from {float(first.mean()):.3g} to {float(last.mean()):.3g}"
    )


def rows_alone(decoder: Decoder, target: Target) -> None:
    """A row's raw, loss and answer are the same alone as in a batch."""
    module = _module(decoder, target).eval()
    known, truth = _.encoded(ROWS, 2, _.WIDTH), _truth(target)
    with torch.no_grad():
        raw = module(known)
        one = module(type(known)(*(part[2:3] for part in known)))
        _.same("rows_alone", "raw", one, raw[2:3])
        _.same(
            "rows_alone",
            "loss",
            decoder.loss(raw[2:3], _.rows_of(truth, slice(2, 3)), target),
            decoder.loss(raw, truth, target)[2:3],
        )
        for name, value in decoder.answer(raw, target).items():
            _.same("rows_alone", name, decoder.answer(raw[2:3], target)[name], value[2:3])


def deterministic(decoder: Decoder, target: Target) -> None:
    """One seed, one module."""
    known = _.encoded(ROWS, 2, _.WIDTH)
    _.same(
        "deterministic",
        "raw",
        _module(decoder, target)(known),
        _module(decoder, target)(known),
        tolerance=0,
    )


def saved(decoder: Decoder, target: Target) -> None:
    """Saved weights loaded into another module give the same answers."""
    module = _module(decoder, target).eval()
    known = _.encoded(ROWS, 2, _.WIDTH)
    with torch.no_grad():
        _.same(
            "saved",
            "raw",
            _.reborn(lambda: decoder.build(target, _.WIDTH), module)(known),
            module(known),
            tolerance=0,
        )


def measured(decoder: Decoder, target: Target) -> None:
    """It names the metrics that suit its target."""
    assert decoder.metrics and all(isinstance(name, str) for name in decoder.metrics), (
        "measured: `metrics` is empty: name at least one"
    )


def refuses(decoder: Decoder, target: Target) -> None:
    """`reads` says why in words, and never fails, for every target it cannot answer."""
    for word, spec in _.targets().items():
        why = decoder.reads(spec)
        assert why is None or (isinstance(why, str) and len(why) > 10), (
            f"refuses: `reads` must say in a sentence why it cannot answer a {word}; it said {why!r}"
        )


def members(decoder: Decoder, target: Target) -> None:
    """What members of an ensemble say together is the mean of what each says; their doubt is a number a row
    that is not below 0, and 0 where they agree.
    """
    known = _.encoded(ROWS, 2, _.WIDTH)
    with torch.no_grad():
        each = [_module(decoder, target, seed=seed).eval()(known) for seed in range(3)]
        raws = torch.stack(each, dim=1)
        together = decoder.answer(decoder.merged(raws, target), target)
        answers = [decoder.answer(raw, target) for raw in each]
        for name, value in together.items():
            if value.is_floating_point():
                mean = torch.stack([one[name] for one in answers]).mean(dim=0)
                _.same("members", f"the mean of {name}", value, mean)
        doubt = decoder.doubt(raws, target)
        alike = decoder.doubt(torch.stack([each[0]] * 3, dim=1), target)
    assert list(doubt.shape) == [ROWS] and bool((doubt >= 0).all()), (
        f"members: doubt must be [{ROWS}] and not below 0; it is {list(doubt.shape)}"
    )
    _.same("members", "the doubt of equal members", alike, torch.zeros(ROWS))


def declared(decoder: Decoder, target: Target) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", decoder)


def light(decoder: Decoder, target: Target) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", decoder)


LAWS: tuple[Law, ...] = (
    shapes,
    extremes,
    gradients,
    learns,
    rows_alone,
    deterministic,
    saved,
    measured,
    refuses,
    members,
    declared,
    light,
)


def check(decoder: Decoder, target: Target | None = None) -> None:
    """Judge one decoder by every law.

    Raises:
        AssertionError: it breaks a law, or reads none of the standard targets and none was given.
    """
    specs = readable(decoder) if target is None else {"given": target}
    assert specs, (
        f"the decoder {decoder.type!r} reads none of {', '.join(_.targets())}; give a `target` that it reads"
    )
    for spec in specs.values():
        for law in LAWS:
            law(decoder, spec)
