"""Raw columns of whatever type, as canonical numbers or text: what several features of this shelf share.

The same value must mean the same whether it came from Parquet, from CSV as text, or from a JSON request; so
every type has one reading here, each decided row by row (a row's neighbours never matter). White space around
text is no part of it, and empty text is a missing value. As text, a number has its shortest spelling and a
whole number no decimal point: 3, 3.0 and Decimal("3.00") are all "3" (text that came as "3.0" stays "3.0": it
is taken as written).

What this file refuses to know: what is learnt from a column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import NOBODY, Refused
from penstock.formats.typed import doubles
from penstock.formats.written import Written

# Decimal spellings alone: no hexadecimals, no separators of thousands, no `inf`.
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_BEYOND = "goes beyond what a double can hold"


def one(columns: Sequence[pa.Array]) -> pa.Array:
    """The only raw column, in one piece and without dictionaries or views."""
    return plain(columns[0])


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column in one piece; dictionaries, extension types, views and null columns as the plain types they
    stand for.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        # combine_chunks of an empty column, in some versions of Arrow
        if isinstance(column, pa.ChunkedArray):
            column = (
                pa.concat_arrays(column.chunks)
                if column.num_chunks
                else pa.array([], column.type)
            )
    # An extension type stands for its storage here, whatever it means elsewhere.
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    # The dictionary's values may themselves be of a type that has to be made plain.
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if (
        pa.types.is_null(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        return column.cast(pa.string())
    return column


def shown(value: object) -> str:
    """A value as a reason shows it: quoted, and not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refusing(
    column: pa.Array, mask: np.ndarray, reason: Callable[[object], str]
) -> Refused:
    """The rows where `mask`, with a reason made from each one's value."""
    rows = np.flatnonzero(mask)
    if not len(rows):
        return NOBODY
    # The refused rows alone become Python objects.
    return Refused(
        rows, [reason(value) for value in column.take(pa.array(rows)).to_pylist()]
    )


def together(*refused: Refused) -> Refused:
    """Several refusals of one column as one; of two reasons for a row the first stands."""
    reasons: dict[int, str] = {}
    for some in refused:
        for row, reason in zip(some.rows.tolist(), some.reasons, strict=True):
            reasons.setdefault(row, reason)
    if not reasons:
        return NOBODY
    rows = sorted(reasons)
    return Refused(np.array(rows, np.int64), [reasons[row] for row in rows])


def missing_refused(column: pa.Array, refused: Refused) -> Refused:
    """With the missing values refused as well, for `missing: error`."""
    nulls = np.flatnonzero(present(column) == 0)
    return (
        together(
            refused,
            Refused(
                nulls, ["is missing, and `missing: error` was declared"] * len(nulls)
            ),
        )
        if len(nulls)
        else refused
    )


def present(column: pa.Array) -> np.ndarray:
    """Where the column has a value, bool `[n]`."""
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def without(column: pa.Array, mask: np.ndarray) -> pa.Array:
    """The column with nulls where `mask`."""
    return (
        pc.if_else(pa.array(mask), pa.scalar(None, column.type), column)
        if mask.any()
        else column
    )


def stripped(column: pa.Array, na: Sequence[str]) -> pa.Array:
    """Text without surrounding white space; null where that leaves nothing, or one of the texts in `na`."""
    text = pc.utf8_trim_whitespace(column)
    # `na` is stripped as the column is, or padded spellings of it would never match.
    gone = pa.array(sorted({"", *(word.strip() for word in na)}))
    return pc.if_else(pc.is_in(text, value_set=gone), pa.scalar(None, pa.string()), text)


def decoded(column: pa.Array) -> tuple[pa.Array, Refused]:
    """Bytes as the UTF-8 text they hold; other bytes are refused."""
    if not (
        pa.types.is_binary(column.type)
        or pa.types.is_large_binary(column.type)
        or pa.types.is_fixed_size_binary(column.type)
        or pa.types.is_binary_view(column.type)
    ):
        return column, NOBODY
    # The whole column at once; value by value only where some bytes are not UTF-8.
    try:
        return column.cast(pa.string()), NOBODY
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        bad: list[int] = []
        for row, value in enumerate(column.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad.append(row)
        return pa.array(texts, pa.string()), Refused(
            np.array(bad, np.int64), ["bytes that are not UTF-8 text"] * len(bad)
        )


def numbers(
    column: pa.Array, na: Sequence[str] = (), written: Written | None = None
) -> tuple[pa.Array, Refused]:
    """A plain column as doubles `[n]`: null where missing (NaN, the text "nan" and `na` included) or refused.

    Numbers, booleans (0 and 1), decimals and text that is a number are read; infinities are refused, since
    nothing can be learnt from them and one would spoil every mean.

    Args:
        written: how texts are written, where they are not spelt as files and JSON spell numbers.
    """
    column, undecoded = decoded(column)
    kind = column.type
    if pa.types.is_string(kind):
        values, refused = _numbers_in_text(column, na, written)
        return values, together(undecoded, refused)
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).cast(pa.float64()), NOBODY
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        # The members of a list or structure have no room in a reason.
        name = str(kind).partition("[")[0].partition("<")[0]
        return pa.nulls(len(column), pa.float64()), refusing(
            column, present(column), lambda value: f"a {name} is not a number"
        )
    values = (
        doubles(column)
        if pa.types.is_decimal(kind)
        else pc.cast(column, pa.float64(), safe=False)
    )
    # Whole numbers and decimals have neither NaN nor infinity.
    if not pa.types.is_floating(kind):
        return values, NOBODY
    # NaN is how numpy and pandas write a missing number.
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return _finite(values, values, "is not a finite number")


