"""What one column is: a feature type and its options, or nothing, and why, in a short sentence."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.labels import delimited, listed

MARKERS = frozenset(
    {
        "?",
        "??",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "null",
        "(null)",
        "\\n",
        "nan",
        "-",
        "--",
        "---",
        "missing",
        "not available",
        "unknown",
        "undefined",
    }
)
"""Texts that commonly stand for a missing value, in lower case.

"none" is not among them: it is often an answer.
"""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_ISO = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)? ?([Zz]|[+-]\d{2}(:?\d{2})?)?"
)
_FORMATS = (
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}"), ("%d.%m.%Y",)),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}"), ("%d.%m.%Y %H:%M",)),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{4}"), ("%d/%m/%Y", "%m/%d/%Y")),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}"), ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M")),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2}"), ("%Y/%m/%d",)),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}:\d{2}"), ("%Y/%m/%d %H:%M:%S",)),
)
_IDENTIFIER = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"
    r"[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|"
    r"https?://\S+|[^@\s]+@[^@\s]+\.[a-z]+",
    re.IGNORECASE,
)
_ID_NAME = re.compile(
    r"(^|[._\- ])\$?(id|oid|uid|uuid|guid|key|pk|index|row|url|uri|isbn|email|phone)$"
    r"|(?<=[a-z])(Id|ID|Key|Uuid|UUID)$"
    r"|^(id|uuid|key|rowid|row_id|unnamed: 0)$",
    re.IGNORECASE,
)
_CAMEL_ID = re.compile(r"[a-z](Id|ID|Key|UUID)$")
_TIME_NAME = re.compile(
    r"(^|[._\- ])(time|date|timestamp|ts|created|updated|modified|at|on|when|epoch)($|[._\-"
    r" ])|(Time|Date|At)$|time$|date$",
    re.IGNORECASE,
)
_EPOCHS = {"s": (10**8, 5 * 10**9), "ms": (10**11, 5 * 10**12), "us": (10**14, 5 * 10**15)}

FEW = 20
"""Fewer rows than this say nothing about a column being an identifier."""


@dataclass
class Finding:
    """What is proposed for a column."""

    column: str
    type: str | None
    """A feature's type; None leaves the column out."""
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    loud: bool = False
    """Something the user must look at."""
    hint: str = ""
    """A line of a recipe that could be used instead."""
    role: str = ""
    """`identifier`, `constant`, `text`, `list`, `leak`, `duplicate`, … of what is left out; `code` of a
    category that is an id.
    """


