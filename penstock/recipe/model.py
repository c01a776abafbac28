"""Words about the model: encoders, a combiner and decoders, or a module of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from penstock.contracts.learn import Combiner, Decoder, Encoder
from penstock.contracts.part import Strict, flatten, mistakes
from penstock.core.errors import Problem


def _mlp_unless_named(value: Any) -> Any:
    """Take options without a type, as in `combiner: {width: 64}`, for those of the
    usual combiner.
    """
    return (
        {"type": "mlp", **value}
        if isinstance(value, Mapping) and "type" not in value
        else value
    )


class Ensemble(Strict):
    """Several networks that answer together: the mean of what they say, and how far they lie apart as
    `<target>_doubt`.
    """

    members: int = Field(5, ge=2, le=64)
    """How many. Each starts from a seed of its own, derived from the recipe's."""
    share: bool = False
    """The cheap form: one network whose members share its encoders and the large matrices of its combiner
    (`mlp` or `residual`), and have scales, biases and heads of their own.
    """


def _members(value: Any) -> Any:
    """Take a bare number for that of members."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return {"members": value} if is_number else value


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
    ensemble: Annotated[Ensemble | None, BeforeValidator(_members)] = None
    """How many networks answer together: a number, or a mapping."""

    @model_serializer(mode="wrap")
    def _usual_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `ensemble` out where there is none: what was declared before there was this word keeps its
        ids.
        """
        words: dict[str, Any] = handler(self)
        if self.ensemble is None:
            words.pop("ensemble", None)
        return words


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
    if isinstance(value, Mapping) and {"type", "ensemble"} <= set(value):
        raise mistakes(
            Problem(
                ("ensemble",),
                "makes several of Penstock's own networks; a module of yours is trained as it is. Hold"
                " several in your module, and return the mean of their answers",
            )
        )
    # Only a model of the user's own has a type.
    chosen = OwnModel if isinstance(value, Mapping) and "type" in value else Model
    try:
        return chosen.model_validate(value)
    except ValidationError as error:
        raise mistakes(*flatten(error, value)) from None
