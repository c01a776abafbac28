"""The words of `parallel`: what is done to the model where several processes train it, and what of it
contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from penstock.contracts.learn import GradientCompressor
from penstock.contracts.part import Strict, flatten, mistakes, part
from penstock.contracts.strategy import Strategy
from penstock.core.errors import Problem

_BESIDE = {"every": "local_sgd", "outer": "local_sgd"}
"""Options of a strategy that may stand beside it, and whose they are: until strategies had options of their
own they did, and so they are in every recipe that was written down, and in the ids made of those.
"""


class Parallel(Strict):
    """What is done to the model where several processes train it."""

    strategy: Strategy = Field(part("ddp"), validate_default=True)
    """How the processes train one model."""
    every: int | None = None
    """The same as `strategy: {type: local_sgd, every: …}`."""
    outer: str | dict[str, Any] | None = None
    """The same as `strategy: {type: local_sgd, outer: …}`."""
    gradients: GradientCompressor | None = None
    """How gradients (with local_sgd, the movements that are averaged) are sent; float32 unless given.

    Not for fsdp.
    """
    batchnorm: Literal["each", "sync"] = "each"
    """BatchNorm over each process's own rows, or over the rows of all, as one process would have it."""
    activation_checkpointing: bool = False
    """Keep the inputs of blocks only and compute what is within them again when going backward: less memory,
    a third more work.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _take_in(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Options that stand beside the strategy go into it."""
        # A model that is built already brings no words.
        beside = {
            word: data[word]
            for word in _BESIDE
            if isinstance(data, Mapping) and word in data
        }
        # A null says nothing, as if the word were absent.
        beside = {word: value for word, value in beside.items() if value is not None}
        if not beside:
            return handler(data)
        strategy = data.get("strategy", "ddp")
        if isinstance(strategy, Strategy):
            strategy = strategy.to_dict()
        if isinstance(strategy, str):
            strategy = {"type": strategy}
        # Not a strategy at all: the handler says so in its own words.
        if not isinstance(strategy, Mapping) or not isinstance(strategy.get("type"), str):
            return handler(data)
        problems = [
            Problem((word,), f"is for {owner} and has no effect with {strategy['type']}")
            for word, owner in _BESIDE.items()
            if word in beside and strategy["type"] != owner
        ]
        problems += [
            Problem((word,), "is given twice: here and in `strategy`. Leave one out")
            for word in beside
            if strategy.get(word) is not None and not problems
        ]
        rest = {word: value for word, value in data.items() if word not in beside}
        if not problems:
            # From here on there is one place for the options.
            rest["strategy"] = {**strategy, **beside}
        # Both kinds of mistakes are told at once.
        try:
            parallel = handler(rest)
        except ValidationError as error:
            wrong = flatten(error, rest)
            raise mistakes(
                *problems, *(_as_given(problem, beside) for problem in wrong)
            ) from None
        if problems:
            raise mistakes(*problems)
        return parallel

    @model_validator(mode="after")
    def _meant(self) -> Parallel:
        problems: list[Problem] = []
        if self.gradients is not None and (
            why := self.strategy.refuses("gradients", self.gradients)
        ):
            problems.append(Problem(("gradients",), why))
        if self.batchnorm == "sync" and (
            why := self.strategy.refuses("batchnorm", self.batchnorm)
        ):
            problems.append(Problem(("batchnorm",), why))
        if problems:
            raise mistakes(*problems)
        return self

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data, spelt as it always was: the ids of runs and bundles are made of it."""
        plain: dict[str, Any] = handler(self)
        options = dict(plain["strategy"])
        name = options.pop("type")
        # A strategy of the user's own, or with other options, has no short spelling.
        if "." in name or not options.keys() <= _BESIDE.keys():
            return plain
        return {**plain, "strategy": name, **options}


def _as_given(problem: Problem, beside: Mapping[str, Any]) -> Problem:
    """Move a mistake in an option to the place where the user wrote it."""
    if (
        problem.path[:1] == ("strategy",)
        and len(problem.path) > 1
        and problem.path[1] in beside
    ):
        return Problem(problem.path[1:], problem.text)
    return problem