class Look:
    """A raw column, and what is known of it, worked out once when asked for."""

    def __init__(self, name: str, column: pa.Array | pa.ChunkedArray) -> None:
        self.name = name
        self.raw = _plain(column)
        self.rows = len(self.raw)

    @property
    def type(self) -> pa.DataType:
        return self.raw.type

    @cached_property
    def is_text(self) -> bool:
        return bool(pa.types.is_string(self.type))

    @cached_property
    def trimmed(self) -> pa.Array:
        return pc.utf8_trim_whitespace(self.raw) if self.is_text else self.raw

    @cached_property
    def counts(self) -> Counter[Any]:
        """How often each value occurs, missing and empty ones left out (text: trimmed)."""
        return Counter(
            {
                e["values"]: e["counts"]
                for e in pc.value_counts(self.trimmed).to_pylist()
                if e["values"] not in (None, "") and e["values"] == e["values"]
            }
        )

    @cached_property
    def markers(self) -> list[str]:
        """The spellings of a missing value that occur among its texts; one lone word among numbers is one as
        well.
        """
        if not self.is_text:
            return []
        known = [v for v in self.counts if v.lower() in MARKERS]
        others = [v for v in self.counts if v not in known]
        numeric = [v for v in others if _NUMBER.fullmatch(v)]
        if (
            len(others) - len(numeric) == 1
            and len(numeric) >= 3
            and sum(self.counts[v] for v in numeric) >= sum(self.counts[v] for v in others) / 2
        ):
            known += [v for v in others if not _NUMBER.fullmatch(v)]
        return sorted(known)

    @cached_property
    def present(self) -> Counter[Any]:
        """`counts` without the markers."""
        return (
            Counter({v: c for v, c in self.counts.items() if v not in self.markers})
            if self.markers
            else self.counts
        )

    @property
    def distinct(self) -> int:
        return len(self.present)

    @cached_property
    def filled(self) -> int:
        """Rows that are not missing."""
        return sum(self.present.values())

    @cached_property
    def numeric_share(self) -> float:
        """The share of the filled rows that are a number."""
        if self.is_text:
            return sum(c for v, c in self.present.items() if _NUMBER.fullmatch(v)) / max(self.filled, 1)
        return float(
            pa.types.is_integer(self.type)
            or pa.types.is_floating(self.type)
            or pa.types.is_decimal(self.type)
        )

    @cached_property
    def numbers(self) -> np.ndarray:
        """Each row as a double, NaN where it is missing or none `[N]`."""
        if self.is_text:
            table = {v: float(v) for v in self.present if _NUMBER.fullmatch(v)}
            return np.array([table.get(v, np.nan) for v in self.trimmed.to_pylist()], np.float64)
        column = self.raw.cast(pa.int8()) if pa.types.is_boolean(self.type) else self.raw
        if pa.types.is_temporal(self.type):
            column = pc.cast(
                pc.cast(column, pa.timestamp("us", tz=getattr(self.type, "tz", None))), pa.int64()
            )
        return np.asarray(pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")), np.float64)

    @cached_property
    def whole(self) -> bool:
        """Whether all its numbers are whole."""
        there = self.numbers[np.isfinite(self.numbers)]
        return bool(len(there)) and bool(np.all(there == np.floor(there)))

    @cached_property
    def codes(self) -> np.ndarray:
        """Each row's value as a whole number from 0, missing ones -1 `[N]`."""
        place = {v: i for i, v in enumerate(self.present)}
        return np.array([place.get(v, -1) if v == v else -1 for v in self.trimmed.to_pylist()], np.int64)

    @cached_property
    def named_id(self) -> bool:
        return bool(_ID_NAME.search(self.name) or _CAMEL_ID.search(self.name))

    def missing_words(self) -> str:
        gone = self.rows - self.filled
        return f", {gone / self.rows:.1%} missing" if gone else ""

    def na(self) -> dict[str, Any]:
        return {"na": self.markers} if self.markers else {}

    def na_words(self) -> str:
        return (
            f"; {', '.join(quoted(m) for m in self.markers)} {'stand' if len(self.markers) > 1 else 'stands'}"
            " for a missing value"
            if self.markers
            else ""
        )


def judge(look: Look) -> Finding:
    """What a column would be as an input."""
    name, kind = look.name, look.type
    if not look.rows or look.raw.null_count == look.rows:
        return Finding(name, None, "missing in every row looked at", role="constant")
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        first = kind.field(0).name if pa.types.is_struct(kind) and kind.num_fields else "field"
        return Finding(
            name,
            None,
            "an object; features read single values",
            role="list",
            hint=_hint(f"{name}_{first}", f"{sql(name)}.{sql(first)}"),
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list(look)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return Finding(
            name, None, "bytes that are no pictures; no feature of this version reads them", role="text"
        )
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return Finding(
            name,
            None,
            f"a {kind}; derive a number from it",
            role="list",
            hint=_hint(f"{name}_seconds", f"epoch({sql(name)})"),
        )
    if look.filled == 0:
        return Finding(name, None, f"missing in every row looked at{look.na_words()}", role="constant")
    if look.distinct == 1 and look.filled == look.rows:
        return Finding(
            name,
            None,
            f"{shown(next(iter(look.present)))} in every row looked at: nothing to learn from",
            role="constant",
        )
    top = max(look.present.values())
    if look.rows >= 1_000 and look.filled == look.rows and look.rows - top < 10 and look.distinct > 1:
        return Finding(
            name,
            None,
            f"the same in all but {look.rows - top} of {look.rows:,} rows looked at",
            role="constant",
        )
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Finding(name, "timestamp", f"moments in time, {_span(look)}{look.missing_words()}")
    if pa.types.is_boolean(kind):
        return Finding(name, "binary", f"true or false{look.missing_words()}")
    if look.numeric_share == 1 and not _is_code(look):
        return _number(look)
    return _text(look)


def _is_code(look: Look) -> bool:
    """Digits with leading zeros of one length: a code (postal, product), not a quantity."""
    return (
        look.is_text
        and len({len(v) for v in look.present}) == 1
        and any(v.startswith("0") and v.isdigit() and len(v) > 1 for v in look.present)
    )


def _number(look: Look) -> Finding:
    name, values = look.name, look.numbers[np.isfinite(look.numbers)]
    unique = look.distinct >= FEW and look.distinct == look.filled
    if look.whole and look.distinct >= FEW:
        steps = np.diff(values)
        if unique and (look.named_id or (len(steps) and (np.all(steps == 1) or np.all(steps == -1)))):
            return Finding(
                name,
                None,
                "a number of its own for every row: an identifier" if look.named_id else "it counts the rows",
                role="identifier",
            )
        if look.named_id and look.distinct > look.filled / 2:
            return Finding(
                name,
                None,
                f"named like an identifier, and {look.distinct:,} of {look.filled:,} values differ",
                role="identifier",
            )
    if look.whole and look.named_id:
        return Finding(
            name,
            "category",
            f"named like an identifier but values recur ({look.distinct:,} different): codes, not"
            f" quantities{look.missing_words()}",
            look.na(),
            role="code",
        )
    for unit, (low, high) in _EPOCHS.items():
        if look.whole and _TIME_NAME.search(name) and values.min() >= low and values.max() <= high:
            return Finding(
                name,
                "timestamp",
                f"whole numbers in the range of {unit} since 1970, and named like a"
                f" time{look.missing_words()}",
                {"unit": unit},
            )
    if look.distinct == 2 and set(np.unique(values)) == {0.0, 1.0}:
        return Finding(name, "binary", f"0 and 1{look.missing_words()}{look.na_words()}", look.na())
    what = "whole numbers" if look.whole else "numbers"
    text = " written as text" if look.is_text else ""
    return Finding(
        name,
        "number",
        f"{what}{text}, {figure(values.min())} to {figure(values.max())}, {look.distinct:,}"
        f" different{look.missing_words()}{look.na_words()}",
        look.na(),
    )


def _text(look: Look) -> Finding:
    name, present, filled, distinct = look.name, look.present, look.filled, look.distinct
    texts = [str(v) for v in present]
    several = delimited(present, filled) if look.is_text and filled >= FEW else None
    if several and not (moments := _moments(look, texts)):
        delimiter, labels = several
        return Finding(
            name,
            "set",
            f"labels with {quoted(delimiter)} between, {len(labels):,} different,"
            f" {sum(labels.values()) / filled:.1f} a row, the commonest"
            f" {shown(labels.most_common(1)[0][0])}{look.missing_words()}{look.na_words()}",
            {**({"delimiter": delimiter} if delimiter != "," else {}), **look.na()},
        )
    if (
        look.is_text
        and look.numeric_share >= 0.9
        and sum(1 for v in texts if _NUMBER.fullmatch(v)) >= 10
        and not _is_code(look)
    ):
        odd = sorted((v for v in texts if not _NUMBER.fullmatch(v)), key=lambda v: -present[v])
        rows = sum(present[v] for v in odd)
        return Finding(
            name,
            "number",
            f"numbers but for {rows:,} rows, such as {shown(odd[0])}: those are quarantined unless `na` names"
            " them",
            look.na(),
            loud=True,
        )
    moments = _moments(look, texts)
    if moments:
        return moments
    if texts and sum(v[:1] in "[{" and v[-1:] in "]}" for v in texts) > 0.9 * len(texts):
        return Finding(
            name,
            None,
            "JSON within text; derive single values from it",
            role="list",
            hint=_hint(f"{name}_field", f"json_extract_string({sql(name)}, '$.field')"),
        )
    if distinct == 2:
        return Finding(
            name,
            "binary",
            f"two values, {shown(texts[0])} and {shown(texts[1])}{look.missing_words()}{look.na_words()}",
            look.na(),
        )
    words = sum(len(v.split()) * present[v] for v in present if isinstance(v, str)) / max(filled, 1)
    length = sum(len(str(v)) * c for v, c in present.items()) / max(filled, 1)
    share = distinct / max(filled, 1)
    if filled >= FEW and share > 0.5:
        if sum(bool(_IDENTIFIER.fullmatch(v)) for v in texts) > 0.9 * distinct:
            return Finding(
                name,
                None,
                f"identifiers, addresses or links ({shown(texts[0])}): {distinct:,} of {filled:,} differ",
                role="identifier",
            )
        if look.named_id or (share > 0.95 and words < 1.5):
            return Finding(
                name, None, f"an identifier: {distinct:,} of {filled:,} values differ", role="identifier"
            )
    if (
        (words >= 5 and share > 0.3)
        or (length > 80 and share > 0.05)
        or (words >= 2 and share > 0.5 and filled >= FEW)
    ):
        return Finding(
            name,
            "text",
            f"text of about {words:.0f} words ({shown(texts[0])}){look.missing_words()}{look.na_words()}",
            look.na(),
        )
    if filled >= FEW and share > 0.5:
        return Finding(
            name,
            None,
            f"{distinct:,} different values in {filled:,} rows ({shown(texts[0])}): hardly any recurs, so a"
            " category would learn nothing",
            role="text",
        )
    alike = _alike(texts)
    note = f"; {shown(alike[0])} and {shown(alike[1])} look like one value" if alike else ""
    digits = " of digits, a code" if _is_code(look) else ""
    return Finding(
        name,
        "category",
        f"{distinct:,} different values{digits}, the commonest"
        f" {shown(present.most_common(1)[0][0])}{look.missing_words()}{look.na_words()}{note}",
        look.na(),
        loud=bool(alike),
    )


def _moments(look: Look, texts: list[str]) -> Finding | None:
    dated = sum(look.present[v] for v in texts if v in look.present and _ISO.fullmatch(v))
    if dated and dated >= 0.99 * look.filled:
        return Finding(
            look.name,
            "timestamp",
            f"ISO 8601 dates and times as text, {min(texts)[:19]} to"
            f" {max(texts)[:19]}{look.missing_words()}{look.na_words()}",
            look.na(),
        )
    for pattern, formats in _FORMATS:
        if texts and all(pattern.fullmatch(v) for v in texts):
            fitting = [f for f in formats if all(_reads(v, f) for v in texts[:2_000])]
            if fitting:
                doubt = f"; {fitting[1]} would fit as well: look at it" if len(fitting) > 1 else ""
                return Finding(
                    look.name,
                    "timestamp",
                    f"dates such as {shown(texts[0])}{doubt}{look.missing_words()}{look.na_words()}",
                    {"format": fitting[0], **look.na()},
                    loud=bool(doubt),
                )
    return None


def _reads(text: str, pattern: str) -> bool:
    from datetime import datetime

    try:
        datetime.strptime(text, pattern)
    except ValueError:
        return False
    return True


def _list(look: Look) -> Finding:
    name, kind = look.name, look.type
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
            hint=_hint(f"{name}_mean", f"list_avg({sql(name)})", f"{name}_count", f"len({sql(name)})"),
        )
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
        hint=_hint(f"{name}_first", f"{sql(name)}[1]", f"{name}_count", f"len({sql(name)})"),
    )


