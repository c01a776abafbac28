"""The network of a recipe, built from the specs of its features.

- Inputs with an equal encoder declaration and equal specs are encoded by one module where the encoder allows
  it (`together`).
- Every module is initialised from a seed of its own, derived by its name: one more input shifts nobody else's
  numbers, and the caller's random state is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from torch import nn

from penstock.contracts.learn import Combiner, Decoder, Encoder, SharingCombiner
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem
from penstock.core.identity import canonical, derive_seed
from penstock.model.choices import (
    Encoding,
    combiner_of,
    decoders_of_one,
    encoders_of,
    ensemble_of,
    raise_any,
)
from penstock.model.ensemble import Ensemble, MemberHeads
from penstock.model.network import Network, module_key
from penstock.model.own import build_own
from penstock.model.seeding import seeded
from penstock.model.targets import target_specs
from penstock.recipe.schema import Model, OwnModel, Recipe

Chosen = Mapping[str, tuple[Encoder, tuple[str, ...]]]
"""By input, its encoder and the path in the recipe that chose it."""


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
    # Asked first: without features none of the checks below means anything.
    lacking = [side for side in ("inputs", "targets") if not getattr(encoding, side)]
    raise_any(
        recipe,
        [
            Problem((side,), "needs at least one feature, to train a model")
            for side in lacking
        ],
    )
    inputs, targets = encoding.specs("inputs"), target_specs(recipe, encoding)
    decoders = decoders_of_one(recipe, encoding)
    problems = _unreadable_targets(recipe, decoders, targets)
    if isinstance(recipe.model, OwnModel):
        raise_any(recipe, problems + _generated_targets(decoders))
        return build_own(recipe, recipe.model, inputs, targets, decoders, seed=seed)

    chosen = encoders_of(recipe, encoding)
    problems += _unreadable_inputs(chosen, inputs)
    combiner = combiner_of(recipe, decoders)
    ensemble = ensemble_of(recipe)
    if ensemble is not None and ensemble.share:
        problems += _unshared(combiner)
    raise_any(recipe, problems)
    if ensemble is None or ensemble.share:
        return _build_one(recipe, encoding, chosen, seed)
    return Ensemble(
        [
            _build_one(recipe, encoding, chosen, derive_seed(seed, "member", i))
            for i in range(ensemble.members)
        ]
    )


def _build_one(recipe: Recipe, encoding: Encoding, chosen: Chosen, seed: int) -> Network:
    """One network, whose members share weights where the recipe says so."""
    inputs, targets = encoding.specs("inputs"), target_specs(recipe, encoding)
    decoders = decoders_of_one(recipe, encoding)
    combiner = combiner_of(recipe, decoders)
    encoders, encoded = _build_encoders(recipe, combiner, chosen, inputs, seed)
    ensemble = ensemble_of(recipe)
    members = ensemble.members if ensemble is not None and ensemble.share else None
    with seeded(seed, "model", "combiner"):
        combined = (
            combiner.build_members(list(encoders.values()), members)
            if members is not None and isinstance(combiner, SharingCombiner)
            else combiner.build(list(encoders.values()))
        )
    # Of each labelled input, the encoder whose steps a decoder reads.
    step_encoders = _step_encoders(encoding, encoded)
    heads: dict[str, nn.Module] = {}
    for name, decoder in decoders.items():
        key = step_encoders.get(name)
        build = partial(
            _build_head,
            decoder,
            targets[name],
            combined,
            of_steps=None if key is None else encoders[key],
        )
        with seeded(seed, "model", "decoders", name):
            heads[name] = (
                build()
                if members is None
                else MemberHeads([build() for _ in range(members)])
            )
    forced = {
        name: list(targets[name])
        for name, decoder in decoders.items()
        if decoder.teacher_forced
    }
    return Network(
        encoders,
        combined,
        heads,
        encoded=encoded,
        step_encoders=step_encoders,
        teacher_forced=forced,
    )


def _build_head(
    decoder: Decoder,
    spec: Mapping[str, TensorSpec],
    combined: nn.Module,
    *,
    of_steps: nn.Module | None,
) -> nn.Module:
    """The head of a target; `of_steps` is the encoder of the input whose steps it labels."""
    if of_steps is None:
        return decoder.build_on(spec, combined)
    # Each step's token has the row behind it (see `network`), so the widths add up.
    width = cast(int, of_steps.width) + cast(int, combined.width)
    return decoder.build(spec, width)


def _build_encoders(
    recipe: Recipe, combiner: Combiner, chosen: Chosen, inputs: FeatureSpecs, seed: int
) -> tuple[dict[str, nn.Module], dict[str, list[str]]]:
    """The encoders by key, and by the same key the inputs that each encodes."""
    # Width of the tokens that the combiner needs, or None where any will do.
    width = combiner.token_width()
    encoders: dict[str, nn.Module] = {}
    encoded: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for key, encoder, names in _groups(
        inputs, {name: encoder for name, (encoder, _) in chosen.items()}
    ):
        with seeded(seed, "model", "encoders", key):
            module = encoder.build({name: inputs[name] for name in names}, width)
        encoders[key], encoded[key] = module, names
        if width is not None and module.width != width:
            # One path often chose the encoder of many inputs: it is named once.
            problems += [
                Problem(
                    path,
                    f"gives tokens of width {module.width}; the combiner {combiner.type!r} needs {width}. Set"
                    " one of the two to the other's.",
                )
                for path in dict.fromkeys(chosen[name][1] for name in names)
            ]
    raise_any(recipe, problems)
    return encoders, encoded


def _step_encoders(
    encoding: Encoding, encoded: Mapping[str, list[str]]
) -> dict[str, str]:
    """By target that labels an input's steps, the encoder of that input.

    Only of an input that is encoded alone: tokens of several inputs have no steps that line up with labels.
    """
    # An encoder for several inputs mixes their tokens, so none of them counts.
    alone = {names[0]: key for key, names in encoded.items() if len(names) == 1}
    labelled = {
        name: feature.labels_steps_of() for name, feature in encoding.targets.items()
    }
    return {
        name: alone[of] for name, of in labelled.items() if of is not None and of in alone
    }


def _groups(
    specs: FeatureSpecs, encoders: Mapping[str, Encoder]
) -> list[tuple[str, Encoder, list[str]]]:
    """(module name, encoder, features): one group for features whose encoder allows it and whose declarations
    and shapes are equal.
    """
    groups: dict[str, list[str]] = {}
    for name, encoder in encoders.items():
        shape = [
            [array, spec.dtype, list(spec.shape), spec.role]
            for array, spec in specs[name].items()
        ]
        # With its name where the encoder reads one feature only, so that no group
        # forms.
        alike = canonical([encoder.to_dict(), shape, None if encoder.together else name])
        groups.setdefault(alike, []).append(name)
    named: list[tuple[str, Encoder, list[str]]] = []
    uses: dict[str, int] = {}
    for names in groups.values():
        encoder = encoders[names[0]]
        word = encoder.type if encoder.together else f"{encoder.type}:{names[0]}"
        uses[word] = uses.get(word, 0) + 1
        # `number`, then `number#2`: the first keeps its plain name, and so its weights, when a second comes.
        key = module_key(word if uses[word] == 1 else f"{word}#{uses[word]}")
        named.append((key, encoder, names))
    return named


# -- problems ------------------------------------------------------------------------------------------------


def _unreadable_targets(
    recipe: Recipe, decoders: Mapping[str, Decoder], targets: FeatureSpecs
) -> list[Problem]:
    named = recipe.model.decoders if isinstance(recipe.model, Model) else {}
    return [
        Problem(("model", "decoders", name) if name in named else ("targets", name), why)
        for name, decoder in decoders.items()
        if (why := decoder.reads(targets[name]))
    ]


def _unreadable_inputs(chosen: Chosen, inputs: FeatureSpecs) -> list[Problem]:
    problems: list[Problem] = []
    for name, (encoder, path) in chosen.items():
        if why := encoder.reads(inputs[name]):
            # `<category>` speaks of many inputs, so the sentence names the one.
            is_named = path[0] == "inputs" or path[-1] == name
            problems.append(
                Problem(path, why if is_named else f"{why} (the input {name!r})")
            )
    return problems


def _unshared(combiner: Combiner) -> list[Problem]:
    if isinstance(combiner, SharingCombiner):
        return []
    return [
        Problem(
            ("model", "ensemble", "share"),
            f"needs a combiner whose weights members can share: mlp or residual. This model has"
            f" {combiner.type!r}. Leave `share` out, so that each member is a network of its own, or set"
            " `model.combiner`",
        )
    ]


def _generated_targets(decoders: Mapping[str, Decoder]) -> list[Problem]:
    return [
        Problem(
            ("targets", name),
            f"is generated by the decoder {decoder.type!r}, which your own module cannot"
            " replace",
        )
        for name, decoder in decoders.items()
        if decoder.teacher_forced
    ]
