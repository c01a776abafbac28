"""How large the values of an SQL expression may become, by its text alone.

Most expressions are cheap: what they make is at most a few times as large as what they read, and they take
time in proportion to it. Such an expression may run anywhere. Any other one (`repeat(name, n)`, `levenshtein`
of two columns, a function that is not on the lists below) may make a gigabyte of one row, or run for minutes
without a pause in which DuckDB would hear that it is to stop, and DuckDB counts neither its strings nor its
lists as memory. Those run in a process of their own, which has a bound and can be killed
(`parts/engines/_cell.py`).

The bound is a sum: `fixed` bytes, and `times` the bytes of the columns that are read. It is never too small;
where nothing is known, it is infinite. A new function of the allow-list is dear until it is put on a list
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from penstock.contracts.sql import deeper, serialised

_WORD_BYTES = 16
"""A number, a moment, or what a text or a list takes beside its content."""
_NUMBER_BYTES = 48
"""A scalar written as text."""
MOST_TIMES, MOST_BYTES = 64.0, 16_384.0
"""An expression is cheap up to so many times what it reads, and up to so many bytes beside it, for each
row.
"""
_SHARED = 8
"""All the values on the way together may be so many times as large as one."""
_PATTERN_BYTES, _PATTERN_REPEATS = 1000, 100
"""A regular expression that is longer, or that repeats something more often, may take long for each
character.
"""

_SCALAR = frozenset(
    """
abs acos acosh age array_contains array_has array_length array_position ascii asin asinh atan atan2 atanh
bit_count bit_length cardinality cbrt ceil ceiling char_length character_length chr contains cos cosh cot
date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth
dayofweek dayofyear decade degrees divide ends_with epoch epoch_ms epoch_ns epoch_us era even exp factorial
floor fmod gamma gcd greatest_common_divisor hamming hour instr isfinite isinf isnan isodow isoyear jaccard
json_array_length json_contains json_exists json_type json_valid julian last_day lcm least_common_multiple
len length lgamma list_avg list_contains list_count list_has list_indexof list_median list_position
list_product list_stddev_pop list_sum list_unique list_var_pop ln log log10 log2 make_date make_time
make_timestamp map_contains md5 microsecond millisecond minute mismatches mod month monthname nextafter
octet_length ord pi position pow power prefix quarter radians round second sha1 sha256 sign signbit sin sinh
sqrt starts_with strlen strpos strptime suffix tan tanh time_bucket timezone to_days to_hours
to_microseconds to_milliseconds to_minutes to_months to_seconds to_timestamp to_weeks to_years trunc
try_strptime typeof unicode week weekday weekofyear year yearweek array_unique ^@ && @> <@ / // % ** ^ !
!__postfix @
""".split()
)
"""Of time in proportion to what they read, and their answer is of a fixed size."""

_SAME = frozenset(
    """
add array_concat array_distinct array_extract array_slice array_sort concat decode element_at flatten
from_base64 from_hex greatest lcase least left list_concat list_distinct list_element list_extract
list_first list_last list_max list_min list_reverse_sort list_slice list_sort list_value lower ltrim map
map_extract map_extract_value map_keys map_values multiply nullif parse_filename regexp_extract reverse
right row rtrim split_part struct_extract struct_pack substr substring subtract translate trim unhex
url_decode xor || + - * & | ~ << >>
""".split()
)
"""Of time in proportion to what they read, and their answer is no larger than all that they read."""

_SCALED = {
    "base64": 2,
    "to_base64": 2,
    "hex": 2,
    "to_hex": 2,
    "bin": 8,
    "url_encode": 3,
    "regexp_escape": 2,
    "upper": 3,
    "ucase": 3,
    "nfc_normalize": 4,
    "strip_accents": 4,
    "encode": 2,
    "json_keys": 20,
    "split": 20,
    "string_split": 20,
    "str_split": 20,
    "string_to_array": 20,
}
"""So many times as large as what they read (an entry of a list takes 16 bytes)."""

_PRODUCT = frozenset(
    """
array_has_all array_has_any damerau_levenshtein editdist3 jaro_similarity jaro_winkler_similarity
levenshtein list_has_all list_has_any
""".split()
)
"""Of time in proportion to the product of what they read."""

_LIKE = frozenset(
    "~~ !~~ ~~* !~~* ~~~ like_escape ilike_escape not_like_escape not_ilike_escape".split()
)
_PATTERNS = {
    "regexp_matches": 0,
    "regexp_full_match": 0,
    "regexp_extract": 1,
    "regexp_extract_all": 20,
    "regexp_split_to_array": 20,
    "string_split_regex": 20,
    "str_split_regex": 20,
}
"""Functions of a text and a regular expression: how large the answer is, in texts."""
_TO_TEXT = 8
_FROM_TEXT = 16
_PLAIN_TYPES = frozenset(
    """
BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT FLOAT DOUBLE
DECIMAL DATE TIME TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS INTERVAL UUID
""".split()
) | {"TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE"}
_TEXT_TYPES = frozenset({"VARCHAR", "BLOB", "JSON", "CHAR"})


@dataclass(frozen=True)
class Size:
    """At most `fixed` bytes and `times` the bytes of all the columns that are read, for each row."""

    times: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: Size) -> Size:
        return Size(self.times + other.times, self.fixed + other.fixed)

    def scaled(self, factor: float) -> Size:
        """This size times `factor`."""
        # 0 times infinity is not a number; nothing of what is unknown is nothing.
        return Size(self.times * factor, self.fixed * factor) if factor else Size()

    def of(self, read: Size) -> Size:
        """The same, where what is read is itself `read` large."""
        # The same here, where `read` may be infinite.
        times = self.times * read.times if self.times else 0.0
        fixed = self.fixed + (self.times * read.fixed if self.times else 0.0)
        return Size(times, fixed)


UNKNOWN = Size(math.inf, math.inf)


@dataclass(frozen=True)
class Growth:
    """How large the values of an expression may become, for each row."""

    answer: Size
    """Its value."""
    largest: Size
    """The largest of all the values on the way to it."""
    together: Size
    """All of them."""

    def is_cheap(self, read: Size) -> bool:
        """Whether it may run anywhere, where the columns it reads are `read` large."""
        # of a process with a bound, and larger than is known: it may be handed on as it is
        if math.isinf(read.times):
            return self.largest.times <= 1 and self.largest.fixed <= MOST_BYTES
        most, all_ = self.largest.of(read), self.together.of(read)
        single = most.times <= MOST_TIMES and most.fixed <= MOST_BYTES
        return (
            single
            and all_.times <= MOST_TIMES * _SHARED
            and all_.fixed <= MOST_BYTES * _SHARED
        )


class _Scan:
    """One walk over the tree of DuckDB's parser."""

    def __init__(self, *, lists: bool) -> None:
        self._lists = lists
        self.largest, self.together = Size(), Size()

    def size(self, node: Mapping[str, Any]) -> Size:
        """How large the value of `node` may be; updates `largest` and `together` by it and all below it."""
        children = [self.size(child) for child in _children(node)]
        size = _of_node(node, children, lists=self._lists)
        self.largest = Size(
            max(self.largest.times, size.times), max(self.largest.fixed, size.fixed)
        )
        # What is read is there already; only what is made counts.
        if node["class"] not in ("COLUMN_REF", "CONSTANT"):
            self.together = self.together + size
        return size


def growth(node: Mapping[str, Any], *, lists: bool) -> Growth:
    """How large the values of an expression may become.

    Args:
        node: of DuckDB's parser, as `json_serialize_sql` writes it.
        lists: a column that it reads is a list; then `+` may join.
    """
    # Any list among the values makes `+` a concatenation.
    scan = _Scan(lists=lists or _makes_lists(node))
    answer = scan.size(node)
    return Growth(answer, scan.largest, scan.together)


