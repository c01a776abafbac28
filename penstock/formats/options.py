"""`Reading`: the words with which a recipe says how files are read.

One record for all formats; a word that makes no sense for the files at hand is refused when they are read,
never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from penstock.contracts.part import Strict, mistakes
from penstock.contracts.reading import Reader
from penstock.core.errors import Problem
from penstock.formats.path_pattern import check_encoding
from penstock.formats.respelt import Respelling, bad_format

CSV_WORDS = (
    "header",
    "names",
    "delimiter",
    "quote",
    "escape",
    "skip_rows",
    "comment",
    "strip",
    "encoding",
    "decimal",
    "thousands",
    "date_format",
)
"""Words of `Reading` that say how text is cut into cells, and what the cells spell."""
SPELLING = ("decimal", "thousands", "date_format")
"""Those that say what cells spell; left out of a recipe's plain data where they are not given, so that
datasets made before there were these words keep their ids.
"""
_FOR_SOME = CSV_WORDS
"""The words that not every format understands: a reader names those that it does (`Reader.words`)."""


def load_format(value: Any) -> Reader | Literal["auto"]:
    """Make a reader of the format that a recipe or a bundle names.

    Raises:
        pydantic_core.PydanticCustomError: it is none, or foreign code where none is allowed.
    """
    return "auto" if value == "auto" else Reader.load(value)


def _with_auto(problem: Problem) -> Problem:
    """A mistake in a format's name, with the one word that is no reader's name; others as they are."""
    if problem.path not in ((), ("type",)):
        return problem
    return Problem(
        problem.path,
        f"{problem.text.removesuffix('.')}. `format: auto` takes the format that a file's ending or first"
        " bytes name.",
    )


class _FormatWord:
    """How a recipe says a format: `auto`, the name of a reader, or a mapping with its `type` and its own
    options.
    """

    @staticmethod
    def load(value: Any) -> Reader | Literal["auto"]:
        try:
            return load_format(value)
        except PydanticCustomError as error:
            name = value.get("type") if isinstance(value, Mapping) else value
            if isinstance(name, str) and "." in name:
                raise  # a reader of the user's own is wanted, and no other
            problems: tuple[Problem, ...] = (error.context or {})["problems"]
            raise mistakes(*map(_with_auto, problems)) from None

    @staticmethod
    def dump(value: Reader | Literal["auto"]) -> Any:
        if isinstance(value, str):
            return value
        if "." in value.type:
            return value.to_dict()
        # A built-in format is one word, as it always was: the ids of datasets are made of it.
        given = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"type": value.type, **given} if given else value.type

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.load,
            serialization=core_schema.plain_serializer_function_ser_schema(self.dump),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        known = Reader.__get_pydantic_json_schema__(schema, handler)
        return {"anyOf": [{"const": "auto"}, *known["anyOf"]]}


Format = Annotated[Literal["auto"] | Reader, _FormatWord()]


def one_or_many(value: Any) -> Any:
    """A text as a list of one; any other value as it is. For words that take one or many."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]


_Mark = Literal[".", ","] | dict[str, Literal[".", ","]]
_Point = Literal[",", ".", " ", "'", "_"]
_Group = _Point | dict[str, _Point]


