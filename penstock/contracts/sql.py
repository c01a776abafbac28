"""The SQL that a recipe may say: one scalar expression over a row's columns, in DuckDB's dialect, by an
allow-list.

Two readers look at every expression. sqlglot parses it, so that columns can be found and renamed and another
engine's dialect written from the same tree. Then DuckDB's own parser (which runs nothing) reads what sqlglot
wrote, and every node of *its* tree must be on the list below: what was checked is what will be run, with no
gap between two grammars.

Allowed: operators, CASE, CAST, literals, list and struct access, and functions of the row alone. Refused:
queries, aggregates, windows, lambdas, files, settings, the environment, the clock and chance (the same recipe
must give the same rows), and everything not listed.

A name with dots finds the column that is called so (`grades.score`, a nested field that a reader flattened),
else a field of a struct column. Names are matched exactly first, then without regard to case, as SQL does.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock.core.errors import RecipeError
from penstock.core.near import Hints, did_you_mean, listed

if TYPE_CHECKING:
    from sqlglot import exp

FUNCTIONS = frozenset(
    """
abs acos acosh add age array_concat array_contains array_distinct array_extract array_has array_has_all
array_has_any array_length array_position array_slice array_sort array_to_string array_unique ascii asin
asinh atan atan2 atanh base64 bin bit_count bit_length cardinality cbrt ceil ceiling char_length
character_length chr concat concat_ws contains cos cosh cot damerau_levenshtein date_add date_diff date_part
date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear decade
decode degrees divide editdist3 element_at ends_with epoch epoch_ms epoch_ns epoch_us era even exp factorial
flatten floor fmod format from_base64 from_hex gamma gcd greatest greatest_common_divisor hamming hex hour
instr isfinite isinf isnan isodow isoyear jaccard jaro_similarity jaro_winkler_similarity json_array_length
json_contains json_exists json_extract json_extract_path json_extract_path_text json_extract_string
json_keys json_type json_valid json_value julian last_day lcase lcm least least_common_multiple left len
length like_escape ilike_escape not_like_escape not_ilike_escape levenshtein lgamma list_avg list_concat
list_contains list_count list_distinct list_element list_first list_last list_max list_median list_min
list_product list_stddev_pop list_sum list_var_pop list_extract list_has list_has_all list_has_any
list_indexof list_position list_reverse_sort list_slice list_sort list_unique list_value ln log log10 log2
lower lpad ltrim make_date make_time make_timestamp map map_contains map_extract map_extract_value map_keys
map_values md5 microsecond millisecond minute mismatches mod month monthname multiply nextafter
nfc_normalize nullif octet_length ord parse_filename pi position pow power prefix printf quarter radians
regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace
regexp_split_to_array repeat replace reverse right round row rpad rtrim second sha1 sha256 sign signbit sin
sinh split split_part sqrt starts_with str_split str_split_regex strftime string_split string_split_regex
string_to_array strip_accents strlen strpos strptime struct_extract struct_pack substr substring subtract
suffix tan tanh time_bucket timezone to_base to_base64 to_days to_hex to_hours to_microseconds
to_milliseconds to_minutes to_months to_seconds to_timestamp to_weeks to_years translate trim trunc
try_strptime typeof ucase unhex unicode upper url_decode url_encode week weekday weekofyear xor year
yearweek
""".split()
)
"""Functions of the row alone, by DuckDB's names."""

_NODES = frozenset(
    {
        "CONSTANT",
        "COLUMN_REF",
        "FUNCTION",
        "OPERATOR",
        "COMPARISON",
        "CONJUNCTION",
        "CASE",
        "CAST",
        "BETWEEN",
        "COLLATE",
    }
)
_OPERATORS = frozenset(
    "+ - * / // % ** ^ || & | ~ << >> @ ! !__postfix ~~ !~~ ~~* !~~* ~~~ ^@ -> ->> && @> <@".split()
)
_WHAT = {
    "SUBQUERY": "a query inside an expression",
    "WINDOW": "a window function",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by position",
    "DEFAULT": "DEFAULT",
    "LAMBDA": "a lambda (what is taken out of JSON within a function is written json_extract(column, path))",
}
# Columns are `"$0"`, `"$1"`, … in a template, so it does not depend on what they are
# called.
_PLACE = "$"
MOST_CHARACTERS = 65_536
"""An expression has no more."""
_FRAMES = 6_000
"""sqlglot takes some 20 calls for each parenthesis: enough for 200 within one another."""
# The limit belongs to the whole interpreter: one thread at a time raises it and puts it
# back.
_deep = threading.RLock()


@contextmanager
def deeper() -> Iterator[None]:
    """A context in which calls may nest deeper than Python's default, which 50 parentheses use up.

    Raises:
        RecipeError: they nested deeper still.
    """
    with _deep:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, _FRAMES))
        try:
            yield
        except RecursionError:
            raise RecipeError(
                "the expression is nested too deeply to be read. Derive a column for each of its parts."
            ) from None
        finally:
            sys.setrecursionlimit(before)