def _children(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The expressions that a node is made of, in order."""
    below: list[Mapping[str, Any]] = []
    for value in node.values():
        below += _expressions(value)
    return below


def _expressions(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, dict):
        # DuckDB's serialised tree marks each expression by its `class`.
        if "class" in value:
            return [value]
        return [each for item in value.values() for each in _expressions(item)]
    if isinstance(value, list):
        return [each for item in value for each in _expressions(item)]
    return []


def _makes_lists(node: Mapping[str, Any]) -> bool:
    """Whether any value on the way may be a list."""
    if node["class"] == "FUNCTION" and (
        node["function_name"] in _OF_LISTS or _LISTED.search(node["function_name"])
    ):
        return True
    # A type that is not on the plain list may be a list or hold one.
    if node["class"] == "CAST" and node["cast_type"].get("id") not in _PLAIN_TYPES | {
        "VARCHAR",
        "BLOB",
    }:
        return True
    return any(map(_makes_lists, _children(node)))


_OF_LISTS = frozenset(
    {"flatten", "map", "struct_pack", "row", "json_keys", "regexp_extract_all"}
)
_LISTED = re.compile("list|array|split|map_")
_ARITHMETIC = frozenset({"+", "-", "*", "add", "subtract", "multiply"})


def _of_node(node: Mapping[str, Any], children: list[Size], *, lists: bool) -> Size:
    sort = node["class"]
    if sort == "CONSTANT":
        # Four bytes for each character are the most that UTF-8 takes.
        return Size(0.0, len(str(node["value"].get("value"))) * 4.0 + _WORD_BYTES)
    if sort == "COLUMN_REF":
        return Size(1.0, _WORD_BYTES)
    # True or false, however large what is compared.
    if sort in ("COMPARISON", "CONJUNCTION", "BETWEEN"):
        return Size(0.0, _WORD_BYTES)
    if sort == "CAST":
        return _of_cast(node["cast_type"], children[0])
    if sort == "COLLATE":
        # A collation may write a text in a longer form.
        return children[0].scaled(4)
    # The value of one of the children, whichever it is.
    if sort == "CASE" or (sort == "OPERATOR" and node["type"] != "ARRAY_CONSTRUCTOR"):
        return _most(children)
    # A list of all the children.
    if sort == "OPERATOR":
        return _sum(children)
    # Arithmetic on numbers makes a number.
    if sort == "FUNCTION" and not lists and node["function_name"] in _ARITHMETIC:
        return Size(0.0, _NUMBER_BYTES)
    # What is on no list is dear.
    return _of_function(node, children) if sort == "FUNCTION" else UNKNOWN


def _most(sizes: list[Size]) -> Size:
    """The size of one of several values, whichever it is."""
    return Size(
        max((size.times for size in sizes), default=0.0),
        max((size.fixed for size in sizes), default=0.0) + _WORD_BYTES,
    )


def _sum(sizes: list[Size]) -> Size:
    total = Size(0.0, _WORD_BYTES)
    for size in sizes:
        total = total + size
    return total


def _of_cast(target: Mapping[str, Any], given: Size) -> Size:
    factor, fixed = _cast_factor(target)
    return given.scaled(factor) + Size(0.0, fixed)


def _cast_factor(target: Mapping[str, Any]) -> tuple[float, float]:
    """How many times as large, and how many bytes beside, a value is in another type."""
    name, info = target.get("id"), target.get("type_info") or {}
    # A type that the parser has not looked up yet is given by its name.
    if name == "UNBOUND":
        name = str(info.get("name", "")).upper()
    if name in _PLAIN_TYPES:
        return 0.0, _WORD_BYTES
    if name in _TEXT_TYPES:
        return _TO_TEXT, _NUMBER_BYTES
    if name in ("LIST", "MAP"):
        factor, fixed = _cast_factor(info.get("child_type") or {})
        # An entry is written with two characters at the least, so a list has half as many as its text.
        return max(_FROM_TEXT, factor + fixed / 2), _WORD_BYTES
    if name == "STRUCT":
        below = [
            _cast_factor(each.get("second") or {})
            for each in info.get("child_types") or []
        ]
        return sum(factor for factor, _ in below) + 1, sum(
            fixed for _, fixed in below
        ) + _WORD_BYTES
    if name == "ARRAY":
        factor, fixed = _cast_factor(info.get("child_type") or {})
        return max(_FROM_TEXT, factor), max(fixed, 1) * float(
            info.get("size") or math.inf
        )
    # A type that nobody thought of has no bound.
    return math.inf, math.inf


def _of_function(node: Mapping[str, Any], children: list[Size]) -> Size:
    name = str(node["function_name"])
    given = _children(node)
    # A rule reads the constants of a call, so it goes before the lists.
    if name in _RULES:
        return _RULES[name](name, given, children)
    if name in _SCALAR:
        return Size(0.0, _NUMBER_BYTES)
    if name in _SAME:
        return _sum(children)
    if name in _SCALED:
        return _sum(children).scaled(_SCALED[name])
    return UNKNOWN


# -- functions whose size follows from a constant ------------------------------------------------------------

Rule = Callable[[str, list[Mapping[str, Any]], list[Size]], Size]
"""Name, arguments and their sizes → the size of the answer."""


def _constant(given: list[Mapping[str, Any]], place: int) -> Any:
    """The value of a constant argument; None where it is none."""
    if place >= len(given) or given[place]["class"] != "CONSTANT":
        return None
    return given[place]["value"].get("value")


def _whole(given: list[Mapping[str, Any]], place: int) -> float:
    value = _constant(given, place)
    # A length that is no constant may be any.
    return float(max(value, 0)) if isinstance(value, int) else math.inf


def _repeat(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    return _sum(sizes[:1]).scaled(_whole(given, 1))


def _pad(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    # Lengths count characters, of four bytes at the most.
    return _sum(sizes) + Size(0.0, 4 * _whole(given, 1))


def _to_base(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    return Size(0.0, 64 + (_whole(given, 2) if len(given) > 2 else 0.0))


def _replace(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """Each byte may become the new text; in a regular expression's, each reference is at most the whole."""
    text = _constant(given, 2)
    if not isinstance(text, str):
        return UNKNOWN
    if name == "regexp_replace" and math.isinf(_pattern(name, given, sizes).times):
        return UNKNOWN
    # Text that is put in place of each byte that is found.
    length = len(text.encode())
    return _sum(sizes[:1]).scaled(1 + length + text.count("\\")) + Size(0.0, length)


def _format(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """A width or a precision is a number in the text, unless it is an argument itself."""
    text = _constant(given, 0)
    # A width that is itself an argument, or braces within braces, have no bound in the
    # text.
    if not isinstance(text, str) or "*" in text or re.search(r"\{[^{}]*\{", text):
        return UNKNOWN
    fields = text.count("%") + text.count("{")
    widths = sum(float(number) for number in re.findall(r"[0-9]+", text))
    return _sum(sizes[1:]).scaled(max(fields, 1)) + Size(
        0.0, len(text) * 4 + widths * 4 + fields * 512
    )


def _strftime(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    return _sum(sizes).scaled(32)


def _joined(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """Entries with a separator between them."""
    text = _constant(given, 0 if name == "concat_ws" else 1)
    if not isinstance(text, str):
        return UNKNOWN
    length = len(text.encode())
    if name == "concat_ws":
        return _sum(sizes) + Size(0.0, float(length * len(given)))
    return _sum(sizes).scaled(_TO_TEXT + length)


def _like(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """DuckDB tries every place for every % (or *): with two of them before the end, time is a square."""
    text = _constant(given, 1)
    if not isinstance(text, str):
        return UNKNOWN
    # A wildcard at the end tries nothing, and several in a row are one.
    tried = re.sub(r"[%*]+", "%", text).rstrip("%").count("%")
    return Size(0.0, _WORD_BYTES) if tried <= 1 else UNKNOWN


def _pattern(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    text = _constant(given, 1)
    if not isinstance(text, str) or len(text) > _PATTERN_BYTES:
        return UNKNOWN
    # Repeats within one another multiply.
    repeats = 1.0
    for least, most in re.findall(r"\{([0-9]*),?([0-9]*)\}", text):
        repeats *= max(float(least or 1), float(most or 1), 1.0)
    if repeats > _PATTERN_REPEATS:
        return UNKNOWN
    return Size(0.0, _WORD_BYTES) + _sum(sizes[:1]).scaled(_PATTERNS.get(name, 1))


def _product(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """Cheap only where all arguments but one are small and fixed."""
    # Arguments that grow with what is read: with two of them, time is their product.
    growing = [size for size in sizes if size.times]
    if len(growing) > 1:
        return UNKNOWN
    fixed = math.prod(max(size.fixed, 1.0) for size in sizes if not size.times)
    return (
        Size(growing[0].times * fixed, growing[0].fixed * fixed)
        if growing
        else Size(0.0, fixed)
    )


def _json(name: str, given: list[Mapping[str, Any]], sizes: list[Size]) -> Size:
    """A path with a star finds values within values."""
    text = _constant(given, 1)
    # A number is a place in a list, a text without wildcards one path.
    if isinstance(text, int) or (
        isinstance(text, str) and "*" not in text and ".." not in text
    ):
        return _sum(sizes[:1])
    return UNKNOWN


_RULES: dict[str, Rule] = {
    "repeat": _repeat,
    "lpad": _pad,
    "rpad": _pad,
    "to_base": _to_base,
    "replace": _replace,
    "regexp_replace": _replace,
    "format": _format,
    "printf": _format,
    "strftime": _strftime,
    "concat_ws": _joined,
    "array_to_string": _joined,
    **dict.fromkeys(_LIKE, _like),
    **dict.fromkeys(_PATTERNS, _pattern),
    **dict.fromkeys(_PRODUCT, _product),
    **dict.fromkeys(
        (
            "json_extract",
            "json_extract_path",
            "->",
            "->>",
            "json_extract_string",
            "json_extract_path_text",
            "json_value",
        ),
        _json,
    ),
}


@lru_cache(maxsize=512)
def of_template(template: str, *, lists: bool) -> Growth:
    """How large the values of a checked template may become."""
    # The tree may nest as deeply as the expression.
    with deeper():
        return growth(
            serialised(template)["statements"][0]["node"]["select_list"][0], lists=lists
        )
