"""The laws of engines.

`check(Engine.load({"type": "acme.cluster"}))` judges a declared engine by all of them: each opens a session
over made-up rows and compares what comes out with what numpy or Arrow say.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, Engine, EngineSession
from penstock.contracts.digest import below, md5, row_digest
from penstock.contracts.summary import Moments
from penstock.core.errors import ContractError, RecipeError

ROWS = 1_000
Law = Callable[[Engine], None]


def table(start: int = 0) -> pa.Table:
    """Rows with null, NaN, exact 64-bit numbers, texts of all sorts and times."""
    n = range(start, start + ROWS)
    return pa.table(
        {
            ROW_ID: pa.array([hashlib.md5(str(i).encode()).hexdigest() for i in n]),
            "number": pa.array(
                [
                    None if i % 7 == 0 else float("nan") if i % 11 == 0 else i / 3
                    for i in n
                ],
                pa.float64(),
            ),
            "whole": pa.array(
                [None if i % 13 == 0 else 2**62 + i for i in n], pa.int64()
            ),
            "text": pa.array(
                [
                    None if i % 5 == 0 else ["", "Ünï", 'it\'s "x"', "a|b"][i % 4]
                    for i in n
                ],
                pa.string(),
            ),
            "moment": pa.array(
                [None if i % 9 == 0 else 1_600_000_000_000_000 + i for i in n],
                pa.timestamp("us"),
            ),
        }
    )


@contextmanager
def opened(engine: Engine) -> Iterator[tuple[EngineSession, Path]]:
    """A session and a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-laws-") as folder,
        engine.open(Path(folder) / "engine", memory_bytes=2**29, threads=2) as session,
    ):
        yield session, Path(folder)


def _all(session: EngineSession, expression: object) -> pa.Table:
    return pa.Table.from_batches(list(session.batches(expression)), schema=table().schema)


def _same(one: pa.Table, other: pa.Table) -> bool:
    # as text: NaN equals nothing
    return [str(row) for row in one.to_pylist()] == [
        str(row) for row in other.to_pylist()
    ]


def rows_come_back(engine: Engine) -> None:
    """What goes in as Parquet, or as a small table, comes back with every value and type, also after
    `keep`.
    """
    given = table().sort_by(ROW_ID)
    with opened(engine) as (session, folder):
        pq.write_table(given, folder / "a.parquet")
        for word, copy in (
            ("read", session.read([folder / "a.parquet"])),
            ("table", session.table(given)),
            ("keep", session.keep(session.table(given))),
        ):
            assert _same(_all(session, copy.order_by(ROW_ID)), given), (
                f"rows_come_back: {word} changed rows"
            )
            assert session.count(copy) == ROWS, (
                f"rows_come_back: {word} changed their number"
            )


def unites_by_name(engine: Engine) -> None:
    """Files are united by the names of their columns; what a file lacks is null."""
    with opened(engine) as (session, folder):
        pq.write_table(pa.table({"a": [1], "b": ["x"]}), folder / "1.parquet")
        pq.write_table(pa.table({"b": ["y"], "c": [2.5]}), folder / "2.parquet")
        united = session.rows(
            session.read([folder / "1.parquet", folder / "2.parquet"])
            .order_by("b")
            .select("a", "b", "c")
        )
        assert united == [
            {"a": 1, "b": "x", "c": None},
            {"a": None, "b": "y", "c": 2.5},
        ], f"unites_by_name: found {united}"


def writes_in_order(engine: Engine) -> None:
    """`write` keeps the order asked for, over all files by name, and writes a file even for no rows."""
    with opened(engine) as (session, folder):
        given = session.table(table())
        assert session.write(given, folder / "out", order=[ROW_ID]) == ROWS, (
            "writes_in_order: the number returned is not that of the rows"
        )
        written = pa.concat_tables(
            [pq.read_table(p) for p in sorted((folder / "out").glob("*.parquet"))]
        )
        assert _same(written, table().sort_by(ROW_ID)), (
            "writes_in_order: the rows are not in order, or not the same"
        )
        assert (
            session.write(
                given.filter(given["whole"] < 0), folder / "none", order=[ROW_ID]
            )
            == 0
        )
        files = list((folder / "none").glob("*.parquet"))
        assert files and pq.read_schema(files[0]).names == table().column_names, (
            "writes_in_order: no rows must leave a file with the schema"
        )


