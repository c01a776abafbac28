"""Encoders → combiner → decoders, assembled from specs; or the user's own `nn.Module` in their place.

What comes in is a recipe and an encoding (anything with features and their `TensorSpec`s); what comes out is
a network with `forward(batch) → {target: raw}` and, for export, a program with `forward(*arrays) → answers`.
This room knows no rows, no files and no task.

- Inputs with an equal encoder declaration and equal specs are encoded by one module where the encoder allows
  it (`together`).
- Every module is initialised from a seed of its own, derived by its name: one more input shifts nobody else's
  numbers, and the caller's random state is left alone.
- A module is called by its feature's name (`encoders.text:bio`), so that `train.from` finds it again in
  another model.
- Class weights (`train.class_weights`) become the fact `weights` of the target's spec, which decoders read in
  their loss: whoever calls `Objective.phases` passes `target_specs(recipe, encoding)`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from penstock.contracts.data import Feature
from penstock.contracts.learn import Combiner, Decoder, Encoded, Encoder, model_inputs
from penstock.contracts.part import foreign_code_allowed
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem, RecipeError
from penstock.core.identity import canonical, derive_seed
from penstock.core.near import Hints, did_you_mean
from penstock.recipe.schema import Model, OwnModel, Recipe


class Encoding(Protocol):
    """What a model needs to know of the data: its features, and the specs of their arrays."""

    @property
    def inputs(self) -> Mapping[str, Feature]: ...
    @property
    def targets(self) -> Mapping[str, Feature]: ...
    def specs(self, side: Literal["inputs", "targets"]) -> FeatureSpecs: ...


# -- the network ---------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Encoders → combiner → decoders.

    `forward(batch) → {target: raw}`; `batch` has `<feature>.<array>` for each input.
    """

    encoded: dict[str, list[str]]
    """The inputs that each encoder encodes."""
    over: dict[str, str]
    """By target that labels an input's steps, the encoder of that input: its decoder gets that encoder's
    tokens, each with what the combiner says of the whole row behind it.
    """

    told: dict[str, list[str]]
    """By target whose decoder is told the truth in training, the arrays of it."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        combiner: nn.Module,
        decoders: Mapping[str, nn.Module],
        encoded: Mapping[str, list[str]],
        over: Mapping[str, str] | None = None,
        told: Mapping[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        self.over = dict(over or {})
        self.told = dict(told or {})
        self.encoded = dict(encoded)
        self.encoders = nn.ModuleDict(encoders)
        self.combiner = combiner
        self.decoders = nn.ModuleDict({_key(name): decoder for name, decoder in decoders.items()})
        self.targets = list(decoders)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = {key: encoder(batch) for key, encoder in self.encoders.items()}
        combined: Encoded = self.combiner(list(parts.values()))
        return {
            name: decoder(
                _steps(parts[self.over[name]], combined) if name in self.over else combined,
                self._truth(name, batch),
            )
            for name, decoder in zip(self.targets, self.decoders.values(), strict=True)
        }

    def _truth(self, name: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        arrays = self.told.get(name, ())
        found = {array: batch[f"{name}.{array}"] for array in arrays if f"{name}.{array}" in batch}
        return found if found and len(found) == len(arrays) else None


def _steps(one: Encoded, whole: Encoded) -> Encoded:
    """One input's tokens, each with what is known of the row."""
    known = whole.pooled.unsqueeze(1).expand(-1, one.tokens.shape[1], -1)
    return Encoded(torch.cat([one.tokens, known], dim=-1), one.mask, whole.pooled)


class OwnNetwork(nn.Module):
    """The user's module, given the arrays of the inputs and nothing else: never a target."""

    def __init__(self, module: nn.Module, inputs: list[str]) -> None:
        super().__init__()
        self.module = module
        self.inputs = inputs

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.module({name: batch[name] for name in self.inputs})
        return out


def decoders_of(recipe: Recipe, encoding: Encoding) -> dict[str, Decoder]:
    """By target, the decoder that the recipe names, or the one its feature asks for."""
    named = recipe.model.decoders if isinstance(recipe.model, Model) else {}
    return {
        name: named.get(name) or Decoder.find(feature.decoder)() for name, feature in encoding.targets.items()
    }


