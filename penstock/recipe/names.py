"""Finds names that would clash: columns that targets answer in, and columns that
Penstock writes beside them.

A prediction has the columns `<target>`, `<target>_probabilities` and the like, then what is carried along,
and in a stream `refused`. Two columns of one name would hide each other, so every clash that follows from the
recipe is a problem. Letters of another case make no other name, since engines and many readers of files do
not tell them apart.

What is asked for later (`predict --keep y`) cannot be known here; `kept_names` gives such a column a name of
its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import ROW_ID
from penstock.contracts.features import DOUBT, targets_of
from penstock.core.errors import Problem
from penstock.recipe.identifiers import unportable

if TYPE_CHECKING:
    from penstock.recipe.schema import Recipe

REFUSED = "refused"
"""The column that says why a row has no answer."""
_OWN = {REFUSED: "why a row has no answer", ROW_ID: "what a row is called"}


def name_problems(recipe: Recipe) -> list[Problem]:
    """Return every clash of names within the recipe, and a problem if some systems
    cannot hold its name.
    """
    # Every problem is gathered, so that a user mends all at once.
    problems = _alike(recipe.inputs, recipe.targets) + _derived(recipe.derive)
    if (why := unportable(recipe.name)) is not None:
        problems.append(Problem(("name",), why))
    owners: dict[str, tuple[str, str]] = {}
    # Of the user's own module there is no ensemble.
    extra = (DOUBT,) if getattr(recipe.model, "ensemble", None) else ()
    for target, feature in targets_of(recipe.targets).items():
        for column in (
            f"{target}_{word}" if word else target for word in (*feature.answers, *extra)
        ):
            if column.lower() in _OWN:
                text = (
                    f"answers in a column {column!r}, which says {_OWN[column.lower()]}; call the target"
                    " otherwise"
                )
                problems.append(Problem(("targets", target), text))
            # The same target in another case is one problem, told by `_alike`.
            other = owners.setdefault(column.lower(), (target, column))
            if other[0] != target and target.lower() != other[0].lower():
                text = (
                    f"answers in the column {column!r}, as the target {other[0]!r} does; call one of them"
                    " otherwise"
                )
                problems.append(Problem(("targets", target), text))
    problems += _weight_problems(recipe, owners)
    return problems + _keep_problems(recipe.keep, owners)


_LONGEST_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _derived(names: Iterable[str]) -> list[Problem]:
    """Return problems of derived columns: impossible names, and names that differ only
    in case, which SQL does not tell apart.
    """
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.lower(), name)
        if not name.strip():
            problems.append(
                Problem(("derive",), f"a column needs a name; found {name!r}")
            )
        # UTF-8 bytes are what file formats and file systems limit.
        elif (
            _CONTROL.search(name) or len(name.encode("utf-8", "replace")) > _LONGEST_BYTES
        ):
            text = (
                f"a column's name has at most {_LONGEST_BYTES} bytes and no control character; found"
                f" {ascii(name)[:80]}"
            )
            problems.append(Problem(("derive",), text))
        elif other != name:
            text = f"differs from {other!r} in the case of its letters only; call one of them otherwise"
            problems.append(Problem(("derive", name), text))
    return problems


def _alike(inputs: Iterable[str], targets: Iterable[str]) -> list[Problem]:
    """Return problems of features whose names differ only in case, and of inputs with a
    name of Penstock's own.
    """
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for side, names in (("inputs", inputs), ("targets", targets)):
        for name in names:
            other = first.setdefault(name.lower(), name)
            if other != name:
                text = f"differs from {other!r} in the case of its letters only; call one of them otherwise"
                problems.append(Problem((side, name), text))
            if side == "inputs" and name.lower() == ROW_ID:
                text = (
                    f"is Penstock's own name for {_OWN[ROW_ID]}; call the input otherwise, and say its"
                    " `column`"
                )
                problems.append(Problem((side, name), text))
    return problems


def _weight_problems(
    recipe: Recipe, answers: Mapping[str, tuple[str, str]]
) -> list[Problem]:
    if recipe.weight is None:
        return []
    other = answers.get(recipe.weight.lower())
    # The weight's column hides no answer.
    if other is None:
        return []
    text = (
        f"is {recipe.weight!r}, and the target {other[0]!r} answers in a column {other[1]!r}; call the target"
        " otherwise, and say its `column`"
    )
    return [Problem(("weight",), text)]


def _keep_problems(
    keep: Sequence[str], answers: Mapping[str, tuple[str, str]]
) -> list[Problem]:
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for i, name in enumerate(keep):
        other = answers.get(name.lower())
        if other is not None:
            text = (
                f"is {name!r}, and the target {other[0]!r} answers in a column {other[1]!r}: one would hide"
                f" the other. Leave it out (`penstock predict --keep {name}` writes it as"
                f" {name + '_kept'!r}), or call the target otherwise and say its `column`"
            )
            problems.append(Problem(("keep", i), text))
        elif name.lower() in _OWN:
            problems.append(
                Problem(
                    ("keep", i),
                    f"is {name!r}, which Penstock uses for {_OWN[name.lower()]}. Rename the"
                    " column in the source",
                )
            )
        if first.setdefault(name.lower(), name) != name or name in keep[:i]:
            problems.append(
                Problem(
                    ("keep", i),
                    f"is {name!r}, which is kept already as {first[name.lower()]!r}",
                )
            )
    return problems


def kept_names(columns: Sequence[str], answers: Iterable[str]) -> dict[str, str]:
    """Map each kept column to the name it is written under: its own, or `<name>_kept`
    where an answer has that.
    """
    # Lower case: engines do not tell cases apart.
    taken = {name.lower() for name in answers} | {REFUSED}
    free = [name for name in columns if name.lower() not in taken]
    # All names that stay are taken before a new one is made.
    taken |= {name.lower() for name in free}
    names: dict[str, str] = {}
    for name in dict.fromkeys(columns):
        if name in free:
            names[name] = name
            continue
        wanted, count = f"{name}_kept", 2
        # Several kept columns may want the same new name.
        while wanted.lower() in taken:
            wanted, count = f"{name}_kept_{count}", count + 1
        taken.add(wanted.lower())
        names[name] = wanted
    return names