def expressions_compose(engine: Engine) -> None:
    """SQL expressions are values: they nest, filter and mix with Ibis' own."""
    with opened(engine) as (session, _):
        start = session.table(
            pa.table(
                {
                    "a": [1, 2, 3, None],
                    "b": ["x", None, "z", "w"],
                    "c.d": [1.0, 2.0, 3.0, 4.0],
                }
            )
        )
        one = start.mutate(
            e=session.sql(start, "a * 2 + 1"),
            f=session.sql(start, "upper(b) || '!'"),
            k=session.sql(start, "1 + 1"),
        )
        two = one.mutate(g=session.sql(one, "e + c.d - k"), h=one["e"] * 2).filter(
            session.sql(one, "e > 3 OR B = 'w'")
        )
        answers = session.rows(two.order_by("c.d").select("e", "f", "g", "h"))
        assert answers == [
            {"e": 5, "f": None, "g": 5.0, "h": 10},
            {"e": 7, "f": "Z!", "g": 8.0, "h": 14},
            {"e": None, "f": "W!", "g": None, "h": None},
        ], f"expressions_compose: found {answers}"


def refuses_what_is_no_expression(engine: Engine) -> None:
    """Anything but a row's own values is refused, and so is a type that does not fit; nothing runs."""
    with opened(engine) as (session, _):
        start = session.table(pa.table({"a": [1], "b": ["x"]}))
        for text in (
            "(SELECT 1)",
            "a; DROP TABLE x",
            "sum(a)",
            "row_number() OVER ()",
            "read_text('/etc/hostname')",
            "getenv('HOME')",
            "now()",
            "random()",
            "a FROM x",
            "b + 1",
            "zz",
            "upper(a + b)",
        ):
            try:
                session.sql(start, text)
            except RecipeError:
                continue
            raise AssertionError(
                f"refuses_what_is_no_expression: {text!r} was let through"
            )


def says_what_broke(engine: Engine) -> None:
    """A value that breaks an expression is a `ContractError`."""
    with opened(engine) as (session, _):
        start = session.table(pa.table({"b": ["1", "x"]}))
        try:
            session.rows(start.mutate(n=session.sql(start, "CAST(b AS INTEGER)")))
        except ContractError:
            return
        raise AssertionError(
            "says_what_broke: a text that is no number went through a CAST"
        )


def digests_agree(engine: Engine) -> None:
    """md5, and the shares and row digests made of it, are those of hashlib."""
    texts = ["", "a", "Ünï", "x" * 1000]
    with opened(engine) as (session, _):
        start = session.table(pa.table({"i": range(4), "t": texts}))
        digests = session.rows(
            start.mutate(
                d=md5(start["t"]),
                s=below(md5(start["t"]), 0.5),
                r=row_digest(start, ["i", "t"]),
            ).order_by("i")
        )
        for row, text in zip(digests, texts, strict=True):
            digest = hashlib.md5(text.encode()).hexdigest()
            assert row["d"] == digest, "digests_agree: md5 differs"
            assert row["s"] == (int(digest, 16) < 2**127), (
                "digests_agree: half of all digests are below a half"
            )
            assert (
                row["r"]
                == hashlib.md5(f"{row['i']};{len(text)}:{text}".encode()).hexdigest()
            ), "digests_agree: a row's digest differs"


