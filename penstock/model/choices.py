"""Which encoder, combiner and decoder a recipe means for each feature: what it names, or else a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, cast

from penstock.contracts.features import Feature, SequenceFeature, TargetFeature
from penstock.contracts.learn import Combiner, Decoder, Encoder
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import Problem, RecipeError
from penstock.model.ensemble import EnsembleDecoder
from penstock.recipe.model import Ensemble as EnsembleWords
from penstock.recipe.schema import Model, Recipe


class Encoding(Protocol):
    """What a model needs to know of the data: its features, and the specs of their arrays."""

    @property
    def inputs(self) -> Mapping[str, Feature]:
        """The input features by name."""

    @property
    def targets(self) -> Mapping[str, TargetFeature]:
        """The target features by name."""

    def specs(self, side: Literal["inputs", "targets"]) -> FeatureSpecs:
        """By feature and array, what the arrays look like."""


def decoders_of(recipe: Recipe, encoding: Encoding) -> dict[str, Decoder]:
    """By target, the decoder that the recipe names, or the one its feature asks for; of an ensemble, one that
    reads the raws of all members.
    """
    chosen = decoders_of_one(recipe, encoding)
    ensemble = ensemble_of(recipe)
    if ensemble is None:
        return chosen
    return {
        # It does all that a decoder does, and is no choice that a recipe could name.
        name: cast(Decoder, EnsembleDecoder(decoder, members=ensemble.members))
        for name, decoder in chosen.items()
    }


def decoders_of_one(recipe: Recipe, encoding: Encoding) -> dict[str, Decoder]:
    """By target, the decoder of a single network."""
    named = recipe.model.decoders if isinstance(recipe.model, Model) else {}
    return {
        name: named.get(name) or Decoder.find(feature.decoder)()
        for name, feature in encoding.targets.items()
    }


def separate_members(recipe: Recipe) -> int | None:
    """How many members an ensemble has that share no weights; None where there is no such ensemble."""
    ensemble = ensemble_of(recipe)
    return None if ensemble is None or ensemble.share else ensemble.members


def ensemble_of(recipe: Recipe) -> EnsembleWords | None:
    """What the recipe says of an ensemble; None where there is one network."""
    return recipe.model.ensemble if isinstance(recipe.model, Model) else None


def encoders_of(
    recipe: Recipe, encoding: Encoding
) -> dict[str, tuple[Encoder, tuple[str, ...]]]:
    """By input, its encoder and the path in the recipe that chose it: by name, by `<feature type>`, or by the
    feature itself.
    """
    named = recipe.model.encoders if isinstance(recipe.model, Model) else {}
    chosen: dict[str, tuple[Encoder, tuple[str, ...]]] = {}
    specs = encoding.specs("inputs")
    of_steps = any(isinstance(t, SequenceFeature) for t in encoding.targets.values())
    for name, feature in encoding.inputs.items():
        # A name is more exact than a type, and goes first.
        word = next((word for word in (name, f"<{feature.type}>") if word in named), None)
        if word is not None:
            chosen[name] = (named[word].at(recipe.base), ("model", "encoders", word))
        else:
            # Who answers steps reads the steps of the encoder, for which the usual one is meant.
            kind = feature.encoder if of_steps else feature.encoder_for(specs[name])
            chosen[name] = (Encoder.find(kind)(), ("inputs", name))
    return chosen


def combiner_of(recipe: Recipe, decoders: Mapping[str, Decoder]) -> Combiner:
    """The combiner that the recipe names, or the one that all its decoders ask for; `mlp` where they ask for
    different ones.
    """
    if isinstance(recipe.model, Model) and recipe.model.combiner is not None:
        return recipe.model.combiner
    # A set: where all ask for the same one, it has one element.
    asked = {decoder.combiner for decoder in decoders.values()}
    return Combiner.load(asked.pop() if len(asked) == 1 else "mlp")


def raise_any(recipe: Recipe, problems: list[Problem]) -> None:
    """Refuse a recipe for its problems, all at once; nothing where there are none.

    Raises:
        RecipeError: there are some.
    """
    if problems:
        raise RecipeError.of(
            problems, where=f"the recipe {recipe.name}" if recipe.name else "the recipe"
        )