def encoders_of(recipe: Recipe, encoding: Encoding) -> dict[str, tuple[Encoder, tuple[str, ...]]]:
    """By input, its encoder and the path in the recipe that chose it: by name, by `<feature type>`, or by the
    feature itself.
    """
    named = recipe.model.encoders if isinstance(recipe.model, Model) else {}
    found: dict[str, tuple[Encoder, tuple[str, ...]]] = {}
    for name, feature in encoding.inputs.items():
        for word in (name, f"<{feature.type}>"):
            if word in named:
                found[name] = (named[word].at(recipe.base), ("model", "encoders", word))
                break
        else:
            found[name] = (Encoder.find(feature.encoder)(), ("inputs", name))
    return found


def combiner_of(recipe: Recipe, decoders: Mapping[str, Decoder]) -> Combiner:
    """The combiner that the recipe names, or the one that all its decoders ask for; `mlp` where they ask for
    different ones.
    """
    if isinstance(recipe.model, Model) and recipe.model.combiner is not None:
        return recipe.model.combiner
    asked = {decoder.combiner for decoder in decoders.values()}
    return Combiner.load(asked.pop() if len(asked) == 1 else "mlp")


def target_specs(recipe: Recipe, encoding: Encoding) -> FeatureSpecs:
    """The targets' specs, with the fact `weights` (one a class, in the order of `classes`) where the recipe
    weighs classes.

    `balanced` weighs class c of K by rows / (K · rows of c), so that the average row weighs 1.

    Raises:
        RecipeError: weights for a target without classes, or for a class that is not there.
    """
    specs = {name: dict(arrays) for name, arrays in encoding.specs("targets").items()}
    problems: list[Problem] = []
    for name, wanted in recipe.train.class_weights.items():
        path: tuple[str, ...] = ("train", "class_weights", name)
        array = next((a for a, spec in specs.get(name, {}).items() if spec.facts.get("classes")), None)
        if array is None:
            problems.append(
                Problem(path, "has no classes to weigh: only targets of type binary or category have")
            )
            continue
        spec = specs[name][array]
        classes = [str(c) for c in spec.facts["classes"]]
        if isinstance(wanted, str):
            counts = [max(float(c), 1.0) for c in spec.facts["counts"]]
            weights = [sum(counts) / (len(counts) * c) for c in counts]
        else:
            hint, known = Hints(classes), set(classes)
            problems += [
                Problem(
                    (*path, c),
                    f"is no class of {name!r}.{hint(c)} Known:"
                    f" {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}.",
                )
                for c in wanted
                if c not in known
            ]
            problems += [
                Problem((*path, c), f"must not be negative; found {w:g}") for c, w in wanted.items() if w < 0
            ]
            weights = [float(wanted.get(c, 1.0)) for c in classes]
        specs[name][array] = replace(spec, facts={**spec.facts, "weights": weights})
    if problems:
        raise RecipeError.of(problems, where=_where(recipe))
    return specs


