"""What the laws of the learning families share: declarations worth judging, features to judge by, ways to
compare.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.contracts.part import Part
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.model import seeded

TOLERANCE = 1e-5
WIDTH = 8
"""Of the tokens in the laws: small, and a multiple of what heads divide by."""


def declarations(kind: type[Any]) -> list[Any]:
    """The part with its defaults, and for each option that is a word or a yes-or-no, the part with each other
    choice.

    So every branch that a recipe can name is judged, and an author writes no specimens. A part with a word
    that has no default (a folder) declares nothing by itself: its author judges one.
    """
    if any(field.is_required() for field in kind.model_fields.values()):
        return []
    variants = [kind()]
    for name, field in kind.model_fields.items():
        choices: Sequence[Any] = (
            get_args(field.annotation)
            if get_origin(field.annotation) is Literal
            else (True, False)
            if field.annotation is bool
            else ()
        )
        variants += [
            kind(**{field.alias or name: choice})
            for choice in choices
            if choice != field.default
        ]
    return variants


def inputs() -> dict[str, FeatureSpecs]:
    """Groups of input features with equal arrays, as the shelf's features describe them: number, binary,
    category, timestamp, vector, series, image, text.
    """
    return {
        "number": {
            "age": _number([-1.0, 0.0, 1.5]),
            "fare.paid": _number([-2.0, -0.5, 0.0, 0.25, 2.0]),
            "type": _number([0.5]),
        },
        "binary": {
            "smokes": {
                "value": TensorSpec("float32", role="values"),
                "missing": _MISSING,
            },
            "drinks": {
                "value": TensorSpec("float32", role="values"),
                "missing": _MISSING,
            },
        },
        "category": {
            "job": {"index": TensorSpec("int64", role="index", cardinality=7)},
            "town": {"index": TensorSpec("int64", role="index", cardinality=3)},
        },
        "timestamp": {"since": _times(), "until": _times()},
        "vector": {
            "signal": {
                "value": TensorSpec("float32", (6,), "values", axes=("component",)),
                "missing": _MISSING,
            }
        },
        "series": {"past": _series()},
        "text": {"bio": _words()},
        "image": {"photo": _pixels()},
        "grams": {
            "bio": {
                **_words(),
                "grams": TensorSpec(
                    "int64", (None,), "index", axes=("gram",), cardinality=64
                ),
            }
        },
    }


_MISSING = TensorSpec("float32", role="mask")


def _number(edges: list[float]) -> dict[str, TensorSpec]:
    return {
        "value": TensorSpec(
            "float32", role="values", facts={"edges": edges, "mean": 3.0, "std": 2.0}
        ),
        "missing": _MISSING,
    }


def _times() -> dict[str, TensorSpec]:
    return {
        "cyclic": TensorSpec("float32", (4,), "values", axes=("part",)),
        "since": TensorSpec("float32", role="values"),
        "missing": _MISSING,
    }


def _words() -> dict[str, TensorSpec]:
    return {
        "tokens": TensorSpec("int64", (None,), "index", axes=("time",), cardinality=40),
        "mask": TensorSpec("bool", (None,), "mask", axes=("time",)),
    }


def _series() -> dict[str, TensorSpec]:
    facts = {
        "variables": ["a", "b", "c"],
        "mean": [0.0, 1.0, -2.0],
        "std": [1.0, 3.0, 0.5],
        "window": 12,
    }
    return {
        "values": TensorSpec(
            "float32", (12, 3), "values", axes=("time", "variable"), facts=facts
        ),
        "mask": TensorSpec("bool", (12,), "mask", axes=("time",)),
    }


def _pixels() -> dict[str, TensorSpec]:
    facts = {"mean": [120.0, 90.0, 100.0], "std": [60.0, 0.0, 50.0]}
    axes = ("channel", "height", "width")
    return {
        "pixels": TensorSpec("uint8", (3, 10, 13), "pixels", axes=axes, facts=facts),
        "missing": _MISSING,
    }


def targets() -> dict[str, dict[str, TensorSpec]]:
    """Target features' arrays, as the shelf's features describe them."""
    return {
        "number": {
            "value": TensorSpec(
                "float32", role="target", facts={"mean": 30.0, "std": 12.0}
            )
        },
        "binary": {
            "label": TensorSpec(
                "float32",
                role="target",
                facts={"classes": ["no", "yes"], "counts": [70, 30]},
            )
        },
        "category": {
            "index": TensorSpec(
                "int64",
                role="target",
                cardinality=4,
                facts={"classes": ["a", "b", "c", "d"], "counts": [40, 30, 20, 10]},
            )
        },
        "series": forecast(),
    }


def forecast(**facts: Any) -> dict[str, TensorSpec]:
    shape, axes = (4, 3), ("time", "variable")
    known: dict[str, Any] = {
        "variables": ["a", "b", "c"],
        "mean": [0.0, 1.0, -2.0],
        "std": [1.0, 3.0, 0.5],
        **facts,
    }
    return {
        "values": TensorSpec("float32", shape, "target", axes=axes, facts=known),
        "present": TensorSpec("float32", shape, "mask", axes=axes),
    }


def built(build: Callable[[], nn.Module], *, seed: int = 0) -> nn.Module:
    """A module initialised from `seed` alone."""
    with seeded(seed, "laws"):
        return build()


def encoded(
    rows: int, tokens: int, width: int, *, seed: int = 0, padding: int = 0
) -> Encoded:
    """An `Encoded` of chance whose last `padding` tokens are not there."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, tokens, width, generator=chance)
    mask = torch.ones(rows, tokens, dtype=torch.bool)
    mask[:, tokens - padding :] = False
    return Encoded(values, mask, torch.randn(rows, width, generator=chance))