def summarises_every_row(engine: Engine) -> None:
    """`summarise` equals updating with the whole column."""
    with opened(engine) as (session, _):
        summaries, wanted = Moments(), Moments()
        session.summarise(session.table(table()), {"number": summaries})
        wanted.update(
            table()["number"].combine_chunks(), table()[ROW_ID].combine_chunks()
        )
        assert summaries.result() == wanted.result(), (
            "summarises_every_row: the summary differs"
        )


def compiled_once_for_all(engine: Engine) -> None:
    """What is compiled for requests gives the same as the expression does, in the order of the request."""
    with opened(engine) as (session, _):
        run = session.compiled(
            table().schema, lambda t: t.mutate(twice=session.sql(t, "number * 2"))
        )
        for start in (0, 500):
            given = table(start)
            answer = run(given)
            assert answer[ROW_ID].to_pylist() == given[ROW_ID].to_pylist(), (
                "compiled_once_for_all: the order is another"
            )
            assert [str(v) for v in answer["twice"].to_pylist()] == [
                str(None if v is None else v * 2) for v in given["number"].to_pylist()
            ], "compiled_once_for_all: the values differ"


_MEANT = {
    "CAST(number AS VARCHAR)": "'1e+300'",
    "number / 0": "'inf'",
    "whole // 2": "-3",
    "whole % 3": "-1",
    "upper(text)": "'STRASSE É'",
    "length(text)": "9",
    "text LIKE 'str%'": "True",
    "regexp_extract(text, '(\\w+) (.)', 2)": "'É'",
    "CAST(moment AS VARCHAR)": "'2020-09-13 12:26:40.000001'",
    "strftime(moment, '%d/%m/%y')": "'13/09/20'",
    "TRY_CAST(text AS DOUBLE)": "None",
    "TRY_CAST(' 7 ' AS BIGINT) + whole": "0",
    "[whole, 1][1]": "-7",
    "substring(text, -3, 2)": "'e '",
    "round(whole / 2, 0)": "'-4.0'",
    "CASE WHEN whole = 0 THEN 1 / whole ELSE 0.5 END": "'0.5'",
}
"""Expressions over one row (`_ROW`), with what DuckDB makes of them; a double is told by its text."""
_ROW = {
    "number": [1e300],
    "whole": [-7],
    "text": ["strasse É"],
    "moment": pa.array([1_600_000_000_000_001], pa.timestamp("us")),
}


def means_what_duckdb_means(engine: Engine) -> None:
    """The SQL of a recipe is DuckDB's, whatever the engine."""
    with opened(engine) as (session, _):
        start = session.table(pa.table(_ROW))
        answers = session.rows(
            start.select(
                **{f"e{i}": session.sql(start, text) for i, text in enumerate(_MEANT)}
            )
        )[0]
        for i, (text, meant) in enumerate(_MEANT.items()):
            value = answers[f"e{i}"]
            shown = repr(str(value)) if isinstance(value, float) else repr(value)
            assert shown == meant, (
                f"means_what_duckdb_means: {text} is {shown}, and should be {meant}"
            )


def has_one_zero(engine: Engine) -> None:
    """Negative zero is read as zero, since a Parquet dictionary may not tell them apart."""
    with opened(engine) as (session, folder):
        pq.write_table(
            pa.table({"x": [0.0, -0.0]}), folder / "z.parquet", use_dictionary=False
        )
        assert [
            str(row["x"]) for row in session.rows(session.read([folder / "z.parquet"]))
        ] == [
            "0.0",
            "0.0",
        ], "has_one_zero: -0.0 came back"


LAWS: tuple[Law, ...] = (
    rows_come_back,
    unites_by_name,
    writes_in_order,
    expressions_compose,
    refuses_what_is_no_expression,
    says_what_broke,
    digests_agree,
    summarises_every_row,
    compiled_once_for_all,
    means_what_duckdb_means,
    has_one_zero,
)


def check(engine: Engine) -> None:
    """Judge an engine by every law.

    Raises:
        AssertionError: names the law and the difference.
    """
    for law in LAWS:
        law(engine)
