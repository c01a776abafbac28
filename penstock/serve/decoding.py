"""Turns request bodies into columns, and answers into bodies: small ones at once, large
ones in one thread beside the event loop.

One thread, so that one large request at a time is taken apart: what it takes in memory while it is Python
objects (`reading.most_bytes`) is taken once, not once a request. Its result is Arrow columns, about as large
as the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from penstock.bundle.record_shape import RecordShape
from penstock.bundle.rows import FLAT, Intake, from_records
from penstock.recipe.names import kept_names
from penstock.serve import protocol
from penstock.serve.datatypes import is_bytes
from penstock.serve.protocol import Question
from penstock.serve.reading import Malformed, most_bytes, read_json
from penstock.serve.worker_thread import WorkerThread

AT_ONCE_BYTES = 16 * 2**10
"""A body up to this is read in the event loop: at worst two milliseconds, where a thread costs a tenth of one
each time.
"""
AT_ONCE_ROWS = 64
_READ = (
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/plain",
    "text/json",
)
"""Types of bodies that are read; `curl -d` says the third of JSON.

Others that end in `+json`, and pictures, are as well.
"""

_WRAPPERS = ("records", "instances")
"""Words of a body that hold its records; the second is TensorFlow Serving's."""
T = TypeVar("T")
Body = bytes | bytearray


@dataclass(frozen=True)
class Rows:
    """The rows of a `/predict` body."""

    intake: Callable[[], Intake]
    rows: int
    carried: list[dict[str, Any]] | None
    """What goes with each prediction as it came; None: nothing."""


class Decoder:
    """Reads bodies and writes answers.

    Args:
        columns: the raw columns that a request must have.
        answers: the columns that can be asked for.
        keep: fields carried along into the prediction.
        max_rows: the most rows of one request.
        max_request_bytes: the most bytes of one body.
        shape: how records may call their fields.
    """

    def __init__(
        self,
        columns: Mapping[str, pa.DataType],
        answers: pa.Schema,
        *,
        keep: Sequence[str],
        max_rows: int,
        max_request_bytes: int,
        shape: RecordShape = FLAT,
    ) -> None:
        self._columns = columns
        self._shape = shape
        # A column of that name may be meant by the word, unless a list follows it.
        self._wrappers = {word: word not in columns for word in _WRAPPERS}
        # So may a field that holds columns: `records.score`.
        sources = {name: {name, *shape.sources(name)} for name in columns}
        self._beside = {
            word: _beside(word, sources)
            for word in _WRAPPERS
            if any(word in sources[name] for name in columns if name != word)
        }
        self._answers = answers
        self._keep = list(keep)
        self._max_rows = max_rows
        self._most = most_bytes(max_request_bytes)
        self._worker_thread = WorkerThread("penstock-bodies")

    async def records(self, body: Body, content_type: str) -> Rows:
        """Read the rows of a `/predict` body.

        Raises:
            HTTPException: 415, of a type that is not read.
            Malformed: it is not JSON, or not of that form.
            TooLarge: too many rows, or too much in memory.
            RequestError: a row cannot be read.
        """
        kind = content_type.partition(";")[0].strip().lower()
        picture = kind.startswith("image/")
        # A body without a type is taken for JSON.
        if kind and kind not in _READ and not picture and not kind.endswith("+json"):
            raise HTTPException(
                415,
                f"a body of the type {kind[:80]!r} is not read; send JSON (application/json)",
            )
        if picture or kind == "application/octet-stream":
            return self._picture(body, kind)
        return await self._do(len(body), lambda: self._records(body))

    async def tensors(self, body: Body, header_length: str | None) -> Question:
        """Read an inference request of the Open Inference Protocol; raises what
        `protocol.parse` raises.
        """
        return await self._do(
            len(body),
            lambda: protocol.parse(
                body,
                header_length,
                self._columns,
                self._answers,
                max_rows=self._max_rows,
                most_bytes=self._most,
                shape=self._shape,
            ),
        )

    async def write(self, rows: int, work: Callable[[], T]) -> T:
        """Run `work`, which writes the answer to `rows` rows: in the thread where they
        are many.
        """
        return work() if rows <= AT_ONCE_ROWS else await self._worker_thread.do(work)

    def close(self) -> None:
        """End the thread that decodes large bodies."""
        self._worker_thread.stop()

    async def _do(self, size: int, work: Callable[[], T]) -> T:
        return work() if size <= AT_ONCE_BYTES else await self._worker_thread.do(work)

    def _records(self, body: Body) -> Rows:
        content = read_json(body, most=self._most, rows=self._max_rows, key=_WRAPPERS)
        records = self._unwrapped(content) if isinstance(content, dict) else content
        if not isinstance(records, list):
            raise Malformed(
                'expected {"records": [{field: value, …}, …]}; found something else'
            )
        intake: Callable[[], Intake]
        if len(body) <= AT_ONCE_BYTES:
            # In the answering thread, with the encoding.
            intake = lambda: self._intake(records)  # noqa: E731
        else:
            # Read here, in the thread of large bodies: the Python objects are gone
            # before the rows queue.
            taken = self._intake(records)
            intake = lambda: taken  # noqa: E731
        return Rows(intake, len(records), self._carried(records))

    def _intake(self, records: list[Any]) -> Intake:
        return from_records(records, self._columns, (), self._shape)

    def _unwrapped(self, content: dict[str, Any]) -> Any:
        """Return the records of an object: those under `records` or `instances`, or the
        object itself as the only one.

        Raises:
            Malformed: it has both words, or another that holds them.
        """
        words = [
            word
            for word, always in self._wrappers.items()
            if word in content
            and (always or isinstance(content[word], list))
            # A field of the only record, if other columns are beside it.
            and self._beside.get(word, frozenset()).isdisjoint(content)
        ]
        if len(words) > 1:
            raise Malformed("the body has `records` and `instances`; give one of them")
        if words:
            return content[words[0]]
        # Another word around the records, such as `data`: no field of a record is there.
        if (word := _wrapper(content)) is not None:
            record = self._shape.flat(content, self._columns)
            if not any(name in record for name in self._columns):
                raise Malformed(
                    f"the rows are under {word[:80]!r}; the word for them is `records`:"
                    ' {"records": [{field: value, …}, …]}'
                )
        return [content]

    def _carried(self, records: list[Any]) -> list[dict[str, Any]] | None:
        """Return the kept fields of each record, those that are no inputs first; None
        if no record has any.
        """
        absent = [name for name in self._keep if name not in self._columns]
        if any("." in name for name in absent):
            records = [self._shape.flat(record, absent) for record in records]
        given = [
            name
            for name in absent
            if any(isinstance(record, dict) and name in record for record in records)
        ]
        # Kept fields that are inputs are in every record, so they need no search.
        names = [*given, *(name for name in self._keep if name in self._columns)]
        if not names:
            return None
        # A kept column and an answer of the same name do not hide each other.
        written = kept_names(names, self._answers.names)
        return [_fields(record, written) for record in records]

    def _picture(self, body: Body, kind: str) -> Rows:
        """Read a body that is itself a picture, as one record.

        Raises:
            Malformed: the model reads more than one column, or none of bytes.
        """
        only = next(iter(self._columns), "")
        if len(self._columns) != 1 or not is_bytes(self._columns[only]):
            expected = ", ".join(
                f"{name} ({type})" for name, type in self._columns.items()
            )
            raise Malformed(
                f"a body of {kind[:80]} is one column of bytes, but the model reads {expected}; send JSON,"
                " with bytes as base64"
            )
        record = {only: bytes(body)}
        return Rows(lambda: from_records([record], self._columns), 1, None)