def same(
    law: str, what: str, answer: Tensor, wanted: Tensor, *, tolerance: float = TOLERANCE
) -> None:
    """Equal shapes, and nowhere further apart than `tolerance`."""
    assert answer.shape == wanted.shape, (
        f"{law}: {what} has shape {list(answer.shape)}; expected {list(wanted.shape)}"
    )
    apart = (
        float((answer.detach().double() - wanted.detach().double()).abs().max())
        if answer.numel()
        else 0.0
    )
    assert apart <= tolerance, (
        f"{law}: {what} differs by {apart:.3g}; at most {tolerance:g} is allowed"
    )


def same_encoded(
    law: str, answer: Encoded, wanted: Encoded, *, tolerance: float = TOLERANCE
) -> None:
    for name, one, other in zip(Encoded._fields, answer, wanted, strict=True):
        same(law, name, one, other, tolerance=tolerance)


def moved(law: str, module: nn.Module, loss: Tensor) -> None:
    """A gradient that is finite and not zero throughout reaches every parameter."""
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{law}: no gradient reaches {name!r}"
        assert bool(torch.isfinite(parameter.grad).all()), (
            f"{law}: the gradient of {name!r} is not finite"
        )
        assert bool((parameter.grad != 0).any()), (
            f"{law}: the gradient of {name!r} is zero everywhere"
        )


def projected(*tensors: Tensor) -> Tensor:
    """One number that depends on every entry, smoothly and unevenly: something to differentiate."""
    total = torch.zeros(())
    for i, tensor in enumerate(tensors):
        total = (
            total
            + (
                tensor
                * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i))
            ).sum()
        )
    return total


def reborn(build: Callable[[], nn.Module], module: nn.Module) -> nn.Module:
    """A module built from another seed that has taken over the first one's weights as a checkpoint keeps
    them.
    """
    import safetensors.torch

    other = built(build, seed=1)
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    other.load_state_dict(
        safetensors.torch.load(safetensors.torch.save(weights)), strict=True
    )
    return other.eval()


def declared_again(law: str, part: Part) -> None:
    """Declared → loaded → declared is the identity."""
    again = type(part).family().load(part.to_dict())
    assert again == part, (
        f"{law}: loaded from its own declaration it is {again!r}; expected {part!r}"
    )
    assert again.to_dict() == part.to_dict(), (
        f"{law}: declares {again.to_dict()}; expected {part.to_dict()}"
    )


def light_head(law: str, part: Part) -> None:
    """The head of the part's file imports no torch: recipes, plans and schemas stay light."""
    tree = ast.parse(inspect.getsource(sys.modules[type(part).__module__]))
    for node in tree.body:
        names = (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        heavy = [
            n for n in names if n.split(".")[0] == "torch" or n.startswith("penstock.nn")
        ]
        assert not heavy, (
            f"{law}: the head of {type(part).__module__} imports {', '.join(heavy)}; import it inside `build`"
        )


def rows_of(batch: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: array[rows] for name, array in batch.items()}
