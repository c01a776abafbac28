"""What `private` asks of the rest of a recipe: who still reads a column that is hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from penstock.contracts.data import Cleaner
from penstock.contracts.features import Feature, SeriesFeature
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import Problem
from penstock.recipe.evaluate import Evaluate
from penstock.recipe.governance import Governance
from penstock.recipe.rows import Samples, Split
from penstock.recipe.train import Train

Path = tuple[str | int, ...]


class Declared(Protocol):
    """The sections of a recipe that name columns."""

    @property
    def private(self) -> Mapping[str, Anonymiser]: ...
    @property
    def governance(self) -> Governance: ...
    @property
    def key(self) -> Sequence[str]: ...
    @property
    def keep(self) -> Sequence[str]: ...
    @property
    def weight(self) -> str | None: ...
    @property
    def clean(self) -> Sequence[Cleaner]: ...
    @property
    def split(self) -> Split: ...
    @property
    def samples(self) -> Samples | None: ...
    @property
    def inputs(self) -> Mapping[str, Feature]: ...
    @property
    def targets(self) -> Mapping[str, Feature]: ...
    @property
    def train(self) -> Train: ...
    @property
    def evaluate(self) -> Evaluate: ...


def private_problems(recipe: Declared) -> list[Problem]:
    """Every word of the recipe that could not be kept beside `private`."""
    private = recipe.private
    if not private:
        return []
    dropped = {name for name, how in private.items() if how.is_dropped}
    problems = [
        Problem(
            path,
            f"names the column {name!r}, which `private` drops. Hide it otherwise, or leave it out"
            " here",
        )
        for path, name in _later_readers(recipe)
        if name in dropped
    ]
    problems += [
        Problem(
            ("keep",),
            f"names the private column {name!r}: predictions carry columns as they are given. Leave it out",
        )
        for name in recipe.keep
        if name in private
    ]
    problems += [
        Problem(
            ("key",),
            f"names the private column {name!r}, and a row's id would tell its value to who tries all."
            f" Hide it by `private: {{{name}: pseudonym}}`",
        )
        for name in recipe.key
        if name in private and private[name].type != "pseudonym"
    ]
    return problems + _step_problems(recipe)


def _later_readers(recipe: Declared) -> Iterator[tuple[Path, str]]:
    """Each word that names a column after it is hidden, with the column."""
    for side, features in (("inputs", recipe.inputs), ("targets", recipe.targets)):
        for name, feature in features.items():
            for column in feature.columns(name):
                yield (side, name), column
    for i, cleaner in enumerate(recipe.clean):
        if cleaner.runs_after_split():
            for column in cleaner.needs():
                yield ("clean", i), column
    for column in recipe.split.on or ():
        yield ("split", "on"), column
    single: list[tuple[Path, Any]] = [
        (("split", "stratify"), recipe.split.stratify),
        (("weight",), recipe.weight),
        (("train", "order", "weights"), recipe.train.order.weights),
    ]
    if recipe.samples is not None:
        single.append((("samples", "time"), recipe.samples.time))
        single += [(("samples", "entity"), column) for column in recipe.samples.entity]
    anonymity = recipe.governance.anonymity
    if anonymity is not None:
        of_anonymity: Path = ("governance", "anonymity")
        single.append(((*of_anonymity, "sensitive"), anonymity.sensitive))
        single += [((*of_anonymity, "columns"), column) for column in anonymity.columns]
    yield from ((path, column) for path, column in single if column)
    for column in recipe.evaluate.slices:
        yield ("evaluate", "slices"), column


def _step_problems(recipe: Declared) -> list[Problem]:
    """A request of a series brings whole windows, whose steps no expression reaches."""
    features = {**recipe.inputs, **recipe.targets}
    spanned = {
        column
        for name, feature in features.items()
        if isinstance(feature, SeriesFeature)
        for column in feature.columns(name)
    }
    return [
        Problem(
            ("private", name),
            f"{how.type!r} changes the steps of a series, which it could not do in a request with whole"
            " windows. Leave the column out of the series, or hide it before",
        )
        for name, how in recipe.private.items()
        if name in spanned and how.at_serving == "apply"
    ]
