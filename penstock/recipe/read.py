"""Reads a recipe's text as plain data: YAML, TOML or JSON, with overrides such as
`train.lr=3e-4`.

It knows no word of the schema.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from penstock.core.errors import Problem, RecipeError
from penstock.core.regular import read_regular
from penstock.recipe.bounded import BoundedLoader, unique_words


class _Loader(BoundedLoader):
    """Safe YAML that refuses a word given twice and reads 1e-3 as a number (YAML 1.1 reads text)."""


_MERGE = "tag:yaml.org,2002:merge"


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    own: dict[Any, Any] = {}
    merged: dict[Any, Any] | None = None
    # Own words win wherever `<<` stands among them.
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:
            if merged is not None:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    "'<<' is given twice; put several in a list",
                    key_node.start_mark,
                )
            merged = _merged(loader, value_node)
            continue
        key = loader.construct_object(key_node, deep=True)
        # Such keys cannot be hashed.
        if isinstance(key, (list, dict, set)):
            text = (
                f"a word is a text; found a {'list' if isinstance(key, list) else 'mapping'} (put it in"
                " quotes if it is meant as text)"
            )
            raise yaml.constructor.ConstructorError(None, None, text, key_node.start_mark)
        # YAML itself keeps the last of two equal words in silence.
        if key in own:
            raise yaml.constructor.ConstructorError(
                None, None, f"the word {key!r} is given twice", key_node.start_mark
            )
        own[key] = loader.construct_object(value_node, deep=True)
    return {**(merged or {}), **own}


def _merged(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    """Return the words that `<<: *other` or `<<: [*first, *second]` brings; the first
    of several wins, and the mapping's own words always.
    """
    whole: dict[Any, Any] = {}
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(each, yaml.MappingNode):
            text = "'<<' takes the words of another mapping, as in `<<: *name`, or of a list of mappings"
            raise yaml.constructor.ConstructorError(None, None, text, each.start_mark)
        whole = {**loader.construct_object(each, deep=True), **whole}
    return whole


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# Copied, since PyYAML's table is shared by all of its loaders.
_Loader.yaml_implicit_resolvers = {
    k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
# YAML 1.1 wants a dot in a float.
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(
        0, ("tag:yaml.org,2002:float", _FLOAT)
    )
# `on`, `off`, `yes`, `no` stay words: a recipe says `on: person_id`.
for _first, _rules in list(_Loader.yaml_implicit_resolvers.items()):
    _Loader.yaml_implicit_resolvers[_first] = [
        r for r in _rules if r[0] != "tag:yaml.org,2002:bool"
    ]
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    list("tTfF"),
)


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML as plain data.

    Raises:
        RecipeError: it is not YAML, or gives a word twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = (
            f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        )
        # Escaped, since the text may hold control characters that a terminal obeys.
        text = ascii(str(getattr(error, "problem", None) or error)[:500])[1:-1]
        raise RecipeError(
            f"{place}: this is not YAML: {text}. Check the indentation and quotes there."
        ) from None
    except RecursionError:
        raise RecipeError(f"{where}: it is nested too deeply to be read") from None


def read_recipe(path: Path) -> Any:
    """Read a recipe file as plain data.

    Raises:
        RecipeError: it is not there, or is not what its ending says.
    """
    try:
        content = read_regular(path, most_bytes=_LARGEST_RECIPE, error=RecipeError)
    except (FileNotFoundError, NotADirectoryError):
        beside = (
            sorted(p.name for p in path.parent.glob("*.yaml"))
            if path.parent.is_dir()
            else []
        )
        hint = f" Recipes there: {', '.join(beside[:8])}." if beside else ""
        raise RecipeError(
            f"there is no recipe {path}.{hint} Write one with `penstock init SOURCE --target COLUMN`."
        ) from None
    except (OSError, ValueError) as error:  # a name with NUL in it is a ValueError
        raise RecipeError(
            f"the recipe {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not UTF-8 text (byte {error.start}). Is it a recipe?"
        ) from None
    if len(text) > _REMEMBERED:
        return _parse(path, text)
    try:
        return copy.deepcopy(_parsed(path, text))  # whoever reads a recipe changes it
    except (
        RecursionError
    ):  # deeper than a copy may go; its depth is judged by whoever reads it
        return _parse(path, text)


@lru_cache(maxsize=8)
def _parsed(path: Path, text: str) -> Any:
    """Parse as `_parse`, remembered by content: opening and asking a bundle reads its
    recipe five times.
    """
    return _parse(path, text)


def _parse(path: Path, text: str) -> Any:
    """Parse a recipe's text by its file's ending, within the bounds of
    `recipe.bounded`.
    """
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text.replace("\r\n", "\n"))
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=unique_words)
    except ValueError as error:
        problem = ascii(str(error)[:500])[1:-1]
        raise RecipeError(
            f"{path}: this is not {path.suffix[1:].upper()}: {problem}"
        ) from None
    except RecursionError:
        raise RecipeError(f"{path}: it is nested too deeply to be read") from None
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            f"{path}: the name of a recipe must end in .yaml, .yml, .toml or .json"
        )
    return parse_yaml(text, where=str(path))


_LARGEST_RECIPE = 256 * 2**20
_REMEMBERED = 1 << 20
"""Characters of a recipe whose data is remembered."""
_INCLUDED = ("content_of", "lines_of")
_LARGEST = 64 * 2**20


def include(data: Any, base: Path) -> Any:
    """Replace `{content_of: FILE}` by that file's text, and `{lines_of: FILE}` by its
    lines that are not empty.

    So a part that needs a small file (names of labels, a tokenizer) declares what is in it: the part's
    identity and the bundle hold the content, and nobody looks for the file again.

    Args:
        data: a recipe's `inputs` or `targets`.
        base: the folder that relative paths start from.

    Raises:
        RecipeError: a file is not there, is no UTF-8 text, or is larger than 64 MiB.
    """
    if isinstance(data, list):
        return [include(item, base) for item in data]
    if not isinstance(data, dict):
        return data
    # A mapping with more words is the part's own, even if one of them is called so.
    if (
        len(data) == 1
        and (word := next(iter(data))) in _INCLUDED
        and isinstance(data[word], str)
    ):
        path = base / data[word]
        try:
            text = read_regular(path, most_bytes=_LARGEST, error=RecipeError).decode(
                "utf-8"
            )
            # One content whatever system wrote the file, since it enters identities.
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        except RecipeError as error:
            raise RecipeError(f"{word}: {error.message}") from None
        except OSError as error:
            raise RecipeError(
                f"{word}: {path} cannot be read ({error.strerror or error}). Paths are relative to the"
                " recipe."
            ) from None
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{word}: {path} is not UTF-8 text (byte {error.start})."
            ) from None
        except ValueError:
            raise RecipeError(f"{word}: {str(path)!r} is not a file name.") from None
        return (
            text
            if word == "content_of"
            else [line.strip() for line in text.splitlines() if line.strip()]
        )
    return {word: include(value, base) for word, value in data.items()}


_ALONE = tuple(",;|#'\"?!%&*@`:-\t ")


def parse_value(text: str, *, where: str) -> Any:
    """Parse the value of a `--set`: YAML, but a lone character of punctuation is itself
    (`delimiter=,`, `comment=#`).

    Raises:
        RecipeError: it is not YAML.
    """
    # As YAML these would be nothing, or an error.
    if text in _ALONE:
        return text
    return parse_yaml(text, where=where)


def _steps(path: str) -> list[str]:
    """Split `a.b."c.d"` into [a, b, c.d]."""
    matches = re.findall(r'"([^"]*)"(?:\.|$)|([^."]+)(?:\.|$)', path)
    steps = [quoted or plain for quoted, plain in matches]
    # Characters that belong to no step make the path malformed.
    whole = sum(
        len(quoted) + 2 if quoted else len(plain) for quoted, plain in matches
    ) + max(len(matches) - 1, 0)
    return steps if steps and whole == len(path) else [""]


def override(data: dict[str, Any], text: str) -> None:
    """Apply one `a.b=YAML` to plain data, in place; a step that is a number indexes a list, one with a dot in
    it is quoted.

    Raises:
        RecipeError: it is not of that form, or an index is out of range.
    """
    path, equals, value = text.partition("=")
    steps = _steps(path.strip())
    if not equals or not all(steps):
        raise RecipeError(
            f"an override is written a.b=value, such as train.lr=3e-4; found {text[:200]!r}"
        )
    here: Any = data
    where = f"--set {text if len(text) <= 200 else text[:200] + '…'}"
    parsed = parse_value(value, where=where)
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        if isinstance(here, list):
            # A negative index would silently mean another entry.
            if not step.isdigit() or int(step) >= len(here):
                raise RecipeError.of(
                    [
                        Problem(
                            tuple(steps[: i + 1]),
                            f"the list has {len(here)} entries, numbered from 0",
                        )
                    ],
                    where=where,
                )
            if last:
                here[int(step)] = parsed
            else:
                here = here[int(step)]
            continue
        if last:
            here[step] = parsed
            return
        below = here.get(step)
        if isinstance(below, str):
            below = {"type": below}  # `combiner: mlp` and `--set model.combiner.width=64`
        elif not isinstance(below, (dict, list)):
            below = {}
        here[step] = below
        here = below