@dataclass(frozen=True)
class Expression:
    """A checked expression, bound to the columns it reads."""

    text: str
    """As the recipe has it."""
    columns: tuple[str, ...]
    """The columns it reads, as the table spells them, in order of appearance."""
    template: str
    """DuckDB SQL in which the i-th of `columns` is written `"$i"`."""

    def fill(self, inputs: Sequence[exp.Expression]) -> exp.Expression:
        """The sqlglot tree with `inputs` in the columns' places; any dialect can be written from it."""
        from sqlglot import exp

        def place(node: exp.Expression) -> exp.Expression:
            if isinstance(node, exp.Column) and node.name.startswith(_PLACE):
                given = inputs[int(node.name[1:])]
                # In parentheses, or the operators of what is put in would bind to those
                # around it.
                return (
                    given.copy()
                    if isinstance(given, (exp.Column, exp.Identifier))
                    else exp.Paren(this=given.copy())
                )
            return node

        (select,) = _statements(self.template)
        return exp.Paren(this=select.expressions[0].transform(place))


def bind(text: str, columns: Sequence[str]) -> Expression:
    """Parse `text`, check it against the allow-list and find its columns among `columns`.

    Raises:
        RecipeError: it is not one scalar expression, does what is not allowed, names a column that is not
            there, or is too long or too deep to be read.
    """
    # Bounds come before the parser, whose time and stack they bound.
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(
            f"an expression has at most {MOST_CHARACTERS:,} characters; found {len(text):,}, beginning"
            f" {text[:40]!r}"
        )
    if text.count("[") > _MOST_BRACKETS:  # sqlglot takes the square of their number
        raise RecipeError(
            f"an expression has at most {_MOST_BRACKETS} brackets [; found {text.count('['):,}, beginning"
            f" {text[:40]!r}"
        )
    if "\0" in text:
        raise RecipeError(
            f"an expression cannot contain the character NUL; found {text[:80]!r}"
        )
    from sqlglot.errors import SqlglotError

    try:
        # Both parsers take UTF-8.
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError(
            "an expression must be text that UTF-8 can write, without half of a surrogate pair; found"
            f" {text[:80]!a}"
        ) from None
    try:
        with deeper():
            return _bound(text, columns)
    except SqlglotError as error:  # of what it wrote itself, or of a type within the text
        raise RecipeError(
            f"this is not a valid SQL expression: {str(error).splitlines()[0]}; found"
            f" {text!r}"
        ) from None
    except RecipeError as error:
        # The sentence repeats the expression, which may be long.
        if len(error.message) > _LONGEST:
            raise RecipeError(error.message[:_LONGEST] + "…") from None
        raise


_LONGEST = 2_000
"""Characters of a sentence about an expression."""
_MOST_BRACKETS = 200


def _bound(text: str, columns: Sequence[str]) -> Expression:
    tree = _parse(text)
    names = list(columns)
    used: dict[str, int] = {}
    unknown: dict[str, None] = {}
    from sqlglot import exp

    def place(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Column):
            return node
        steps = [part.name for part in node.parts]
        # The longest name first: a flattened column `a.b` goes before the field `b` of
        # `a`.
        for cut in range(len(steps), 0, -1):
            column = _find(".".join(steps[:cut]), names)
            if column is not None:
                spot: exp.Expression = exp.column(
                    f"{_PLACE}{used.setdefault(column, len(used))}", quoted=True
                )
                # What is left of the name are fields of a struct.
                for step in steps[cut:]:
                    spot = exp.Dot(
                        this=exp.Paren(this=spot),
                        expression=exp.to_identifier(step, quoted=True),
                    )
                return spot
        unknown[".".join(steps)] = None
        return node

    # All unknown columns are gathered before anything is raised.
    bound = tree.transform(place)
    if unknown:
        word = "column" if len(unknown) == 1 else "columns"
        hints = "".join(map(Hints(names), unknown))
        raise RecipeError(
            f"there is no {word} {', '.join(map(repr, unknown))}.{hints} Columns: {listed(names)}."
        )
    # Without comments: only what is run is checked and shown to other engines.
    template = bound.sql(dialect="duckdb", comments=False)
    _check(template, text)
    return Expression(text, tuple(used), template)


def _find(name: str, names: Sequence[str]) -> str | None:
    # Exactly first; without regard to case only where nothing is called so.
    if name in names:
        return name
    return next((n for n in names if n.lower() == name.lower()), None)


