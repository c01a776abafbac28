"""Mistakes in a recipe, each with its path and a sentence: those a validator raises, and those that pydantic
found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from penstock.core.errors import Problem
from penstock.core.near import did_you_mean
from penstock.core.redact import redacted


def mistakes(*problems: Problem) -> PydanticCustomError:
    """What a validator raises to report problems with paths relative to itself."""
    return PydanticCustomError(
        "penstock",
        "{text}",
        {"text": "; ".join(map(str, problems)), "problems": problems},
    )


def flatten(error: ValidationError, data: Any) -> list[Problem]:
    """Every mistake in a pydantic error, with paths as the user's `data` has them."""
    problems: list[Problem] = []
    for entry in error.errors(include_url=False):
        # pydantic names branches of unions in a path, which the user never wrote.
        path = _path_in(entry["loc"], data)
        nested = entry.get("ctx", {}).get("problems")
        # Problems of a part within, with paths from that part on.
        if entry["type"] == "penstock" and nested:
            problems += [Problem((*path, *p.path), p.text) for p in nested]
            continue
        problems.append(Problem(path, _wording(entry)))
    # A union reports a mistake once a branch; equal ones are told once.
    unique = dict.fromkeys(_merged(problems))
    # "expected …" of a whole says less than the mistake within it, and goes where there
    # is one.
    return [
        p
        for p in unique
        if not (
            p.text.startswith("expected ")
            and any(
                q is not p
                and q.path[: len(p.path)] == p.path
                and len(q.path) > len(p.path)
                for q in unique
            )
        )
    ]


def _merged(problems: list[Problem]) -> list[Problem]:
    """One mistake for a word that may be of several types, where each type has something to say of it."""
    by_path: dict[tuple[str | int, ...], list[str]] = {}
    for problem in problems:
        by_path.setdefault(problem.path, []).append(problem.text)
    merged = []
    for path, texts in by_path.items():
        exact = [
            text for text in texts if not text.startswith("expected ")
        ]  # of the branch whose type it is
        if exact or len(texts) == 1:
            merged += [Problem(path, text) for text in exact or texts]
            continue
        parts = [_EXPECTED.fullmatch(text) for text in texts]
        if not all(parts):
            merged += [Problem(path, text) for text in texts]
            continue
        # Branches that each expect something are one sentence: "expected a or b".
        wanted = " or ".join(dict.fromkeys(part[1] for part in parts if part))
        value = parts[0][2] if parts[0] else ""
        hint = next((part[3] for part in parts if part and part[3]), "")
        merged.append(
            Problem(path, f"expected {wanted}; found {value}.{hint}".rstrip("."))
        )
    return merged


_EXPECTED = re.compile(
    r"expected (?:one of )?(.*?); found (.*?)\.?( Did you mean .*)?", re.DOTALL
)


def _path_in(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """`loc` without the names pydantic adds for the branches of a union."""
    path: list[int | str] = []
    # Steps that lead on in the data are the user's; the others are names of branches.
    for i, step in enumerate(loc):
        if (isinstance(data, Mapping) and step in data) or (
            isinstance(step, int) and isinstance(data, (list, tuple)) and step < len(data)
        ):
            data = data[step]  # type: ignore[index]
            path.append(step)
        elif (
            isinstance(step, str)
            and i == len(loc) - 1
            and isinstance(data, Mapping)
            and re.fullmatch(r"\w+", step)
        ):
            path.append(step)  # a missing field
    return tuple(path)


def _wording(entry: Any) -> str:
    kind, ctx = entry["type"], entry.get("ctx", {})
    given = entry.get("input")
    # Shown values may hold secrets, and a huge one is cut before it is searched for
    # them.
    shown = redacted(repr(given)[:100_000])
    shown = shown if len(shown) < 80 else f"{shown[:77]}..."
    if kind == "finite_number":
        return f"must be a finite number; found {shown}"
    # A missing item of a list is called by its number, which says nothing to a reader.
    if kind == "missing" and entry["loc"] and isinstance(entry["loc"][-1], int):
        return f"expected a longer list; found {shown}"
    if kind == "missing":
        return "is required but missing"
    if kind == "too_long":
        return f"expected a list of {ctx.get('max_length')} at most; found {shown}"
    if kind == "value_error":
        return str(ctx.get("error", entry["msg"]))
    # pydantic gives the options as a text alone.
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(ctx.get("expected", "")))
        return f"expected one of {', '.join(options)}; found {shown}.{did_you_mean(str(given), options)}"
    words = {
        "greater_than": f"must be greater than {_bound(ctx, 'gt')}; found {shown}",
        "greater_than_equal": f"must be at least {_bound(ctx, 'ge')}; found {shown}",
        "less_than": f"must be less than {_bound(ctx, 'lt')}; found {shown}",
        "less_than_equal": f"must be at most {_bound(ctx, 'le')}; found {shown}",
    }
    if kind in words:
        return words[kind]
    expected = {
        "int": "a whole number",
        "float": "a number",
        "string": "text",
        "bool": "true or false",
        "dict": "a mapping",
        "list": "a list",
        "tuple": "a list",
        "model": "a mapping",
    }
    for start, what in expected.items():
        # `int_type`, `int_parsing` and `int_from_float` are one mistake to the user.
        if kind.startswith(f"{start}_") and kind.endswith(
            ("_type", "_parsing", "_from_float")
        ):
            return f"expected {what}; found {shown}"
    return f"{entry['msg'][0].lower()}{entry['msg'][1:]}; found {shown}"


def _bound(ctx: Mapping[str, Any], name: str) -> str:
    value = ctx.get(name)
    return (
        str(value)
        if isinstance(value, int)
        else f"{value:g}"
        if isinstance(value, (int, float))
        else str(value)
    )