class Reading(Strict):
    """How a file's bytes become rows."""

    format: Format = "auto"
    """`auto`: by the file's ending (`.gz` and `.zst` apart), else by its first bytes. `acme.kv`: a reader of
    your own, in `acme/kv.py`; `{type: acme.kv, …}` with options of its own.
    """
    header: Literal["auto", True, False] = "auto"
    """CSV: whether the first line has the columns' names.

    `auto`: names that were learnt (by a bundle, for later files) tell it; of several files, the names that
    they share, in any order, and a file that shares none with the others is refused; of one file alone its
    looks, and where there is none it is said. A line that repeats the header, as where files were joined, is
    a bad row; a first line of names that fits nearly no line below is refused (see docs/reading.md).
    """
    names: Names = ()
    """CSV: the columns' names, in place of a header's."""
    delimiter: str | None = None
    """CSV: one character between cells; `auto`: the one of , ; tab | that fits; `spaces`: blanks, however
    many.
    """
    quote: str | None = '"'
    """CSV: what cells with delimiters or line ends are wrapped in; null: a quote is a character like any
    other.
    """
    escape: str | None = None
    """CSV: the character before a quote or delimiter that is meant literally; a quote is doubled unless
    given.
    """
    encoding: str = "utf-8"
    """CSV and JSON lines: any encoding Python knows, or `auto`: by the byte-order mark, else UTF-8, else
    Latin-1, aloud.
    """
    skip_rows: int = Field(0, ge=0)
    """CSV: how many lines at the top are no data."""
    comment: str | None = None
    """CSV: lines that begin with this are no data."""
    na: Names = ()
    """Texts that stand for a missing value. An empty CSV cell is always one."""
    strip: bool = True
    """CSV: take white space off both ends of each cell."""
    trim_end: dict[str, str] = {}
    """By column: what is cut off the end of its texts, once."""
    rename: dict[str, str] = {}
    """From the names in the files to better ones; all other words use the new names."""
    types_: dict[str, Literal["text", "integer", "number", "boolean", "timestamp"]] = (
        Field({}, alias="types")
    )
    """By column: the type it must have; a row whose value is not of it is bad."""
    decimal: _Mark | None = None
    """CSV: what stands before decimals, `.` or `,`; of all columns, or by column: `{price: ","}`.

    A column becomes numbers where all of its texts are written so. A column of numbers of which some are not
    is refused: say the word by column.
    """
    thousands: _Group | None = None
    """CSV: what stands between groups of three digits: `.`, `,`, `'`, `_` or a space (any white space). A
    number may leave it out.
    """
    date_format: str | dict[str, str] | None = None
    """CSV: how dates and times are written, in the words of Python's strptime (`%d-%b-%y`); of all columns
    whose texts are all written so, or by column.
    """
    columns: Names = ()
    """The columns to read; all unless given."""
    on_bad_row: Literal["quarantine", "fail"] = "quarantine"
    """What becomes of a row that cannot be read."""

    @model_validator(mode="after")
    def _sensible(self) -> Reading:
        problems: list[Problem] = []
        # `auto` means the same as leaving it out.
        if self.delimiter == "auto":
            object.__setattr__(self, "delimiter", None)
        for word in ("delimiter", "quote", "escape"):
            value = getattr(self, word)
            if word == "delimiter" and value == "spaces":
                continue
            if value is not None and (
                len(value) != 1 or not value.isascii() or value in "\r\n\0"
            ):
                problems.append(
                    Problem(
                        (word,),
                        f"expected one ASCII character, no line end and no zero; found {value!r}",
                    )
                )
        # Null is no character: there is no quote, or no escape.
        given = [c for c in (self.delimiter, self.quote, self.escape) if c is not None]
        if len(given) != len(set(given)):
            problems.append(
                Problem(
                    (),
                    "delimiter, quote and escape must differ (a doubled quote needs no `escape`)",
                )
            )
        if self.comment is not None and (
            "\n" in self.comment or "\r" in self.comment or "\0" in self.comment
        ):
            problems.append(
                Problem(
                    ("comment",),
                    f"must be what a line begins with, without line ends and zeros; found {self.comment!r}",
                )
            )
        if self.comment == "":
            problems.append(
                Problem(
                    ("comment",),
                    "must not be empty; leave it out if there are no comments",
                )
            )
        if wrong := check_encoding(self.encoding):
            problems.append(
                Problem(("encoding",), wrong.replace("encoding of text", "encoding"))
            )
        problems += self._misspelt()
        problems += (
            _twice("names", self.names)
            + _twice("columns", self.columns)
            + _twice("rename", tuple(self.rename.values()))
        )
        if problems:
            raise mistakes(*problems)
        return self

    def _misspelt(self) -> list[Problem]:
        """Mistakes in the words that say what cells spell."""
        names: set[str | None] = {None}
        for word in SPELLING:
            given = getattr(self, word)
            names.update(given if isinstance(given, dict) else ())
        problems: list[Problem] = []
        for name in sorted(names, key=lambda name: name or ""):
            spelt = self.respelling("" if name is None else name)
            # `.` is what stands before decimals unless another mark is said to.
            if spelt is not None and spelt.thousands and spelt.thousands == spelt.decimal:
                problems.append(
                    Problem(
                        ("thousands",), f"is {spelt.thousands!r}, and so is `decimal`"
                    )
                )
            if spelt is not None and spelt.date_format is not None:
                wrong = bad_format(spelt.date_format)
                problems += [Problem(("date_format",), wrong)] if wrong else []
        return list(dict.fromkeys(problems))

    def respelling(self, column: str) -> Respelling | None:
        """How the texts of a column are written; None: as everywhere."""
        return Respelling.of({word: getattr(self, word) for word in SPELLING}, column)

    def names_spelling_of(self, column: str) -> bool:
        """Whether a word says by name how the texts of a column are written."""
        given = [getattr(self, word) for word in SPELLING]
        return any(column in value for value in given if isinstance(value, dict))

    def for_some(self) -> list[str]:
        """The words given that not every format understands."""
        return [word for word in _FOR_SOME if getattr(self, word) != _DEFAULTS[word]]

    def options(self) -> dict[str, Any]:
        """These words alone, as a recipe spells them (a subclass has others beside them)."""
        return {
            field.alias or name: getattr(self, name)
            for name, field in Reading.model_fields.items()
        }

    def plain(self) -> Reading:
        """These words alone, as a `Reading`."""
        return Reading.model_validate(self.options())


_DEFAULTS = {word: Reading.model_fields[word].default for word in _FOR_SOME}


def _twice(word: str, values: tuple[str, ...]) -> list[Problem]:
    return [
        Problem((word,), f"{name!r} is there twice")
        for name in dict.fromkeys(v for v in values if values.count(v) > 1)
    ]


class FilesAs(Reading):
    """Files with reading options of their own, over the shared ones. Only the words given count."""

    path: Names
    """A path, glob or folder, or a list of them."""

    @model_serializer(mode="wrap")
    def _given(self, handler: Any) -> dict[str, Any]:
        given = {
            (field.alias or name, name)
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set
        }
        whole = handler(self)
        return {
            word: whole[word if word in whole else name] for word, name in sorted(given)
        }

    def over(self, shared: Reading) -> Reading:
        """The shared options with these put over them."""
        own = {
            f.alias or n: getattr(self, n)
            for n, f in Reading.model_fields.items()
            if n in self.model_fields_set
        }
        return Reading.model_validate({**shared.options(), **own})
