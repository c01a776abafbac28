"""Part: a frozen, validated record that a recipe may name, and whose `type` is the file it lives in.

`{"type": "tcn"}` where an `Encoder` is expected opens `penstock/parts/encoders/tcn.py`; `{"type":
"acme.tcn"}` opens the importable module `acme.tcn`. There is no registry to edit. A family (Encoder, Feature,
…) is a subclass of `Part` that sets `shelf`; a part is a subclass of a family, alone of its kind in its file.

`Strict` is the base of every record in a recipe: unknown words are refused with a "did you mean", and all
mistakes of a tree are gathered, each with its path, before anything is raised.

A dotted type imports, and so runs, somebody's module: `contracts.foreign` says when that may be.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import core_schema

from penstock.contracts.foreign import (
    foreign_code_allowed,
    look_beside,
    may_import,
    note_source,
    recipe_folder,
)
from penstock.contracts.foreign import no_foreign_code as no_foreign_code
from penstock.contracts.mistakes import flatten as flatten
from penstock.contracts.mistakes import mistakes as mistakes
from penstock.core.errors import MissingPackage, Problem, RecipeError
from penstock.core.near import Hints, did_you_mean

_described: ContextVar[frozenset[Any]] = ContextVar("described", default=frozenset())
"""The families whose JSON Schema is being written."""


class Strict(BaseModel):
    """The base of every record in a recipe: frozen, strict, and told apart by its fields alone."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        populate_by_name=True,
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _gather(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            # A record that was made already is taken as it is.
            if isinstance(data, cls):
                return data
            shown = "nothing" if data is None else repr(data)
            words = ", ".join(cls.field_names()) or "nothing in it"
            raise mistakes(Problem((), f"expected a mapping with {words}; found {shown}"))
        known = cls.field_names()
        hint, listed = Hints(known), ", ".join(known) or "none"
        # Words that are not known are told with a hint, beside what pydantic finds in
        # the others.
        problems = [
            Problem(
                (str(word),),
                f"is not a known option.{hint(str(word))} Known: {listed}.",
            )
            for word in data
            if word not in known
        ]
        # pydantic gets known words only: its own word for others has no hint, and would
        # hide these.
        try:
            record = handler(
                {
                    word: cls._completed(word, value)
                    for word, value in data.items()
                    if word in known
                }
            )
        # Both kinds of mistakes at once, with paths in the user's own data.
        except ValidationError as error:
            raise mistakes(*problems, *flatten(error, data)) from None
        if problems:
            raise mistakes(*problems)
        return record

    @classmethod
    def _completed(cls, word: str, value: Any) -> Any:
        """A part's options given without its `type` are options of the default: `launcher: {processes:
        2}`.
        """
        default = cls.model_fields[word].default if word in cls.model_fields else None
        # A default with `type` alone is a choice whose options may be given without
        # naming it again.
        if (
            isinstance(default, dict)
            and set(default) == {"type"}
            and isinstance(value, Mapping)
            and "type" not in value
        ):
            return {**default, **value}
        return value

    @classmethod
    def field_names(cls) -> list[str]:
        """The fields as a recipe spells them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, aliases as in a recipe, defaults included: loading it gives an equal one."""
        return self.model_dump(mode="json", by_alias=True)


class Part(Strict):
    """A named, immutable, self-validating choice."""

    shelf: ClassVar[str] = ""
    """Set by each family: the package its types live in."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What was chosen; words that are as usual would only hide it."""
        # Words that nobody gave stand at their defaults.
        return [
            (word, value)
            for word, value in super().__repr_args__()
            if word in self.model_fields_set
        ]

    @classmethod
    def family_name(cls) -> str:
        """What one of the family is called in a sentence: `gradient compressor` for `GradientCompressor`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()

    @classmethod
    def is_family(cls) -> bool:
        """Whether this class is a family, such as `Feature`, and not a type within one."""
        return "shelf" in cls.__dict__

    @classmethod
    def family(cls) -> type[Part]:
        """The nearest family above this class, or the class itself where it is one."""
        return next(base for base in cls.__mro__ if base.__dict__.get("shelf"))

    @property
    def type(self) -> str:
        """The name that a recipe gives in `type`."""
        return type_of(type(self))

    @classmethod
    def types(cls) -> list[str]:
        """The types on this family's shelf, without importing any of them."""
        # Names of files tell the types; a leading underscore marks what they share.
        return sorted(
            m.name
            for m in pkgutil.iter_modules(importlib.import_module(cls.shelf).__path__)
            if not m.name.startswith("_")
        )

    @classmethod
    def find(cls, type: str) -> builtins.type[Self]:
        """Open the file that `type` lives in and return its one member of this family.

        Raises:
            RecipeError: there is no such type, or it is foreign code where none is allowed.
            MissingPackage: the file imports a package that is not installed.
        """
        name = type if "." in type else f"{cls.shelf}.{type}"
        word = cls.family_name()
        # Before anything is imported, since importing runs code.
        if "." in type and not may_import(type):
            raise RecipeError(
                f"the {word} {type!r} is code that is not part of Penstock. It runs only with"
                " --trust"
            )
        # No path that leads elsewhere, such as `..`, reaches the import system.
        if not all(step.isidentifier() for step in name.split(".")):
            raise RecipeError(
                f"{type!r} is not the name of a {word}. Use one of {', '.join(cls.types())},"
                " or the dotted path of your own module"
            )
        # The recipe's folder is searched only for a recipe of the user's own that names
        # code.
        if "." in type and foreign_code_allowed():
            look_beside(recipe_folder())
        is_new = name not in sys.modules
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            # The file is there, and a package that it imports is not.
            if not (name == missing or name.startswith(f"{missing}.")):
                # A module of Penstock's own is missing: a broken installation, no
                # mistake of the recipe.
                if missing.startswith("penstock"):
                    raise
                raise MissingPackage(
                    f"the {word} {type!r} needs the package {missing.split('.')[0]!r}, which is not"
                    " installed. Install it with pip, or install the extra that brings it."
                ) from None
            where = (
                f"Is {name.split('.')[0]!r} importable from here?"
                if "." in type
                else (
                    f"Known: {', '.join(cls.types())}. To add your own, name an importable module, such as"
                    f" 'acme.{type}'."
                )
            )
            raise RecipeError(
                f"no {word} is called {type!r}.{did_you_mean(type, cls.types())} {where}"
            ) from None
        if is_new and "." in type:
            note_source(module)
        # Classes that the module defines itself; what it imports is somebody else's.
        members = [
            v
            for v in vars(module).values()
            if inspect.isclass(v)
            and issubclass(v, cls)
            and v is not cls
            and v.__module__ == name
        ]
        if len(members) != 1:
            raise RecipeError(
                f"{name} must define exactly one {word}, found {len(members)}"
            )
        return members[0]

    @classmethod
    def load(cls, value: Any) -> Self:
        """A part from what a recipe says: a word, or a mapping with `type`.

        Raises:
            pydantic_core.PydanticCustomError: with every mistake (inside a recipe these become one
                `RecipeError`).
        """
        if isinstance(value, cls):
            return value
        word = cls.family_name()
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise mistakes(
                Problem(
                    (),
                    f"expected {_article(word)} {word}: one word of {', '.join(cls.types())}, or a mapping"
                    f" with `type`; found {value!r}",
                )
            )
        # A copy: the caller's mapping keeps its `type`.
        fields = dict(value)
        if "type" not in fields:
            raise mistakes(Problem((), f"needs `type`: one of {', '.join(cls.types())}"))
        name = fields.pop("type")
        if not isinstance(name, str):
            raise mistakes(
                Problem(
                    ("type",),
                    f"expected one word of {', '.join(cls.types())}; found {name!r}",
                )
            )
        try:
            kind = cls.find(name)
        except (RecipeError, MissingPackage) as error:
            raise mistakes(Problem(("type",), error.message)) from None
        try:
            return kind.model_validate(fields)
        except ValidationError as error:
            raise mistakes(*flatten(error, fields)) from None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        # A family is read by `load`, which opens the file; a type is read as any
        # record.
        if not cls.is_family():
            return handler(source)
        return core_schema.no_info_plain_validator_function(
            cls.load,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda part: part.to_dict()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        if not cls.is_family():
            return handler(schema)
        options: list[dict[str, Any]] = [
            {"type": "string", "enum": cls.types()},
            {"type": "string", "pattern": r"\."},
        ]
        outer = _described.get()
        if (
            cls in outer
        ):  # a part that holds parts of its own family: one level is told in full
            return {"anyOf": [*options, {"type": "object", "required": ["type"]}]}
        mark = _described.set(outer | {cls})
        try:
            options += cls._options()
        finally:
            _described.reset(mark)
        return {"anyOf": options}

    @classmethod
    def _options(cls) -> list[dict[str, Any]]:
        """A JSON Schema for each type on the shelf."""
        # Reading the schema of a shelf imports each of its files.
        options = []
        for name in cls.types():
            kind = cls.find(name)
            option = _inlined(kind.model_json_schema())
            option["properties"] = {
                "type": {"const": name},
                **option.get("properties", {}),
            }
            option["required"] = ["type", *option.get("required", [])]
            option["description"] = inspect.getdoc(kind) or ""
            options.append(option)
        return options

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, **super().to_dict()}

    def needs_trust(self) -> str | None:
        """What it would do that a recipe from elsewhere may not ask for, in words (`hands code to
        spark://host`); None if nothing.
        """
        return None


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema without `$defs` of its own, so that it can stand inside another."""
    definitions = schema.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref", "")
            if isinstance(reference, str) and reference.startswith("#/$defs/"):
                # Words beside a reference, such as a description, go before those of
                # what it names.
                return walk(
                    {
                        **definitions[reference.removeprefix("#/$defs/")],
                        **{k: v for k, v in node.items() if k != "$ref"},
                    }
                )
            return {key: walk(value) for key, value in node.items()}
        return [walk(item) for item in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = walk(schema)
    return inlined


def type_of(part: type[Part]) -> str:
    """The word that names this class in a recipe."""
    return part.__module__.removeprefix(part.family().shelf + ".")


def part(type: str) -> Any:
    """A default for a field whose annotation is a family: `combiner: Combiner = part("mlp")`."""
    return {"type": type}


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