def _beside(word: str, sources: Mapping[str, set[str]]) -> frozenset[str]:
    """The fields that may hold the columns which are not within the field `word`."""
    others = (fields for fields in sources.values() if word not in fields)
    return frozenset(field for fields in others for field in fields)


def _wrapper(content: Mapping[str, Any]) -> str | None:
    """The only word of an object that holds a list of objects; None if there is none."""
    words = [
        word
        for word, value in content.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    return words[0] if len(words) == 1 else None


def _fields(record: Any, written: Mapping[str, str]) -> dict[str, Any]:
    """Pick some fields of a record, under the names they are written by; empty for what
    is no record.
    """
    return (
        {own: record.get(name) for name, own in written.items()}
        if isinstance(record, dict)
        else {}
    )


def predictions_of(
    table: pa.Table, carried: list[dict[str, Any]] | None, about: Mapping[str, Any]
) -> bytes:
    """Write the body of an answer to `/predict`, in pieces, so that other threads can
    run in between.

    Args:
        table: the answers, one row a record.
        carried: what goes before each.
        about: the other members of the answer.
    """
    pieces: list[bytes] = []
    for start in range(0, table.num_rows, AT_ONCE_ROWS):
        rows = table.slice(start, AT_ONCE_ROWS).to_pylist()
        if carried is not None:
            rows = [
                {**own, **row}
                for own, row in zip(
                    carried[start : start + AT_ONCE_ROWS], rows, strict=True
                )
            ]
        # Without the list's brackets, so that the pieces join into one list.
        pieces.append(to_json(rows, inf_nan_mode="constants", bytes_mode="base64")[1:-1])
    # Without the opening brace, since these members close the object begun above.
    rest = to_json(about)[1:]
    return b'{"predictions":[' + b",".join(pieces) + b"]," + rest
