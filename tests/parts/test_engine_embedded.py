"""The embedded engine: the family's laws, the allow-list of SQL, and its refusals as sentences."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.contracts.data import Engine
from penstock.contracts.sql import bind
from penstock.core.errors import RecipeError, SourceError, StoreError, UserError
from penstock.testing.laws import engines as laws


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
# Spark starts slowly: tests/parts/test_engine_spark.py
@pytest.mark.parametrize("type", [type for type in Engine.types() if type != "spark"])
def test_laws(type, law):
    law(Engine.load(type))


COLUMNS = ["Age", "b", "ts", "grades.score", "s", "x"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("age + 1", ("Age",)),
        ("upper(b) LIKE 'x%'", ("b",)),
        ("CASE WHEN x THEN 1 ELSE Age END", ("x", "Age")),
        ("grades.score * 2", ("grades.score",)),
        ('"grades.score"', ("grades.score",)),
        ("s.f.g", ("s",)),
        ("[1, 2][1] + x", ("x",)),
        ("{'a': x}", ("x",)),
        ("x IN (1, 2)", ("x",)),
        ("extract(year FROM ts)", ("ts",)),
        ("TRY_CAST(b AS INTEGER)", ("b",)),
        ("ts + INTERVAL 3 DAY", ("ts",)),
        ("ts AT TIME ZONE 'UTC'", ("ts",)),
        ("substring(b FROM 1 FOR 2)", ("b",)),
        ("split_part(b, '-', 1)", ("b",)),
        ("b SIMILAR TO 'a+'", ("b",)),
        ("x IS NOT NULL AND NOT (b <> '')", ("x", "b")),
        ("date_diff('day', ts, ts)", ("ts",)),
        ("string_split(b, ' ')[1]", ("b",)),
        ("x ** 2 // 3 % 2", ("x",)),
        ("coalesce(x, 0)::DOUBLE", ("x",)),
        ("b -- a remark", ("b",)),
        ("strptime(b, '%d/%m/%Y')", ("b",)),
        ("TRY(x / 0)", ("x",)),
    ],
)
def test_expressions_find_their_columns(text, columns):
    assert bind(text, COLUMNS).columns == columns


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("agee", "no column 'agee'"),
        ("xx + b + yy", "'xx', 'yy'"),
        ("b; DROP TABLE t", "one SQL expression"),
        ("1 FROM x", "a query (FROM)"),
        ("b UNION SELECT 2", "one SQL expression"),
        ("b, x", "several"),
        ("b AS c", "without a name"),
        ("DISTINCT b", "DISTINCT"),
        ("", "found nothing"),
        ("((", "not a valid SQL expression"),
        ("b >", "something is missing"),
        ("*", "* is not allowed"),
        ("(SELECT max(x) FROM t)", "a query inside"),
        ("x IN (SELECT 1)", "a query inside"),
        ("EXISTS (SELECT 1)", "a query inside"),
        ("x = ANY([1, 2])", "a query inside"),
        ("sum(x)", "'sum'"),
        ("count(*)", "is not allowed"),
        ("row_number() OVER ()", "a window function"),
        ("list_transform(s, y -> y + 1)", "is not allowed"),
        ("unnest(s)", "'unnest'"),
        ("read_csv('/etc/passwd')", "'read_csv'"),
        ("glob('/*')", "'glob'"),
        ("getenv('HOME')", "'getenv'"),
        ("current_setting('threads')", "'current_setting'"),
        ("query('SELECT 1')", "'query'"),
        ("now()", "'now'"),
        ("current_date", "must give the same rows"),
        ("age(ts)", "every day"),
        ("epoch(age(ts))", "every day"),
        ("current_timestamp", "is not allowed"),
        ("random()", "'random'"),
        ("uuid()", "'uuid'"),
        ("hash(b)", "'hash'"),
        ("nextval('s')", "'nextval'"),
        ("main.getenv('HOME')", "is not allowed"),
        ("$1", "a parameter"),
        ("#1", "by position"),
        ("COLUMNS(*)", "is not allowed"),
        ("uper(b)", "Did you mean 'upper'"),
        ("json_execute_serialized_sql('x')", "is not allowed"),
        ("load_extension('httpfs')", "is not allowed"),
        ("error(b)", "is not allowed"),
    ],
)
def test_all_else_is_refused(text, part):
    with pytest.raises(RecipeError) as refused:
        bind(text, COLUMNS)
    assert part in str(refused.value)


def test_an_unknown_column_is_answered_with_a_near_one():
    with pytest.raises(RecipeError, match="Did you mean 'ts'"):
        bind("tss > 1", COLUMNS)


@pytest.fixture
def session(tmp_path):
    with Engine.load("embedded").open(
        tmp_path / "scratch", memory_bytes=2**29, threads=2
    ) as session:
        yield session


def test_types_that_do_not_fit_name_the_columns(session):
    table = session.table(pa.table({"a": [1], "b": ["x"]}))
    with pytest.raises(RecipeError, match=r"a is int64, b is string"):
        session.sql(table, "upper(a + b)")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("json_extract(b, '$.x')", '{"y":1}'),
        ("b -> '$.x.y'", "1"),
        ("json_extract(b, '$.x.y')::int = 1", True),
        ("b ->> 'x.y'", "2"),
        ("b ->> '/x/y'", "1"),
        ("json_extract_path_text(b, 'x.y')", "2"),
        ("length(json_extract_string(b, 'x'))", 7),
        ("b -> 'l' ->> -1", "3"),
        ("(b ->> 'x.y') between '1' and '3'", True),
        ("json_extract_string(json_extract(b, 'x'), 'y')", "1"),
        ("len(b ->> '$.l[*]')", 3),
    ],
)
def test_what_is_taken_out_of_json_is_what_the_path_says(session, text, value):
    table = session.table(pa.table({"b": ['{"x": {"y": 1}, "x.y": 2, "l": [1, 2, 3]}']}))
    assert session.rows(
        table.select(
            v=session.sql(table, text).cast(type(value).__name__.replace("str", "string"))
        )
    ) == [{"v": value}]


def test_a_lambda_is_refused_and_says_how_json_is_written(session):
    table = session.table(pa.table({"a": [[1, 2]], "b": ["{}"]}))
    for text in ("list_contains(a, b -> '$.y')", "list_transform(a, x -> x + 1)"):
        with pytest.raises(
            RecipeError, match=r"json_extract\(column, path\)|is not allowed"
        ):
            session.sql(table, text)


def test_an_expression_moves_to_another_dialect(session):
    from sqlglot import exp

    tree = bind("strftime(ts, '%Y') || coalesce(b, '')", COLUMNS).fill(
        [exp.column("ts", table="t"), exp.column("b", table="t")]
    )
    assert "DATE_FORMAT" in tree.sql(dialect="spark") and "t.ts" in tree.sql(
        dialect="spark"
    )


def test_decimals_come_as_doubles(session):
    table = session.table(pa.table({"a": [2]}))
    assert session.rows(table.mutate(h=session.sql(table, "a * 0.5")).select("h")) == [
        {"h": 1.0}
    ]
    assert session.sql(table, "a * 0.5").type().is_floating()


def test_columns_that_differ_in_case_only_are_refused(session, tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1], "A": [2]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="differ only in case"):
        session.read([tmp_path / "x.parquet"])


def test_nothing_to_read_is_said(session):
    with pytest.raises(SourceError, match="no rows at all"):
        session.read([])


def test_nothing_is_downloaded_and_nothing_can_be_set(session):
    import duckdb

    settings = dict(
        session._duck.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions'"
        ).fetchall()
    )
    assert settings == {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with pytest.raises(duckdb.Error, match="locked"):
        session._duck.execute("SET threads = 8")


def test_too_little_memory_is_a_sentence(tmp_path):
    with Engine.load({"type": "embedded"}).open(
        tmp_path / "scratch", memory_bytes=1, threads=1
    ) as session:
        long = session.table(pa.table({"i": pa.array(range(1_000))}))
        import ibis

        wide = long.cross_join(long.rename(j="i")).cross_join(long.rename(k="i"))
        with pytest.raises(UserError, match=r"resources\.memory"):
            session.rows(
                wide.aggregate(
                    all=wide.i.cast("string")
                    .lpad(200, "x")
                    .collect(where=wide.k < ibis.literal(50))
                )
            )


def test_a_full_disk_is_a_sentence(session):
    import duckdb

    with pytest.raises(StoreError, match="the disk is full"), session._plainly():
        raise duckdb.IOException(
            'IO Error: Could not write file "x": No space left on device'
        )


def test_spilling_beyond_memory(tmp_path):
    """Sorting more than the limit goes through disk and comes out whole."""
    import ibis

    with Engine.load("embedded").open(
        tmp_path / "scratch", memory_bytes=1, threads=2
    ) as session:
        some = session.table(pa.table({"i": pa.array(range(700))}))
        many = some.cross_join(some.rename(j="i")).mutate(
            text=(ibis._.i * 7919 % 700).cast("string").lpad(300, "0")
        )
        written = session.write(many, tmp_path / "out", order=["text", "j"])
    import pyarrow.parquet as pq

    first = pq.ParquetFile(tmp_path / "out" / "part-0.parquet").read_row_group(
        0, columns=["text", "j"]
    )
    assert written == 700**2
    assert first.slice(0, 1_400).to_pylist() == sorted(
        first.slice(0, 1_400).to_pylist(), key=lambda r: (r["text"], r["j"])
    )
