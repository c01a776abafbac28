"""What moves weights promises: Optimiser, Schedule.

The head of a part's file imports no torch, so that recipes, plans and schemas stay light; `build` imports it.

**Words of other types.** Until each type had a file, one record held the words of all types of a family, and
every recipe that was written down has all of them: `{type: adamw, betas: …, momentum: 0.9, nesterov: true}`.
Those are in the ids of runs and bundles. So the types of that time still read them (`others`), and write them
with the values that they had: without that, what was trained before would not be found again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import Field, PrivateAttr, ValidationError

from penstock.contracts.part import Part, flatten, mistakes
from penstock.core.errors import MissingPackage, Problem, RecipeError

if TYPE_CHECKING:
    import torch


class _Formerly(Part):
    """A family whose first types shared one record."""

    others: ClassVar[Mapping[str, str]] = {}
    """Of a type from that time: the words that it does not obey, and the type that each belongs to."""
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Those that a recipe gave, where they say something."""

    @classmethod
    def load(cls, value: Any) -> Self:
        """As `Part.load`; words of other types are taken apart first."""
        if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
            return super().load(value)
        # A plain word has no words of other types beside it.
        owners = cls.others_of(value["type"])
        given = {word: value[word] for word in owners if word in value}
        part = super().load(
            {word: entry for word, entry in value.items() if word not in given}
        )
        problems: list[Problem] = []
        # Each is checked by the type that it belongs to, so a misspelt value is still
        # told.
        for word, entry in given.items():
            owner = cls.find(owners[word])
            try:
                checked = getattr(owner.model_validate({word: entry}), word)
            except ValidationError as error:
                problems += flatten(error, {word: entry})
                continue
            # At its default a word says nothing.
            if checked != owner.model_fields[word].default:
                part._given[word] = checked
        if problems := problems + part._refused():
            raise mistakes(*problems)
        return part

    @classmethod
    def others_of(cls, type: str) -> Mapping[str, str]:
        """The words of other types that this type of the shelf reads; none where it is somebody's own, or
        there is no such type.
        """
        try:
            return {} if "." in type else cls.find(type).others
        # Whatever is wrong with the type is told by `Part.load`.
        except (RecipeError, MissingPackage):
            return {}

    def _refused(self) -> list[Problem]:
        """What is wrong with the words that were given and mean nothing to this type."""
        return []

    @property
    def unheeded(self) -> list[str]:
        """The words that were given, say something, and mean nothing to this type."""
        return list(self._given)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; with the words of other types, since ids were made of them."""
        family = type(self).family()
        usual = {
            word: family.find(owner).model_fields[word].default
            for word, owner in self.others.items()
        }
        plain = {
            word: list(value) if isinstance(value, tuple) else value
            for word, value in {**usual, **self._given}.items()
        }
        return {**super().to_dict(), **plain}

    @classmethod
    def _options(cls) -> list[dict[str, Any]]:
        """A JSON Schema for each type, which lets the words of other types pass."""
        options = super()._options()
        for option in options:
            for word, owner in cls.others_of(
                option["properties"]["type"]["const"]
            ).items():
                option["properties"][word] = {
                    "description": f"For {owner}.",
                    "deprecated": True,
                }
        return options


class Optimiser(_Formerly):
    """How weights move by their gradients.

    Laws (penstock.testing.laws.optimisers): the rate that is set is the rate that moves; what it remembers
    are tensors by parameter, and taken up again they go on to the bit.
    """

    shelf: ClassVar[str] = "penstock.parts.optimisers"

    @abstractmethod
    def build(
        self, groups: list[dict[str, Any]], *, lr: float, is_divided: bool
    ) -> torch.optim.Optimizer:
        """A torch optimiser of these parameters.

        Args:
            groups: torch's parameter groups: `params`, `weight_decay` (0 for biases, norms and embeddings),
                and `lr_scale`, which the optimiser keeps and does not read. Before each step the trainer sets
                each group's `lr`.
            lr: the declared rate, for a constructor that wants one.
            is_divided: the parameters are divided among ranks (torch's `DTensor`), for which some fused
                kernels are missing.
        """

    @abstractmethod
    def state_shapes(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """What it remembers of a parameter of this shape from its first step on: the shape of each tensor by
        its name in torch's `state`. It remembers all of them or none.

        A checkpoint that somebody has changed is refused by it, before any of it is taken up.
        """

    def _refused(self) -> list[Problem]:
        return [
            Problem((word,), f"has no effect with {self.type}") for word in self.unheeded
        ]


class RateScale(Protocol):
    """What the verdicts of epochs make of the rate; the same at every rank."""

    scale: float
    """The rate is multiplied with it."""

    def see(self, loss: float | None) -> bool:
        """Whether the validation loss of an epoch has changed `scale`; None: there was nothing to judge
        by.
        """

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""

    def recall(self, memory: dict[str, Any]) -> None:
        """The inverse of `memory`."""


class Schedule(_Formerly):
    """How the learning rate moves over training.

    Laws (penstock.testing.laws.schedules): a pure function of the step; it rises through the warm-up, is
    never negative, and means the same for any number of steps.
    """

    shelf: ClassVar[str] = "penstock.parts.schedules"

    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of all steps spent rising from zero."""

    @abstractmethod
    def after_warmup(self, step: int, total: int) -> float:
        """The share of `train.lr` at `step` (from 0) of the `total` steps (1 at least) that follow the
        warm-up.
        """

    def rate(self, step: int, total: int) -> float:
        """The share of `train.lr` at `step` (from 0) of `total`, warm-up included."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / (warm + 1)  # never 0: a step that moves nothing is wasted
        return self.after_warmup(step - warm, max(total - warm, 1))

    def follow(self) -> RateScale | None:
        """What follows the validation loss, one for a training; None where the rate is a function of the step
        alone.
        """
        return None


__all__ = ["Optimiser", "RateScale", "Schedule"]