def build_network(recipe: Recipe, encoding: Encoding, *, seed: int) -> nn.Module:
    """The network of a recipe, initialised from `seed` alone.

    Args:
        recipe: what was declared.
        encoding: fitted; its specs decide the shapes.
        seed: the recipe's seed; the caller's random state is neither read nor moved.

    Raises:
        RecipeError: an encoder or decoder that cannot read its feature, widths that do not fit, or a module
            of the user's that cannot be made or answers wrongly; every problem at once, with its path.
    """
    if not encoding.inputs or not encoding.targets:
        lacking = [side for side in ("inputs", "targets") if not getattr(encoding, side)]
        raise RecipeError.of(
            [Problem((side,), "needs at least one feature, to train a model") for side in lacking],
            where=_where(recipe),
        )
    targets = target_specs(recipe, encoding)
    decoders = decoders_of(recipe, encoding)
    problems = _unreadable_targets(recipe, decoders, targets)
    if isinstance(recipe.model, OwnModel):
        problems += [
            Problem(
                ("targets", name),
                f"is generated by the decoder {decoder.type!r}, which a module of your own cannot stand"
                " in for",
            )
            for name, decoder in decoders.items()
            if decoder.told
        ]
        if problems:
            raise RecipeError.of(problems, where=_where(recipe))
        return _own(recipe, recipe.model, encoding.specs("inputs"), targets, decoders, seed)

    inputs = encoding.specs("inputs")
    chosen = encoders_of(recipe, encoding)
    for name, (encoder, path) in chosen.items():
        if why := encoder.reads(inputs[name]):
            problems.append(
                Problem(
                    path, why if path[0] == "inputs" or path[-1] == name else f"{why} (the input {name!r})"
                )
            )
    if problems:
        raise RecipeError.of(problems, where=_where(recipe))

    combiner = combiner_of(recipe, decoders)
    width = combiner.token_width()
    encoders: dict[str, nn.Module] = {}
    encoded: dict[str, list[str]] = {}
    for key, encoder, names in _groups(inputs, {name: encoder for name, (encoder, _) in chosen.items()}):
        with seeded(seed, "model", "encoders", key):
            module = encoder.build({name: inputs[name] for name in names}, width)
        encoders[key], encoded[key] = module, names
        if width is not None and module.width != width:
            paths = dict.fromkeys(chosen[name][1] for name in names)
            problems += [
                Problem(
                    path,
                    f"gives tokens of width {module.width}; the combiner {combiner.type!r} needs {width}. Set"
                    " one of the two to the other's.",
                )
                for path in paths
            ]
    if problems:
        raise RecipeError.of(problems, where=_where(recipe))
    with seeded(seed, "model", "combiner"):
        combined = combiner.build(list(encoders.values()))
    heads: dict[str, nn.Module] = {}
    alone = {names[0]: key for key, names in encoded.items() if len(names) == 1}
    over = {
        name: alone[of]
        for name, feature in encoding.targets.items()
        if (of := feature.labels_steps_of()) is not None and of in alone
    }
    for name, decoder in decoders.items():
        with seeded(seed, "model", "decoders", name):
            if name in over:
                step_width = cast(int, encoders[over[name]].width)
                heads[name] = decoder.build(targets[name], step_width + cast(int, combined.width))
            else:
                heads[name] = decoder.build_on(targets[name], combined)
    told = {name: list(targets[name]) for name, decoder in decoders.items() if decoder.told}
    return Network(encoders, combined, heads, encoded, over, told)


def _unreadable_targets(
    recipe: Recipe, decoders: Mapping[str, Decoder], targets: FeatureSpecs
) -> list[Problem]:
    named = recipe.model.decoders if isinstance(recipe.model, Model) else {}
    return [
        Problem(("model", "decoders", name) if name in named else ("targets", name), why)
        for name, decoder in decoders.items()
        if (why := decoder.reads(targets[name]))
    ]


def _groups(specs: FeatureSpecs, encoders: Mapping[str, Encoder]) -> list[tuple[str, Encoder, list[str]]]:
    """(module name, encoder, features): one group for features whose encoder allows it and whose declarations
    and shapes are equal.
    """
    groups: dict[str, list[str]] = {}
    for name, encoder in encoders.items():
        shape = [[array, spec.dtype, list(spec.shape), spec.role] for array, spec in specs[name].items()]
        groups.setdefault(
            canonical([encoder.to_dict(), shape, None if encoder.together else name]), []
        ).append(name)
    found: list[tuple[str, Encoder, list[str]]] = []
    taken: dict[str, int] = {}
    for names in groups.values():
        encoder = encoders[names[0]]
        word = encoder.type if encoder.together else f"{encoder.type}:{names[0]}"
        taken[word] = taken.get(word, 0) + 1
        found.append((_key(word if taken[word] == 1 else f"{word}#{taken[word]}"), encoder, names))
    return found


_ESCAPES = str.maketrans({character: f"%{ord(character):02X}" for character in '%."\n\r\0'})


def _key(name: str) -> str:
    """A name that `nn.ModuleDict` takes: no dot, and never one of its own attributes. Neither has it what
    ends the texts that `torch.export` puts such names into.
    """
    return ":" + name.translate(_ESCAPES)


