"""Every word of a recipe as a page of Markdown, made from the schema itself, so that it cannot fall behind.

`docs/recipe.md` is this page, and a test compares them: a changed default shows as a changed line.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.contracts.part import Part
from penstock.contracts.reading import Reader
from penstock.recipe.schema import Expect, Join, Model, OwnModel, Recipe

HEAD = """\
# Every word of a recipe

Made from the schema by `python -m penstock.recipe.describe`.
A recipe is YAML, TOML, JSON or a Python mapping.
Only `source` is required; to train, `inputs` and `targets` too. Paths start from the recipe's folder.
`--set a.b=YAML` overrides a word. Where a *part* is expected, write its type as one word
(`combiner: attention`) or as a mapping with its options (`combiner: {type: attention, width: 128}`);
`acme.tcn` names the module `acme/tcn.py` of yours.
"""


def describe() -> str:
    """Return the whole page."""
    sections = [HEAD, _section("The recipe", Recipe, level=2)]
    # Records that several sections use are described once.
    shown: set[type[BaseModel]] = {Recipe}
    records: list[type[BaseModel]] = [*_records(Recipe), Expect, Join, Model, OwnModel]
    for record in records:
        if record not in shown:
            shown.add(record)
            sections.append(_section(_title(record), record, level=2))
            for inner in _records(record):
                if inner not in shown:
                    shown.add(inner)
                    sections.append(_section(_title(inner), inner, level=3))
    # Readers are asked for by a source, which is found by name: nothing else may have loaded their family.
    known: set[type[Part]] = {*_families(Part), Reader}
    families = sorted(known, key=lambda f: f.__name__)
    sections += [_family(family) for family in families]
    return "\n".join(sections)


def _families(base: type[Part]) -> list[type[Part]]:
    """Return the families below a class that come with Penstock; some share a base
    between them and `Part`.
    """
    families = []
    # A part of the user's own may be loaded, and is no family of Penstock's.
    for part in base.__subclasses__():
        # A user's own part may be loaded by now.
        if not part.__module__.startswith("penstock.contracts"):
            continue
        families += [part] if part.is_family() else _families(part)
    return families


def _title(record: type[BaseModel]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", record.__name__)


def _records(record: type[BaseModel]) -> list[type[BaseModel]]:
    records = []
    for field in record.model_fields.values():
        for kind in _leaves(field.annotation):
            if (
                inspect.isclass(kind)
                and issubclass(kind, BaseModel)
                and not issubclass(kind, Part)
            ):
                records.append(kind)
    return records


def _leaves(annotation: Any) -> list[Any]:
    inner = typing.get_args(annotation)
    # The values of a literal are no types.
    if typing.get_origin(annotation) is typing.Literal or not inner:
        return [annotation]
    return [leaf for one in inner for leaf in _leaves(one)]


def _section(title: str, record: type[BaseModel], *, level: int) -> str:
    lines = [
        f"{'#' * level} {title}",
        "",
        *_purpose(record),
        "| word | takes | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [_row(name, field) for name, field in record.model_fields.items()]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    """Return the summary and the paragraphs that explain it, up to the first list,
    table or section; details for authors of parts are left out.
    """
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if re.match(r"\s+|[-*] |\w+:\n|Laws \(", paragraph):
            break
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _purpose(record: type[BaseModel]) -> list[str]:
    text = inspect.cleandoc(record.__doc__ or "").strip()
    return [" ".join(_prose(text).split()), ""] if text else []


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{field.alias or name}` | {_takes(field.annotation)} | {_default(field)} | {meaning} |"


def _takes(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    # Validators do not change what a word takes.
    if origin is typing.Annotated:
        return _takes(inner[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " \\| ".join(_takes(one) for one in inner)
    if origin in (list, tuple):
        return f"list of {_takes(inner[0])}"
    if origin is dict:
        return f"mapping to {_takes(inner[1])}"
    if annotation is type(None):
        return "null"
    if inspect.isclass(annotation) and issubclass(annotation, Part):
        kind = annotation.family_name()
        return f"[{kind}](#{_plural(kind).replace(' ', '-')})"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        title = _title(annotation).lower()
        return f"[{title}](#{title.replace(' ', '-')})"
    return {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
    }.get(getattr(annotation, "__name__", ""), "anything")


def _plural(word: str) -> str:
    # As in strategy and strategies.
    return f"{word[:-1]}ies" if word.endswith("gy") else f"{word}s"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "see there"
    value = field.default
    if isinstance(value, BaseModel):
        return "see there"
    if (
        isinstance(value, (list, tuple))
        and value
        and isinstance(value[0], (dict, BaseModel))
    ):
        value = [v["type"] if isinstance(v, dict) else v for v in value]
    if isinstance(value, dict) and set(value) == {"type"}:
        value = value["type"]
    return (
        f"`{json.dumps(value, ensure_ascii=False, default=str)}`"
        if value not in ({}, (), [], "")
        else "none"
    )


def _family(family: type[Part]) -> str:
    purpose = " ".join(_prose(inspect.cleandoc(family.__doc__ or "")).split())
    lines = [f"## {_plural(family.family_name()).capitalize()}", "", purpose, ""]
    shared = {name: _row(name, field) for name, field in family.model_fields.items()}
    lines += _words(shared.values())
    for name in family.types():
        part = family.find(name)
        text = inspect.cleandoc(part.__doc__ or "").strip()
        lines += [
            f"### `{name}` ({family.family_name()})",
            "",
            " ".join(_prose(text).split()),
            "",
        ]
        rows = {name: _row(name, field) for name, field in part.model_fields.items()}
        # Only what a part says otherwise than its family.
        lines += _words(row for name, row in rows.items() if shared.get(name) != row)
        lines += [
            _section(_title(record), record, level=4)
            for record in dict.fromkeys(_records(part))
        ]
    return "\n".join(lines)


def _words(rows: Iterable[str]) -> list[str]:
    """Return a table of words; nothing without rows."""
    lines = list(rows)
    return (
        ["| word | takes | default | meaning |", "|---|---|---|---|", *lines, ""]
        if lines
        else []
    )


if __name__ == "__main__":
    print(describe())  # noqa: T201 - a program of one line
