"""Reading a recipe: YAML, TOML, JSON or a Python mapping, with overrides such as `train.lr=3e-4`."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from penstock.contracts.part import flatten, foreign_code_allowed
from penstock.core.errors import Problem, RecipeError
from penstock.recipe.schema import Recipe


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a word given twice and reads 1e-3 as a number (YAML 1.1 reads text)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the word {key!r} is given twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_FLOAT = __import__("re").compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(0, ("tag:yaml.org,2002:float", _FLOAT))
# `on`, `off`, `yes`, `no` stay words: a recipe says `on: person_id`.
for _first, _rules in list(_Loader.yaml_implicit_resolvers.items()):
    _Loader.yaml_implicit_resolvers[_first] = [r for r in _rules if r[0] != "tag:yaml.org,2002:bool"]
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", __import__("re").compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def parse_yaml(text: str, *, where: str) -> Any:
    """YAML as plain data.

    Raises:
        RecipeError: it is not YAML, or gives a word twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise RecipeError(f"{place}: this is not YAML: {getattr(error, 'problem', None) or error}. Check the indentation and quotes there.") from None


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, base: Path | None = None, name: str | None = None) -> Recipe:
    """A recipe from a file (`.yaml`, `.yml`, `.toml`, `.json`) or a mapping.

    Args:
        source: the file, or plain data.
        overrides: `a.b=YAML` each, applied in order; a step that is a number indexes a list.
        base: the folder that relative paths start from; the file's own, or the working folder.
        name: a name where the recipe has none; the file's unless given.

    Raises:
        RecipeError: every mistake at once, each with its path.
    """
    where = "the recipe"
    if isinstance(source, (str, Path)):
        path = Path(source)
        where = str(path)
        data = _read(path)
        base = base or path.resolve().parent
        name = name or path.name.split(".")[0]
        if foreign_code_allowed() and str(base) not in sys.path:
            sys.path.append(str(base))  # so that `type: acme.tcn` finds a module beside the recipe
    else:
        data = json.loads(json.dumps(source, default=str))
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where} must be a mapping with at least `source`; found {type(data).__name__}. See `penstock init` for a start.")
    data = dict(data)
    for override in overrides:
        _override(data, override)
    if not data.get("name"):
        data["name"] = name or "unnamed"
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError.of(flatten(error, data), where=where) from None
    recipe._base = (base or Path.cwd()).resolve()
    return recipe


def _read(path: Path) -> Any:
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" Recipes there: {', '.join(beside[:8])}." if beside else ""
        raise RecipeError(f"there is no recipe {path}.{hint} Write one with `penstock init SOURCE --target COLUMN`.")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}). Is it a recipe?") from None
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json.loads(text)
    except ValueError as error:
        raise RecipeError(f"{path}: this is not {path.suffix[1:].upper()}: {error}") from None
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"{path}: a recipe's name ends in .yaml, .yml, .toml or .json")
    return parse_yaml(text, where=str(path))


def _override(data: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        raise RecipeError(f"an override is written a.b=value, such as train.lr=3e-4; found {text!r}")
    here: Any = data
    parsed = parse_yaml(value, where=f"--set {text}")
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        if isinstance(here, list):
            if not step.isdigit() or int(step) >= len(here):
                raise RecipeError.of([Problem(tuple(steps[: i + 1]), f"the list has {len(here)} entries, numbered from 0")], where=f"--set {text}")
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