def _where(recipe: Recipe) -> str:
    return f"the recipe {recipe.name}" if recipe.name else "the recipe"


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """torch's random state derived from `seed` by name, within; the caller's again afterwards (CPU: where
    weights are made).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        yield


# -- the user's own module -----------------------------------------------------------------------------------


def _own(
    recipe: Recipe,
    declared: OwnModel,
    inputs: FeatureSpecs,
    targets: FeatureSpecs,
    decoders: Mapping[str, Decoder],
    seed: int,
) -> nn.Module:
    def refuse(text: str, *path: str, cause: BaseException | None = None) -> RecipeError:
        error = RecipeError.of([Problem(("model", *path), text)], where=_where(recipe))
        error.__cause__ = cause
        return error

    if not (foreign_code_allowed() and recipe.is_given):
        raise refuse(
            f"the model {declared.type!r} is code that did not come with Penstock; it is run only with"
            " --trust",
            "type",
        )
    module_name, _, class_name = declared.type.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise refuse(
            f"cannot import {module_name!r}: {error}. Put it beside the recipe, or install its package",
            "type",
            cause=error,
        ) from error
    made = getattr(module, class_name, None)
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        known = [
            n
            for n, v in vars(module).items()
            if inspect.isclass(v) and issubclass(v, nn.Module) and v.__module__ == module.__name__
        ]
        raise refuse(
            f"{module_name!r} has no torch.nn.Module called {class_name!r}.{did_you_mean(class_name, known)}",
            "type",
        )
    signature = inspect.signature(made)
    arguments = {
        name: value
        for name, value in (("specs", inputs), ("targets", targets))
        if name in signature.parameters
    } | declared.arguments
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise refuse(f"{declared.type} takes {signature}; {error}", "arguments", cause=error) from error
    with seeded(seed, "model"):
        try:
            network = OwnNetwork(made(**arguments), model_inputs(inputs))
        except Exception as error:
            raise refuse(
                f"{declared.type} could not be made: {type(error).__name__}: {error}", cause=error
            ) from error
        try:
            raw = _try(network, inputs)
        except Exception as error:
            raise refuse(
                f"{declared.type} failed on a small batch: {type(error).__name__}: {error}", cause=error
            ) from error
    wanted = {name: _raw_shape(decoder, targets[name]) for name, decoder in decoders.items()}
    shown = ", ".join(f"{name!r}: {_shape(shape)}" for name, shape in wanted.items())
    if (
        not isinstance(raw, dict)
        or set(raw) != set(wanted)
        or not all(isinstance(v, Tensor) for v in raw.values())
    ):
        found = (
            f"a dict with {', '.join(map(repr, raw)) or 'nothing'}"
            if isinstance(raw, dict)
            else f"a {type(raw).__name__}"
        )
        raise refuse(
            f"{declared.type} must return a dict of one tensor a target ({shown}); it returned {found}"
        )
    wrong = {
        name: [
            _shape(tuple(raw[name].shape[1:]), rows=raw[name].shape[0] if raw[name].dim() else None),
            raw[name].dtype,
        ]
        for name in wanted
        if tuple(raw[name].shape) != (_ROWS, *wanted[name]) or not raw[name].is_floating_point()
    }
    if wrong:
        found = ", ".join(
            f"{name!r}: {shape} of {str(dtype).removeprefix('torch.')}"
            for name, (shape, dtype) in wrong.items()
        )
        raise refuse(
            f"{declared.type} must return float tensors of shape {shown} with B rows; for B = {_ROWS} it"
            f" returned {found}"
        )
    return network


_ROWS = 3


def _try(network: nn.Module, inputs: FeatureSpecs) -> Any:
    network.eval()
    with torch.no_grad():
        raw = network(fake_batch(inputs, _ROWS))
    network.train()
    return raw


def _raw_shape(decoder: Decoder, spec: Mapping[str, TensorSpec]) -> tuple[int, ...]:
    """The shape of a decoder's raw tensor, without the batch axis, found by trying it."""
    with seeded(0):
        head = decoder.build(spec, 2)
        with torch.no_grad():
            return tuple(
                head(
                    Encoded(
                        torch.zeros(_ROWS, 1, 2),
                        torch.ones(_ROWS, 1, dtype=torch.bool),
                        torch.zeros(_ROWS, 2),
                    )
                ).shape[1:]
            )