def _alike(texts: list[str]) -> tuple[str, str] | None:
    """Two values that differ only in case, spaces or a full stop at the end."""
    seen: dict[str, str] = {}
    for text in sorted(texts):
        plain = re.sub(r"\s+", " ", text.casefold()).rstrip(" .,;")
        if plain and plain in seen:
            return seen[plain], text
        seen[plain] = text
    return None


def _span(look: Look) -> str:
    ends = pc.min_max(look.raw).as_py()
    return f"{ends['min']:%Y-%m-%d} to {ends['max']:%Y-%m-%d}" if ends["min"] is not None else "none"


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column


def figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*([ .][A-Za-z0-9_-]+)*")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"})


def key(text: str) -> str:
    """A text as a YAML scalar that is read back as that very text, quoted where it must be."""
    return text if _PLAIN_WORD.fullmatch(text) and text.lower() not in _RESERVED else quoted(text)


def quoted(text: str) -> str:
    """A text in YAML's double quotes, whatever it holds."""
    out = []
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable() and code != 0xFEFF:
            out.append(char)
        else:
            out.append(
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
    return '"' + "".join(out) + '"'


def shown(value: Any) -> str:
    """A value as a comment shows it: one line, not too long."""
    text = value if isinstance(value, str) else str(value)
    return (
        quoted(text if len(text) <= 32 else f"{text[:29]}…") if isinstance(value, str) else quoted(text)[1:-1]
    )


def sql(name: str) -> str:
    """A column's name in SQL."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _hint(*pairs: str) -> str:
    """Names and SQL in turn, as the `derive` of a recipe."""
    return (
        "derive: {"
        + ", ".join(
            f"{key(name)}: {_quoted_sql(text)}" for name, text in zip(pairs[::2], pairs[1::2], strict=True)
        )
        + "}"
    )


def _quoted_sql(text: str) -> str:
    """SQL in single quotes where it has double ones, for the reader's sake."""
    return "'" + text.replace("'", "''") + "'" if '"' in text and text.isprintable() else quoted(text)
