"""Words about the model: encoders, a combiner and decoders, or a module of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from penstock.contracts.learn import Combiner, Decoder, Encoder
from penstock.contracts.part import Strict, flatten, mistakes


def _mlp_unless_named(value: Any) -> Any:
    """Take options without a type, as in `combiner: {width: 64}`, for those of the
    usual combiner.
    """
    return (
        {"type": "mlp", **value}
        if isinstance(value, Mapping) and "type" not in value
        else value
    )


class Model(Strict):
    """Encoders → combiner → decoders; each feature has a default, so that none needs to be named."""

    encoders: dict[str, Encoder] = {}
    """By input, or by feature type in angle brackets: `<number>`, to change them all at once."""
    combiner: Annotated[Combiner | None, BeforeValidator(_mlp_unless_named)] = None
    """Unless given, the one that the targets ask for: `variables` where every target is a series, otherwise
    `mlp`.
    """
    decoders: dict[str, Decoder] = {}
    """By target."""


class OwnModel(Strict):
    """A `torch.nn.Module` of the user's: called with the batch (a dict of arrays by name) it returns
    `{target: raw tensor}`.
    """

    type: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:Class`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the class.

    If it takes `specs` or `targets`, it is given the specs of the inputs or targets.
    """


def which_model(value: Any) -> Any:
    """`model` as one of the two records: a mapping with a `type` is a module of the user's own.

    Raises:
        pydantic_core.PydanticCustomError: every mistake in it.
    """
    # A union would report the mistakes of both branches; the word `type` decides which one the user meant.
    if isinstance(value, (Model, OwnModel)):
        return value
    # Only a model of the user's own has a type.
    chosen = OwnModel if isinstance(value, Mapping) and "type" in value else Model
    try:
        return chosen.model_validate(value)
    except ValidationError as error:
        raise mistakes(*flatten(error, value)) from None