def _shape(shape: tuple[int, ...], *, rows: int | str | None = "B") -> str:
    return f"[{', '.join(map(str, ([rows] if rows is not None else []) + list(shape)))}]"


# -- for export, and for trying out --------------------------------------------------------------------------


class Program(nn.Module):
    """A trained network and its decoders' answers as one function of arrays, which is what a bundle ships.

    `forward(*arrays)` takes the inputs in the order of `input_names` (`<feature>.<array>`) and returns a
    tuple in the order of `output_names` (`<target>.<answer>`). For `torch.onnx.export(program,
    program.example(), dynamic_shapes=program.dynamic_shapes(), dynamo=True, …)`.
    """

    def __init__(self, network: nn.Module, decoders: Mapping[str, Decoder], encoding: Encoding) -> None:
        super().__init__()
        self.network = network
        self._decoders = dict(decoders)
        self._inputs = encoding.specs("inputs")
        self._targets = encoding.specs("targets")
        self.input_names = model_inputs(self._inputs)
        self.eval()
        with torch.no_grad():
            self.output_names = list(
                self._answers(self.network(dict(zip(self.input_names, self.example(), strict=True))))
            )

    def _answers(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{name}.{answer}": value
            for name, decoder in self._decoders.items()
            for answer, value in decoder.answer(raw[name], self._targets[name]).items()
        }

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        return self.answers(dict(zip(self.input_names, arrays, strict=True)))

    def answers(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The answers to a batch by `<feature>.<array>`, in the order of `output_names`."""
        return tuple(self._answers(self.network(batch)).values())

    def specs(self) -> FeatureSpecs:
        """The inputs' arrays."""
        return self._inputs

    def readers(self) -> dict[str, str]:
        """By input, the encoder that reads it; none where the network is the user's module."""
        encoded = getattr(self.network, "encoded", {})
        return {name: key for key, names in encoded.items() for name in names}

    def example(self, rows: int = 3, *, length: int = 5) -> tuple[Tensor, ...]:
        """Arrays to trace with, where the network is; open axes have `length`."""
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        return tuple(array.to(device) for array in fake_batch(self._inputs, rows, length=length).values())

    def dynamic_shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
        """Which axes vary: the batch, and each length that a spec leaves open."""
        from torch.export import Dim

        specs = [spec for arrays in self._inputs.values() for spec in arrays.values()]
        return (
            tuple(
                {
                    0: Dim.DYNAMIC,
                    **{axis + 1: Dim.DYNAMIC for axis, size in enumerate(spec.shape) if size is None},
                }
                for spec in specs
            ),
        )


def fake_batch(specs: FeatureSpecs, rows: int, *, seed: int = 0, length: int = 5) -> dict[str, Tensor]:
    """A batch of chance that holds to `specs`: for trying a model out, for export and for warming up.

    Same seed, same batch.

    Args:
        specs: inputs, targets or both.
        rows: B.
        seed: of the chance.
        length: what open axes get.
    """
    chance = torch.Generator().manual_seed(seed)
    return {
        f"{name}.{array}": _fake(spec, (rows, *(length if n is None else n for n in spec.shape)), chance)
        for name, arrays in specs.items()
        for array, spec in arrays.items()
    }


def _fake(spec: TensorSpec, shape: tuple[int, ...], chance: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    below = (
        spec.cardinality
        or (len(spec.facts["classes"]) if spec.facts.get("classes") else None)
        or {"mask": 2, "pixels": 256}.get(spec.role)
    )
    if below is None and dtype.is_floating_point:
        return torch.randn(shape, generator=chance).to(dtype)
    return torch.randint(below or 2, shape, generator=chance).to(dtype)


def parameter_count(network: nn.Module) -> int:
    """How many numbers training moves."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


__all__ = [
    "Encoding",
    "Network",
    "OwnNetwork",
    "Program",
    "build_network",
    "combiner_of",
    "decoders_of",
    "encoders_of",
    "fake_batch",
    "parameter_count",
    "seeded",
    "target_specs",
]
