"""What one column is: a feature type and its options, or nothing, and why, in a short sentence."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.labels import delimited, listed
from penstock.inspect.moments import days, moments
from penstock.inspect.personal import personal
from penstock.inspect.picture_names import picture_names
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.recordings import recordings
from penstock.inspect.text_kinds import bracketed_lists, letters, pairs, ranges
from penstock.inspect.units import incomparable
from penstock.inspect.wording import derive_hint, figure, quoted, shown, sql

# UUIDs, hashes in hexadecimal, links, and addresses of mail.
_IDENTIFIER = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"
    r"[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|"
    r"https?://\S+|[^@\s]+@[^@\s]+\.[a-z]+",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(
    r"(^|[._\- ])(time|date|timestamp|ts|created|updated|modified|at|on|when|epoch)($|[._\-"
    r" ])|(Time|Date|At)$|time$|date$",
    re.IGNORECASE,
)
# Unit → least and greatest count that is a likely moment since 1970.
_EPOCHS = {
    "s": (10**8, 5 * 10**9),
    "ms": (10**11, 5 * 10**12),
    "us": (10**14, 5 * 10**15),
}
_CODE = re.compile(r"[A-Za-z]{1,3}[-.]?\d+([.-]\d+)?")
_POSTAL = re.compile(
    r"(^|[._\- ])(zip|zip[._\- ]?code|post(al)?[._\- ]?code|plz)$", re.IGNORECASE
)

FEW = 20
"""Fewer rows than this say nothing about a column being an identifier."""


def judge(look: Look) -> Finding:
    """The feature proposed for a column as an input; one without a type leaves the column out."""
    name, kind = look.name, look.type
    # Before anything else: a column of nulls may have any type.
    if not look.rows or look.raw.null_count == look.rows:
        return Finding(name, None, "missing in every row looked at", role="constant")
    if (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    ):
        return _list(look)
    if unread := _unread(look) or _constant(look):
        return unread
    if named := picture_names(look) or personal(look):
        return named
    if mixed := _mixed_spelling(look):
        return mixed
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Finding(
            name, "timestamp", f"moments in time, {_span(look)}{look.missing_words()}"
        )
    if pa.types.is_boolean(kind):
        return Finding(name, "binary", f"true or false{look.missing_words()}")
    # A code such as 00501 is numeric in every row and yet no quantity.
    # Digits by the hundred are infinite as a double, and no quantity either.
    if look.numeric_share == 1 and look.has_finite and not _is_code(look):
        return _number(look)
    return _text(look)


def _mixed_spelling(look: Look) -> Finding | None:
    """Numbers of which some are plain, or in one unit, and the others are written in another way."""
    if look.is_text and look.spelling is None and (pair := incomparable(look.present)):
        why = (
            f"quantities in units that cannot be compared, {shown(pair[0])} beside {shown(pair[1])}: no"
            " number can be read from them. Write all of them in one unit"
        )
        return Finding(look.name, None, why, loud=True, role="text")
    plain = look.spelling.mixed if look.spelling is not None else ""
    if not plain:
        return None
    other = next((v for v in look.present if v not in look.values), plain)
    return Finding(
        look.name,
        None,
        f"numbers in two spellings, {shown(plain)} beside {shown(other)}: no words read both. Write all of"
        " them in one way",
        loud=True,
        role="text",
    )


def _unread(look: Look) -> Finding | None:
    """A column of a type that no feature reads as it is."""
    name, kind = look.name, look.type
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        first = (
            kind.field(0).name
            if pa.types.is_struct(kind) and kind.num_fields
            else "field"
        )
        hint = derive_hint(f"{name}_{first}", f"{sql(name)}.{sql(first)}")
        return Finding(
            name, None, "an object; features read single values", role="list", hint=hint
        )
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        if sound := recordings(look):
            return sound
        why = "bytes that are no pictures; no feature of this version reads them"
        return Finding(name, None, why, role="text")
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        hint = derive_hint(f"{name}_seconds", f"epoch({sql(name)})")
        return Finding(
            name, None, f"a {kind}; derive a number from it", role="list", hint=hint
        )
    return None


def _constant(look: Look) -> Finding | None:
    """A column with nothing to learn from: one value, or one in nearly all rows."""
    if look.filled == 0:
        why = f"missing in every row looked at{look.na_words()}"
        return Finding(look.name, None, why, role="constant")
    top = max(look.present.values())
    full = look.filled == look.rows
    if look.distinct == 1 and full:
        why = f"{shown(next(iter(look.present)))} in every row looked at: nothing to learn from"
        return Finding(look.name, None, why, role="constant")
    # Nine rows that differ among a thousand teach nothing, and may be slips.
    if look.rows >= 1_000 and full and look.rows - top < 10 and look.distinct > 1:
        why = f"the same in all but {look.rows - top} of {look.rows:,} rows looked at"
        return Finding(look.name, None, why, role="constant")
    return None


def _is_code(look: Look) -> bool:
    """Digits with leading zeros of one length, or named so: a code (postal, product), not a quantity."""
    return bool(look.is_text and _POSTAL.search(look.name)) or (
        # One length for all, and one at least with a leading zero.
        look.is_text
        and len({len(v) for v in look.present}) == 1
        and any(v.startswith("0") and v.isdigit() and len(v) > 1 for v in look.present)
    )


def _number(look: Look) -> Finding:
    name, values = look.name, look.numbers[np.isfinite(look.numbers)]
    named_time = bool(_TIME_NAME.search(name))
    if look.whole and (look.distinct >= FEW or named_time) and (dated := days(look)):
        return dated
    if coded := _identifier(look, values):
        return coded
    for unit, (low, high) in _EPOCHS.items():
        # Range and name together: either alone would take amounts for moments.
        if look.whole and named_time and values.min() >= low and values.max() <= high:
            return Finding(
                name,
                "timestamp",
                f"whole numbers in the range of {unit} since 1970, and named like a"
                f" time{look.missing_words()}",
                {"unit": unit},
            )
    if look.distinct == 2 and set(np.unique(values)) == {0.0, 1.0}:
        return Finding(
            name, "binary", f"0 and 1{look.missing_words()}{look.na_words()}", look.na()
        )
    what = "whole numbers" if look.whole else "numbers"
    return Finding(
        name,
        "number",
        f"{what}{spelt(look)}, {figure(values.min())} to {figure(values.max())}, {look.distinct:,}"
        f" different{look.missing_words()}{look.na_words()}{doubt(look)}",
        look.as_number(),
        loud=bool(doubt(look)),
    )


def _identifier(look: Look, values: np.ndarray) -> Finding | None:
    """Whole numbers that name something, left out or as categories; None for a quantity."""
    name = look.name
    # Below FEW rows, values may all differ by chance.
    unique = look.distinct >= FEW and look.distinct == look.filled
    if look.whole and look.distinct >= FEW:
        steps = np.diff(values)
        # A count of the rows is an identifier even if it is not named so.
        if unique and (
            look.named_id or (len(steps) and (np.all(steps == 1) or np.all(steps == -1)))
        ):
            return Finding(
                name,
                None,
                "a number of its own for every row: an identifier"
                if look.named_id
                else "it counts the rows",
                role="identifier",
            )
        # An identifier of something else, such as a customer, that recurs now and then.
        if look.named_id and look.distinct > look.filled / 2 and not look.recurs:
            return Finding(
                name,
                None,
                f"named like an identifier, and {look.distinct:,} of {look.filled:,} values differ",
                role="identifier",
            )
    if look.whole and _POSTAL.search(name) and look.distinct <= look.filled / 2:
        return Finding(
            name,
            "category",
            f"named like a postal code ({look.distinct:,} different): codes, not"
            f" quantities{look.missing_words()}{look.na_words()}",
            look.na(),
            role="code",
        )
    # Recurring identifiers are categories: their size says nothing.
    if look.whole and look.named_id:
        return Finding(
            name,
            "category",
            f"named like an identifier but values recur ({look.distinct:,} different): codes, not"
            f" quantities{look.missing_words()}",
            look.na(),
            role="code",
        )
    return None


def spelt(look: Look) -> str:
    """How numbers are written in a column of texts, to be put in a reason."""
    if not look.is_text or look.spelling is None:
        return ""
    # Without the markers of a missing value it would be a column of numbers.
    return look.spelling.words() or ("" if look.markers else " written as text")


def doubt(look: Look) -> str:
    """What else the numbers of a column of texts could mean, to be put at the end of a reason."""
    spelling = look.spelling
    return f"; {spelling.doubt}" if spelling is not None and spelling.doubt else ""


def _text(look: Look) -> Finding:
    """What texts are: the first that fits, the more telling first."""
    texts = [str(value) for value in look.present]
    # Moments first: dates with spaces or slashes would pass for labels with a
    # delimiter.
    return (
        moments(look, texts)
        or bracketed_lists(look, texts)
        or pairs(look, texts)
        or _labels(look)
        or _nearly_numbers(look, texts)
        or _json(look, texts)
        or _two_values(look, texts)
        or letters(look, texts)
        or ranges(look, texts)
        or _by_length(look, texts)
        or _category(look, texts)
    )


def _labels(look: Look) -> Finding | None:
    several = (
        delimited(look.present, look.filled)
        if look.is_text and look.filled >= FEW
        else None
    )
    if not several:
        return None
    delimiter, labels = several
    return Finding(
        look.name,
        "set",
        f"labels with {quoted(delimiter)} between, {len(labels):,} different,"
        f" {sum(labels.values()) / look.filled:.1f} a row, the commonest"
        f" {shown(labels.most_common(1)[0][0])}{look.missing_words()}{look.na_words()}",
        {**({"delimiter": delimiter} if delimiter != "," else {}), **look.na()},
    )


def _nearly_numbers(look: Look, texts: list[str]) -> Finding | None:
    # Below nine tenths, numbers are the exception and the column is text.
    if not look.is_text or look.numeric_share < 0.9 or _is_code(look):
        return None
    odd = [text for text in texts if text not in look.values]
    # All are numbers, and none is finite.
    if not odd:
        return None
    if len(texts) - len(odd) < 10:
        return None
    # V57 and E11.9 among 250.83: all are codes.
    coded = sum(bool(_CODE.fullmatch(text)) for text in odd)
    if len(odd) >= 3 and coded > 0.8 * len(odd):
        return None
    if look.named_id and look.distinct > 0.9 * look.filled and look.filled >= FEW:
        why = f"an identifier: {look.distinct:,} of {look.filled:,} values differ"
        return Finding(look.name, None, why, role="identifier")
    # The commonest first, since it is shown.
    odd.sort(key=lambda text: -look.present[text])
    rows = sum(look.present[text] for text in odd)
    return Finding(
        look.name,
        "number",
        f"numbers{spelt(look)} but for {rows:,} rows, such as {shown(odd[0])}: those are quarantined unless"
        f" `na` names them{doubt(look)}",
        look.as_number(),
        loud=True,
    )


def _json(look: Look, texts: list[str]) -> Finding | None:
    if not texts or sum(
        text[:1] in "[{" and text[-1:] in "]}" for text in texts
    ) <= 0.9 * len(texts):
        return None
    return Finding(
        look.name,
        None,
        "JSON within text; derive single values from it",
        role="list",
        hint=derive_hint(
            f"{look.name}_field", f"json_extract_string({sql(look.name)}, '$.field')"
        ),
    )


def _two_values(look: Look, texts: list[str]) -> Finding | None:
    if look.distinct != 2:
        return None
    why = f"two values, {shown(texts[0])} and {shown(texts[1])}{look.missing_words()}{look.na_words()}"
    return Finding(look.name, "binary", why, look.na())


def _by_length(look: Look, texts: list[str]) -> Finding | None:
    """Identifiers, free text, or values that hardly recur; None where values do recur."""
    name, filled, distinct = look.name, look.filled, look.distinct
    # Averages over rows rather than over different values.
    words = sum(
        len(v.split()) * c for v, c in look.present.items() if isinstance(v, str)
    ) / max(filled, 1)
    length = sum(len(str(v)) * c for v, c in look.present.items()) / max(filled, 1)
    share = distinct / max(filled, 1)
    # Users and items: some have one row, and many have several.
    if look.recurs and words < 1.5:
        return None
    # Of few rows all may differ by chance.
    if filled >= FEW and share > 0.5:
        if sum(bool(_IDENTIFIER.fullmatch(text)) for text in texts) > 0.9 * distinct:
            why = f"identifiers, addresses or links ({shown(texts[0])}): {distinct:,} of {filled:,} differ"
            return Finding(name, None, why, role="identifier")
        # One word a row that hardly ever recurs is a name or a number of something.
        if look.named_id or (share > 0.95 and words < 1.5):
            why = f"an identifier: {distinct:,} of {filled:,} values differ"
            return Finding(name, None, why, role="identifier")
    # A few words that hardly recur are text; many words or letters are text though some recur.
    if (
        (words >= 5 and share > 0.3)
        or (length > 80 and share > 0.05)
        or (words >= 2 and share > 0.5 and filled >= FEW)
    ):
        why = f"text of about {words:.0f} words ({shown(texts[0])}){look.missing_words()}{look.na_words()}"
        return Finding(name, "text", why, look.na())
    if filled >= FEW and share > 0.5:
        return Finding(
            name,
            None,
            f"{distinct:,} different values in {filled:,} rows ({shown(texts[0])}): hardly any recurs, so a"
            " category would learn nothing",
            role="text",
        )
    return None


def _category(look: Look, texts: list[str]) -> Finding:
    alike = _alike(texts)
    note = (
        f"; {shown(alike[0])} and {shown(alike[1])} look like one value" if alike else ""
    )
    digits = " of digits, a code" if _is_code(look) else ""
    return Finding(
        look.name,
        "category",
        f"{look.distinct:,} different values{digits}, the commonest"
        f" {shown(look.present.most_common(1)[0][0])}{look.missing_words()}{look.na_words()}{note}",
        look.na(),
        loud=bool(alike),
    )


def _list(look: Look) -> Finding:
    name, kind = look.name, look.type
    # Null lists have no length and say nothing of the others.
    lengths = pc.drop_null(pc.list_value_length(look.raw))
    same = len(lengths) > 0 and pc.min(lengths).as_py() == pc.max(lengths).as_py() > 0
    inner = kind.value_type
    if pa.types.is_integer(inner) or pa.types.is_floating(inner):
        if same:
            return Finding(
                name,
                "vector",
                f"lists of {lengths[0].as_py()} numbers"
                f" each{look.missing_words() if look.raw.null_count else ''}",
                {"length": lengths[0].as_py()},
            )
        if labels := listed(look.raw) if pa.types.is_integer(inner) else None:
            return Finding(
                name,
                "set",
                f"lists of {len(labels):,} different whole numbers that recur; if their order or size"
                " matters, say {type: sequence, unit:"
                f" numbers}}{look.missing_words() if look.raw.null_count else ''}",
            )
        return Finding(
            name,
            "sequence",
            f"lists of {pc.min(lengths).as_py() or 0} to {pc.max(lengths).as_py() or 0}"
            f" numbers{look.missing_words() if look.raw.null_count else ''}",
            {"unit": "numbers"},
            hint=derive_hint(
                f"{name}_mean",
                f"list_avg({sql(name)})",
                f"{name}_count",
                f"len({sql(name)})",
            ),
        )
    # Labels in lists; whether their order matters is the user's to say.
    if pa.types.is_string(inner) and (labels := listed(look.raw)):
        return Finding(
            name,
            "set",
            f"lists of {len(labels):,} different labels; if their order matters, say"
            f" sequence{look.missing_words() if look.raw.null_count else ''}",
        )
    return Finding(
        name,
        None,
        "lists; features read single values",
        role="list",
        hint=derive_hint(
            f"{name}_first", f"{sql(name)}[1]", f"{name}_count", f"len({sql(name)})"
        ),
    )


def _alike(texts: list[str]) -> tuple[str, str] | None:
    """Two values that differ only in case, spaces or a full stop at the end."""
    by_plain: dict[str, str] = {}
    # Sorted, so that the same pair is found in every run.
    for text in sorted(texts):
        plain = re.sub(r"\s+", " ", text.casefold()).rstrip(" .,;")
        if plain and plain in by_plain:
            return by_plain[plain], text
        by_plain[plain] = text
    return None


def _span(look: Look) -> str:
    ends = pc.min_max(look.raw).as_py()
    return (
        f"{ends['min']:%Y-%m-%d} to {ends['max']:%Y-%m-%d}"
        if ends["min"] is not None
        else "none"
    )
