"""Pictures that cannot be used: unreadable, too small, blank, or of a mode that is not expected.

A picture is decoded as the feature `image` decodes it, so what is found here is what training would meet.
Bytes travel beside the engine, and are read a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field

from penstock.contracts.judge import BatchJudge, Columns
from penstock.core.errors import ContractError
from penstock.formats.pictures import BadPicture, decode, from_text, header_of, spread
from penstock.parts.cleaners._words import Names, one_or_many

Mode = Literal[
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"
]
_SIDE = 128
"""Of the picture that is looked at for being blank."""


class Pictures(BatchJudge):
    """Finds rows whose pictures are unreadable, too small, blank, or of another mode."""

    large: ClassVar[bool] = True
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text"},
        {"columns": "text", "side": 8, "modes": ["RGB"]},
    )

    columns: Names = Field(min_length=1)
    """Columns of pictures: the bytes of files, or the same as base64 text. A missing one is not judged."""
    side: int | None = Field(None, ge=1)
    """The shorter side has at least so many pixels."""
    blank: int | None = Field(2, ge=0, le=254)
    """A picture is blank when its brightest and darkest spots differ by at most so many of 255 levels of
    grey; null judges none as blank.
    """
    modes: Annotated[tuple[Mode, ...], BeforeValidator(one_or_many)] = ()
    """The modes, in Pillow's names, that a picture may have: `[RGB, L]`. All unless given."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def judge(
        self, columns: Columns, facts: Mapping[str, Any], gathered: Any
    ) -> Mapping[str, pa.Array]:
        return {
            name: pa.array(
                spread(self._why, self._values(name, columns[name])), pa.string()
            )
            for name in self.columns
        }

    @staticmethod
    def _values(name: str, column: pa.Array) -> list[bytes | str | None]:
        kind = column.type
        is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not (is_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ContractError(
                f"pictures: the column {name!r} holds {kind}; expected the bytes of files, or base64 text."
                " Leave it out."
            )
        values: list[bytes | str | None] = column.to_pylist()
        return values

    def _why(self, value: bytes | str | None) -> str | None:
        """Why a picture cannot be used; None where it can."""
        if value is None:
            return None
        try:
            data = from_text(value) if isinstance(value, str) else value
            height, width, mode = header_of(data)
            if self.side is not None and min(height, width) < self.side:
                return f"has {width} × {height} pixels, expected at least {self.side} on each side"
            if self.modes and mode not in self.modes:
                return f"is of the mode {mode}, expected {', '.join(self.modes)}"
            grey = decode(data, _SIDE, _SIDE, 1, resize="stretch")
        except BadPicture as problem:
            return str(problem)
        levels = int(grey.max()) - int(grey.min())
        if self.blank is not None and levels <= self.blank:
            return f"is blank: its spots differ by {levels} of 255 levels of grey"
        return None
