"""Values made coarser: numbers to bands, dates to months, codes to their beginning, places to regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from penstock.contracts.part import mistakes
from penstock.contracts.privacy import Anonymiser, refuse_type
from penstock.core.errors import Problem

if TYPE_CHECKING:
    import ibis.expr.types as ir

_UNITS = {"year": "Y", "quarter": "Q", "month": "M", "week": "W", "day": "D", "hour": "h"}
_MOST_BANDS = 2.0**53


class Generalise(Anonymiser):
    """Makes values coarser, by exactly one of `width`, `to`, `digits` and `values`."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"width": 10},
        {"to": "month"},
        {"digits": 3},
        {"values": {"a": "vowel"}, "other": "none"},
    )

    width: float | None = Field(None, gt=0)
    """Numbers: the lower end of the band of this width that holds the value. 37 with `width: 10` is 30."""
    to: Literal["year", "quarter", "month", "week", "day", "hour"] | None = None
    """Dates and times: the beginning of the year, quarter, month, week (Monday), day or hour."""
    digits: int | None = Field(None, ge=0, le=32)
    """Texts and whole numbers: so many characters of the beginning. 75011 with `digits: 2` is `75`."""
    values: dict[str, str] | None = None
    """Texts: value → what stands for it, such as a town and its region."""
    other: str | None = None
    """With `values`: what stands for a value that is not among them; missing unless given."""

    @model_validator(mode="after")
    def _one_way(self) -> Generalise:
        ways = [
            word
            for word in ("width", "to", "digits", "values")
            if getattr(self, word) is not None
        ]
        if len(ways) != 1:
            shown = ", ".join(f"`{word}`" for word in ways) or "none"
            raise mistakes(
                Problem(
                    (),
                    f"needs one of `width`, `to`, `digits` and `values`; found {shown}",
                )
            )
        if self.other is not None and self.values is None:
            raise mistakes(Problem(("other",), "goes with `values`"))
        return self

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        if self.width is not None:
            return _band(value, self.width)
        if self.to is not None:
            return _beginning(value, self.to)
        kind = value.type()
        if self.values is not None:
            return self._named(value)
        if not (kind.is_string() or kind.is_integer()):
            raise refuse_type("generalise: digits", value, "texts and whole numbers")
        return value.cast("string").substr(0, self.digits)

    def _named(self, value: ir.Value) -> ir.Value:
        import ibis

        if not value.type().is_string():
            raise refuse_type("generalise: values", value, "texts")
        other = ibis.null("string") if self.other is None else ibis.literal(self.other)
        branches = [
            (value == ibis.literal(name), ibis.literal(stands))
            for name, stands in (self.values or {}).items()
        ]
        # A missing value is no other value.
        known = ibis.cases(*branches, else_=other) if branches else other
        return value.notnull().ifelse(known, ibis.null("string"))


def _band(value: ir.Value, width: float) -> ir.Value:
    import ibis

    kind = value.type()
    if not kind.is_numeric() or kind.is_boolean():
        raise refuse_type("generalise: width", value, "numbers")
    if not kind.is_integer():
        share = value.cast("float64") / width
        # Beyond 2⁵³ a band is finer than the numbers; both engines count bands in 64 bits.
        place = share.clip(-_MOST_BANDS, _MOST_BANDS).floor().cast("float64")
        lower = (share.abs() < _MOST_BANDS).ifelse(place * width, value.cast("float64"))
        # There is one zero, as in what is read.
        return (lower + ibis.literal(0.0)).cast(kind)
    if width != int(width):
        raise refuse_type(
            f"generalise: width: {width:g}", value, "numbers with a fraction"
        )
    # Whole numbers stay exact: the rest of a division has the sign of the number on both engines.
    whole = ibis.literal(int(width), type="int64")
    number = value.cast("int64")
    rest = ((number % whole) + whole) % whole
    return (number - rest).cast(kind)


def _beginning(value: ir.Value, unit: str) -> ir.Value:
    kind = value.type()
    if not (kind.is_date() or kind.is_timestamp()):
        raise refuse_type(f"generalise: to: {unit}", value, "dates and times")
    if kind.is_date() and unit == "hour":
        raise refuse_type("generalise: to: hour", value, "times")
    beginning = value.truncate(_UNITS[unit])
    # One engine makes a time of a date here, and Ibis takes it for a date.
    return beginning.cast("timestamp").cast("date") if kind.is_date() else beginning
