"""The laws of encoders.

`check(Encoder.load({"type": "acme.tcn"}))` judges a part by the features it can read; give `features`
(feature → array → spec) for arrays that no feature of Penstock has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from penstock.contracts.learn import Encoded, Encoder, model_inputs
from penstock.contracts.tensors import FeatureSpecs
from penstock.model import fake_batch, seeded
from penstock.testing.laws import _learning as _

ROWS = 64
Law = Callable[[Encoder, FeatureSpecs], None]


def readable(encoder: Encoder) -> dict[str, FeatureSpecs]:
    """The groups of standard features that this encoder reads; one feature a group unless it encodes several
    together.
    """
    readable_groups = {
        word: group
        for word, group in _.inputs().items()
        if not any(map(encoder.reads, group.values()))
    }
    return (
        readable_groups
        if encoder.together
        else {
            word: dict([next(iter(group.items()))])
            for word, group in readable_groups.items()
        }
    )


def _module(
    encoder: Encoder, features: FeatureSpecs, *, seed: int = 0, width: int | None = None
) -> torch.nn.Module:
    return _.built(lambda: encoder.build(features, width), seed=seed)


def shapes(encoder: Encoder, features: FeatureSpecs) -> None:
    """Tokens `[B, T, W]`, mask `[B, T]`, pooled `[B, pooled_width]`; the width a combiner asks for is given,
    or refused by `width`.
    """
    for width in (None, _.WIDTH):
        module = _module(encoder, features, width=width)
        assert isinstance(module.width, int) and isinstance(module.pooled_width, int), (
            "shapes: `width` and `pooled_width` must be whole numbers"
        )
        out = module(fake_batch(features, 3))
        assert isinstance(out, Encoded), (
            f"shapes: forward must return Encoded; it returned {type(out).__name__}"
        )
        tokens = out.tokens.shape[1]
        for name, tensor, wanted in (
            ("tokens", out.tokens, [3, tokens, module.width]),
            ("mask", out.mask, [3, tokens]),
            ("pooled", out.pooled, [3, module.pooled_width]),
        ):
            assert list(tensor.shape) == wanted, (
                f"shapes: {name} has shape {list(tensor.shape)}; expected {wanted}"
            )
        assert out.mask.dtype == torch.bool, (
            f"shapes: the mask must be bool; it is {out.mask.dtype}"
        )
        if encoder.together:
            assert tokens == len(features), (
                f"shapes: encoded together, {len(features)} features must give one token each; there are"
                f" {tokens}"
            )
            _.same("shapes", "pooled", out.pooled, out.tokens.flatten(1), tolerance=0)


def gradients(encoder: Encoder, features: FeatureSpecs) -> None:
    """Gradients reach every parameter."""
    module = _module(encoder, features).eval()
    out = module(fake_batch(features, ROWS))
    _.moved("gradients", module, _.projected(out.pooled, out.tokens))


def rows_alone(encoder: Encoder, features: FeatureSpecs) -> None:
    """In eval mode a row is encoded alone as in a batch."""
    module = _module(encoder, features).eval()
    batch = fake_batch(features, ROWS)
    with torch.no_grad():
        whole = module(batch)
        for row in (0, ROWS - 1):
            _.same_encoded(
                "rows_alone",
                module(_.rows_of(batch, slice(row, row + 1))),
                Encoded(*(part[row : row + 1] for part in whole)),
            )


def padding(encoder: Encoder, features: FeatureSpecs) -> None:
    """Longer padding changes neither the pooled vector nor the tokens that are there.

    Open axes only: padded with 0, as masks are.
    """
    module = _module(encoder, features).eval()
    batch = fake_batch(features, ROWS)
    specs = dict(
        zip(
            model_inputs(features),
            (s for arrays in features.values() for s in arrays.values()),
            strict=True,
        )
    )
    for name, spec in specs.items():
        if spec.role == "mask" and None in spec.shape:  # what is there comes first
            batch[name] = batch[name].sort(dim=1, descending=True).values
            batch[name][:, 0] = 1
    longer = {
        name: (
            torch.nn.functional.pad(
                array,
                [
                    n
                    for size in reversed(specs[name].shape)
                    for n in (0, 3 if size is None else 0)
                ],
            )
            if None in specs[name].shape
            else array
        )
        for name, array in batch.items()
    }
    with torch.no_grad():
        short, long = module(batch), module(longer)
    _.same("padding", "pooled", long.pooled, short.pooled)
    _.same(
        "padding",
        "tokens",
        (long.tokens * long.mask.unsqueeze(-1))[:, : short.tokens.shape[1]],
        short.tokens * short.mask.unsqueeze(-1),
    )
    assert not bool(long.mask[:, short.mask.shape[1] :].any()), (
        "padding: tokens made of padding must be masked"
    )


def deterministic(encoder: Encoder, features: FeatureSpecs) -> None:
    """One seed, one module, one answer, in training as well."""
    outs = []
    for _run in range(2):
        module = _module(encoder, features)
        with seeded(3):
            outs.append(module(fake_batch(features, ROWS)))
    _.same_encoded("deterministic", outs[0], outs[1], tolerance=0)


def saved(encoder: Encoder, features: FeatureSpecs) -> None:
    """Saved weights loaded into another module give the same answers."""
    module = _module(encoder, features).eval()
    batch = fake_batch(features, ROWS)
    with torch.no_grad():
        _.same_encoded(
            "saved",
            _.reborn(lambda: encoder.build(features, None), module)(batch),
            module(batch),
            tolerance=0,
        )


def missing_is_told(encoder: Encoder, features: FeatureSpecs) -> None:
    """Whether a value is missing changes what is said of it; what fills its place does not."""
    flagged = [name for name, arrays in features.items() if "missing" in arrays]
    if not flagged:
        return
    module = _module(encoder, features).eval()
    batch = fake_batch(features, ROWS)
    there = {
        name: torch.zeros_like(a) if name.endswith(".missing") else a
        for name, a in batch.items()
    }
    gone = {
        name: torch.ones_like(a) if name.endswith(".missing") else a
        for name, a in batch.items()
    }
    filled = {
        name: a if name.endswith(".missing") else torch.zeros_like(a)
        for name, a in gone.items()
    }
    with torch.no_grad():
        assert not torch.allclose(module(there).pooled, module(gone).pooled), (
            "missing_is_told: a missing value is encoded like one that is there"
        )
        _.same("missing_is_told", "pooled", module(gone).pooled, module(filled).pooled)


def refuses(encoder: Encoder, features: FeatureSpecs) -> None:
    """`reads` says why in words, and never fails, for every feature it cannot encode."""
    for word, group in _.inputs().items():
        for arrays in group.values():
            why = encoder.reads(arrays)
            assert why is None or (isinstance(why, str) and len(why) > 10), (
                f"refuses: `reads` must say in a sentence why it cannot read a {word}; it said {why!r}"
            )


def declared(encoder: Encoder, features: FeatureSpecs) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", encoder)


def light(encoder: Encoder, features: FeatureSpecs) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", encoder)


LAWS: tuple[Law, ...] = (
    shapes,
    gradients,
    rows_alone,
    padding,
    deterministic,
    saved,
    missing_is_told,
    refuses,
    declared,
    light,
)


def check(encoder: Encoder, features: FeatureSpecs | None = None) -> None:
    """Judge one encoder by every law.

    Raises:
        AssertionError: it breaks a law, or reads none of the standard features and none were given.
    """
    groups = readable(encoder) if features is None else {"given": features}
    assert groups, (
        f"the encoder {encoder.type!r} reads none of {', '.join(_.inputs())}; give `features` that it reads"
    )
    for group in groups.values():
        for law in LAWS:
            law(encoder, group)
