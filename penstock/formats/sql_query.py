"""The query that a recipe may say to a database: one SELECT, by an allow-list of what it calls.

sqlglot parses the text in the database's dialect, every node is judged, and what is sent is written from the
judged tree, never the text itself: a comment that a server would run (`/*! … */`) is gone. The transaction is
read-only as well, so this is the second lock and not the only one: it keeps functions away that read files,
sleep or call out (`pg_read_file`, `dblink`), which a read-only transaction allows.

Allowed are the functions that sqlglot knows by name, which are those of the SQL standard and their kin; one's
own functions of the database belong into a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.contracts.sql import MOST_CHARACTERS, deeper
from penstock.core.errors import RecipeError

if TYPE_CHECKING:
    from sqlglot import exp

_REMEDY = "Make a view of it in the database, and name that as `table`"
_FILE_READERS = frozenset({"ReadCSV", "ReadParquet", "NextValueFor", "JSONTable"})
"""Functions that sqlglot knows and no query needs."""
_PLAIN = frozenset({"age", "host", "isfinite", "jsonb_array_length", "json_array_length"})
"""Functions that sqlglot does not know by name, and that compute from their arguments alone."""


def checked_query(text: str, *, dialect: str) -> str:
    """The query as it is sent to the database.

    Args:
        text: the user's own.
        dialect: sqlglot's name of the database's SQL.

    Raises:
        ValueError: it is no single SELECT, or calls what it may not; a sentence.
    """
    import sqlglot
    from sqlglot import exp

    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"has more than {MOST_CHARACTERS:,} characters. {_REMEDY}")
    try:
        with deeper():
            trees = [tree for tree in sqlglot.parse(text, read=dialect) if tree]
            if len(trees) != 1 or not isinstance(trees[0], exp.Query):
                raise ValueError(
                    "must be one SELECT, and nothing else: it is only ever read from"
                )
            _judge(trees[0])
            return trees[0].sql(dialect=dialect, comments=False)
    except RecipeError as error:
        raise ValueError(error.message) from None
    except sqlglot.errors.SqlglotError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no SQL"
        raise ValueError(f"cannot be read as SQL ({first[:200]})") from None


def _judge(tree: exp.Query) -> None:
    from sqlglot import exp

    changing = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock)
    unbound = (exp.Placeholder, exp.Parameter, exp.SessionParameter)
    for node in tree.walk():
        kind = type(node).__name__
        # Every query is a DDL to sqlglot, since a table may be made of one.
        if isinstance(node, changing) and not isinstance(node, exp.Query):
            raise ValueError(f"must only read; found {kind.upper()}. {_REMEDY}")
        if isinstance(node, unbound):
            raise ValueError(f"has a parameter ({node.sql()}); write its value")
        if kind in _FILE_READERS:
            raise ValueError(f"calls {kind}, which no query may. {_REMEDY}")
        is_unknown = isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc))
        if is_unknown and str(node.name).lower() not in _PLAIN:
            raise ValueError(
                f"calls {str(node.name)[:80]!r}, which is not among the functions that a query may call."
                f" {_REMEDY}"
            )