def _finite(
    values: pa.Array, original: pa.Array, complaint: str
) -> tuple[pa.Array, Refused]:
    infinite = np.asarray(
        pc.fill_null(pc.is_inf(values), False).to_numpy(zero_copy_only=False), dtype=bool
    )
    return without(values, infinite), refusing(
        original, infinite, lambda value: f"{shown(value)} {complaint}"
    )


def _numbers_in_text(
    column: pa.Array, na: Sequence[str], written: Written | None
) -> tuple[pa.Array, Refused]:
    # "nan" in text is what NaN is among numbers: missing.
    text = stripped(column, (*na, "nan", "NaN", "NAN"))
    if written is None:
        # A null is missing, not malformed.
        good = pc.fill_null(pc.match_substring_regex(text, _NUMBER), True)
        bad = ~np.asarray(good.to_numpy(zero_copy_only=False), dtype=bool)
        readable = without(text, bad)
        how = ""
    else:
        readable = written.plain(text)
        bad = present(text) & ~present(readable)
        how = f" written with {written.words()}"
    values = pc.cast(pc.replace_substring_regex(readable, r"^\+", ""), pa.float64())
    # 1e999 is spelt like a number, and Arrow reads it as infinity.
    values, beyond = _finite(values, text, _BEYOND)
    return values, together(
        refusing(text, bad, lambda value: f"{shown(value)} is not a number{how}"), beyond
    )


def texts(column: pa.Array, na: Sequence[str] = ()) -> tuple[pa.Array, Refused]:
    """A plain column as text `[n]`: null where missing or refused. Lists and structures are refused."""
    column, undecoded = decoded(column)
    kind = column.type
    if pa.types.is_nested(kind):
        return pa.nulls(len(column), pa.string()), refusing(
            column,
            present(column),
            lambda value: f"expected one value, found {shown(value)}",
        )
    if not pa.types.is_string(kind):
        column = _spelt(column)
    return stripped(column, na), undecoded


def words(
    columns: Sequence[pa.Array], na: Sequence[str] = ()
) -> tuple[pa.Array, Refused]:
    """The only raw column as text, as `texts` reads it; a column that comes with a dictionary keeps one, and
    each word is read once.
    """
    column = columns[0]
    # Reading a dictionary that has more words than the column has rows would cost more.
    if not isinstance(column, pa.DictionaryArray) or len(column.dictionary) > len(column):
        return texts(one(columns), na)
    entries, refused = texts(plain(column.dictionary), na)
    if len(refused.rows):  # the reasons must name rows, not words
        return texts(one(columns), na)
    indices = column.indices
    if entries.null_count:
        # Rows of a word that is missing get a null index.
        places = pc.if_else(
            entries.is_valid(),
            pa.array(np.arange(len(entries), dtype=np.int32)),
            pa.scalar(None, pa.int32()),
        )
        # No index points there any more; a null among the words would be a second kind
        # of missing.
        indices, entries = places.take(indices), pc.fill_null(entries, "")
    return pa.DictionaryArray.from_arrays(indices, entries), NOBODY


def by_word(
    column: pa.Array, what: Callable[[pa.Array], np.ndarray], missing: int
) -> np.ndarray:
    """`what` of each value of a text column: worked out once a word where the column has a dictionary;
    `missing` for a null.
    """
    if not isinstance(column, pa.DictionaryArray):
        return what(column)
    answers = what(column.dictionary)
    # A place behind the last word stands for null.
    places = np.asarray(pc.fill_null(column.indices.cast(pa.int64()), len(answers)))
    return np.asarray(np.append(answers, np.asarray(missing, answers.dtype))[places])


def _spelt(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_floating(kind):
        # as every source gives it: a number has one spelling, however it is stored
        column = pc.cast(column, pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        # 0.5 is not whole, so that a null is not taken for a whole number.
        values = np.asarray(
            pc.fill_null(column, 0.5).to_numpy(zero_copy_only=False), dtype=np.float64
        )
        with np.errstate(invalid="ignore"):
            # Above 2^53 doubles skip whole numbers, so Arrow's own spelling stands.
            whole = (np.abs(values) < 2**53) & (np.floor(values) == values)
        text = pc.cast(column, pa.string())
        if whole.any():
            text = pc.if_else(
                pa.array(whole),
                pc.cast(
                    pa.array(np.where(whole, values, 0).astype(np.int64)), pa.string()
                ),
                text,
            )
        return text
    text = pc.cast(column, pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        # Zeros at a fraction's end go, so that Decimal("3.00") and 3 are one spelling.
        text = pc.replace_substring_regex(text, r"(\.[0-9]*?)0+(Z?)$", r"\1\2")
        # So does the point that is then left over.
        text = pc.replace_substring_regex(text, r"\.(Z?)$", r"\1")
    return text


def word(value: object) -> str:
    """One value from a recipe, spelt as its column would spell it."""
    spelt, _ = texts(plain(pa.array([value])))
    spelling = spelt[0].as_py()
    return "" if spelling is None else str(spelling)