def _statements(text: str) -> list[Any]:
    """What sqlglot reads in `SELECT text`.

    What is taken out of JSON is written as a function, with the path as it was given.

    sqlglot would write `json_extract(a, '$.x')` as `a -> '$.x'`, which DuckDB's parser takes for a lambda and
    which binds less tightly than `=`; and it would make the key `x.y` the path `$.x.y`.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.dialects.duckdb import DuckDB

    dialect = DuckDB()
    dialect.to_json_path = lambda path: path  # type: ignore[method-assign]
    # The line end closes a `--` comment, should the text end in one.
    statements = sqlglot.parse(f"SELECT {text}\n", read=dialect)
    for statement in filter(None, statements):
        for node in list(statement.find_all(exp.JSONExtract, exp.JSONExtractScalar)):
            name = (
                "json_extract"
                if isinstance(node, exp.JSONExtract)
                else "json_extract_string"
            )
            node.replace(
                exp.Anonymous(
                    this=name, expressions=[node.this, node.expression, *node.expressions]
                )
            )
    return list(statements)


def _parse(text: str) -> exp.Expression:
    import sqlglot
    from sqlglot import exp

    if not text.strip():
        raise RecipeError("expected an SQL expression; found nothing")
    try:
        statements = _statements(text)
    except sqlglot.errors.SqlglotError as error:
        first = (getattr(error, "errors", None) or [{}])[0]
        near = str(first.get("highlight") or "").strip()
        where = f" near {near!r}" if near else ""
        complaint = str(first.get("description") or str(error).splitlines()[0])
        if (
            "<class" in complaint
        ):  # sqlglot names its own classes where an operand is missing
            complaint = "something is missing there"
        raise RecipeError(
            f"this is not a valid SQL expression{where}: {complaint}; found {text!r}"
        ) from None
    select = statements[0] if len(statements) == 1 else None
    if not isinstance(select, exp.Select):
        raise RecipeError(
            f'expected one SQL expression, such as "age >= 17"; found {text!r}'
        )
    # FROM, WHERE and the like make it a query.
    others = [
        word for word, value in select.args.items() if word != "expressions" and value
    ]
    if others or len(select.expressions) != 1:
        what = (
            "several"
            if not others
            else f"a query ({', '.join(o.strip('_').upper() for o in others)})"
        )
        raise RecipeError(f"expected one SQL expression, not {what}; found {text!r}")
    whole = select.expressions[0]
    if isinstance(whole, exp.Alias):
        raise RecipeError(f"expected an expression without a name (AS …); found {text!r}")
    return whole


@lru_cache(maxsize=64)
def serialised(template: str) -> dict[str, Any]:
    """What DuckDB's parser reads in `SELECT template`, as plain data."""
    # Serialising parses, and runs nothing; the text itself is a parameter.
    with deeper():
        # A cursor for each call, since threads share the connection.
        answer = (
            _parser()
            .cursor()
            .execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT {template}"])
            .fetchone()[0]
        )
        tree: dict[str, Any] = json.loads(answer)
        return tree


def _check(template: str, text: str) -> None:
    """Every node that DuckDB's parser sees must be on the list."""
    answer = serialised(template)
    if answer.get("error"):
        raise RecipeError(
            f"this is not a valid SQL expression: {answer.get('error_message')}; found"
            f" {text!r}"
        )
    statements = answer["statements"]
    node = statements[0]["node"]
    # A text may close its SELECT and go on: one statement, of one value, from no table.
    if (
        len(statements) != 1
        or node["type"] != "SELECT_NODE"
        or node["from_table"]["type"] != "EMPTY"
        or len(node["select_list"]) != 1
    ):
        raise RecipeError(f"expected one SQL expression; found {text!r}")
    for entry in _nodes(node["select_list"]):
        sort = entry["class"]
        if sort == "FUNCTION":
            _check_function(entry, text)
        elif sort not in _NODES:
            raise RecipeError(
                f"{_WHAT.get(sort, sort.lower())} is not allowed here: an expression reads one row's columns"
                f" and nothing else; found {text!r}"
            )
        # What looks like a column and is none of ours, such as `current_date`.
        elif sort == "COLUMN_REF" and not entry["column_names"][0].startswith(_PLACE):
            name = ".".join(entry["column_names"])
            raise RecipeError(
                f"{name} is not allowed here, because a recipe must give the same rows every"
                f" time; found {text!r}"
            )


def _check_function(entry: dict[str, Any], text: str) -> None:
    name = entry["function_name"]
    # DuckDB writes `main` where it rewrites syntax
    ours = entry.get("schema") in ("", "main", None) and entry.get("catalog") in (
        "",
        "system",
        None,
    )
    if not ours or not (name in FUNCTIONS or name in _OPERATORS):
        raise RecipeError(
            f"the function {name!r} is not allowed here.{did_you_mean(name, sorted(FUNCTIONS))} An expression"
            f" may use functions of one row's values only; found {text!r}"
        )
    if name == "age" and len(entry["children"]) == 1:
        raise RecipeError(
            "age(t) depends on today's date, but a recipe must give the same rows every"
            f" day. Name the moment, as in age(TIMESTAMP '2026-01-01', t); found {text!r}"
        )


def _nodes(value: Any) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    if isinstance(value, dict):
        if "class" in value:
            nodes.append(value)
        for item in value.values():
            nodes += _nodes(item)
    elif isinstance(value, list):
        for item in value:
            nodes += _nodes(item)
    return nodes


@lru_cache(maxsize=1)
def _parser() -> Any:
    import duckdb

    # Neither files nor extensions: even a gap in the list would find nothing to open.
    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
            "threads": "1",
        },
    )
