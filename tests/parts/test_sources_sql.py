"""Rows of a real PostgreSQL, and of SQLite, by the laws and by what their values mean."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import penstock
from penstock.cli import main
from penstock.contracts.data import Extract, Source
from penstock.core.errors import PenstockError, RecipeError, SourceError
from penstock.core.events import Events
from penstock.formats.content_digest import ContentDigest
from penstock.formats.sql_query import checked_query
from penstock.recipe.schema import load_recipe
from penstock.testing.laws.sources import check_source
from tests.servers import PASSWORD, Server, postgres_server

driver = pytest.importorskip("adbc_driver_postgresql.dbapi")

TYPES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE typed (
  id int PRIMARY KEY, small smallint, big bigint, price numeric(10, 2), free numeric, long numeric(20, 0),
  whole numeric(9, 0), half real, double float8, at timestamptz, naive timestamp, day date, clock time,
  lasts interval, numbers int[], words text[], prices numeric[], doc jsonb, raw bytea, code uuid,
  feeling mood,
  yes boolean, padded char(4), cash money, host inet);
INSERT INTO typed VALUES
  (1, 2, 9007199254740993, 7.10, 0.1, 12345678901234567890, 5, 0.5, 0.1, '2024-03-01 12:00+02',
   '2024-03-01 12:00', '2024-03-01', '10:30', '1 day', '{1,null,3}', '{a,b}', '{0.1,2}', '{"a": 1}',
   '\\x00ff',
   '12345678-1234-1234-1234-123456789abc', 'sad', true, 'x', '12.50', '10.0.0.1'),
  (2, null, null, null, 'NaN', null, null, null, 'NaN', null, null, null, null, null, null, '{}', null, null,
   null, null, null, null, null, null, null);
CREATE TABLE odd (id int PRIMARY KEY, spot point, span int4range, fine text);
INSERT INTO odd VALUES (1, '(1,2)', '[1,2)', 'yes');
CREATE TABLE deep (id int PRIMARY KEY, cells int[]);
INSERT INTO deep VALUES (1, '{{1,2},{3,4}}');
CREATE TABLE people AS SELECT i AS id, 20 + i * 7 % 50 AS age,
  (array['fr', 'de', 'it'])[1 + i % 3] AS country,
  CASE WHEN (i * 7 % 50) > 24 THEN 'yes' ELSE 'no' END AS bought, date '2020-01-01' + i AS joined
  FROM generate_series(1, 900) i;
ALTER TABLE people ADD PRIMARY KEY (id);
CREATE TABLE keyless AS SELECT 1 AS a, 2 AS b UNION ALL SELECT 1, 2;
CREATE TABLE secret (id int PRIMARY KEY);
CREATE TABLE endless (id int PRIMARY KEY, at timestamptz);
INSERT INTO endless VALUES (1, 'infinity'), (2, '2024-01-01');
CREATE ROLE reader LOGIN PASSWORD 'reads-only-1234';
GRANT SELECT ON people TO reader;
"""


def told(server: Server, statements: str) -> None:
    """Run statements as the superuser, who needs PGPASSWORD."""
    with driver.connect(server.url()) as connection, connection.cursor() as cursor:
        for statement in filter(str.strip, statements.split(";\n")):
            cursor.execute(statement)
        connection.commit()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, postgres_server() as running:
        patch.setenv("PGPASSWORD", PASSWORD)
        told(running, TYPES)
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


def source(server: Server, **words: Any) -> Source:
    return Source.load({"type": "sql", "url": server.url(), **words})


def extracted(source: Source, folder: Path) -> tuple[Extract, pa.Table]:
    snapshot = source.snapshot(folder)
    made = source.extract(
        snapshot, folder / "scratch", memory_bytes=1 << 30, events=Events()
    )
    return made, pa.concat_tables([pq.read_table(path) for path in made.parquet])


@pytest.mark.parametrize(
    "words",
    [
        {"table": "people"},
        {"table": "people", "partition": {"column": "id", "parts": 3}},
        {"query": "SELECT id, age FROM people WHERE age > 30", "order_by": "id"},
        {"table": "typed"},
    ],
    ids=["table", "parts", "query", "types"],
)
def test_the_laws_hold(server: Server, tmp_path: Path, words: dict[str, Any]) -> None:
    check_source(source(server, **words), tmp_path)


def test_values_mean_what_they_mean_in_files(server: Server, tmp_path: Path) -> None:
    made, rows = extracted(source(server, table="typed"), tmp_path)
    first, second = rows.drop_columns(["__file", "__row"]).to_pylist()
    assert first == {
        "id": 1,
        "small": 2,
        "big": 9007199254740993,
        "price": 7.1,
        "free": 0.1,
        "long": "12345678901234567890",
        "whole": 5,
        "half": 0.5,
        "double": 0.1,
        "at": dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC),
        "naive": dt.datetime(2024, 3, 1, 12),
        "day": dt.datetime(2024, 3, 1),
        "clock": "10:30:00",
        "lasts": 86400.0,
        "numbers": [1, None, 3],
        "words": ["a", "b"],
        "prices": [0.1, 2.0],
        "doc": '{"a": 1}',
        "raw": b"\x00\xff",
        "code": "12345678-1234-1234-1234-123456789abc",
        "feeling": "sad",
        "yes": True,
        "padded": "x",
        "cash": 12.5,
        "host": "10.0.0.1/32",
    }
    assert str(second["free"]) == str(second["double"]) == "nan"
    assert second["words"] == []
    others = set(second) - {"id", "free", "double", "words"}
    assert all(second[name] is None for name in others)
    # The same values from a Parquet file that Arrow writes of them come in the same types.
    typed = {"price": pa.decimal128(10, 2), "long": pa.decimal128(20, 0)}
    file = pa.table({n: pa.array([first[n]]).cast(t) for n, t in typed.items()})
    pq.write_table(file, tmp_path / "same.parquet")
    files = Source.load({"type": "files", "path": "same.parquet"})
    same, of_file = extracted(files, tmp_path)
    for name in typed:
        assert same.schema.field(name).type == made.schema.field(name).type
        assert of_file[name].to_pylist() == [first[name]]


def test_the_same_rows_are_one_snapshot_and_a_changed_one_another(
    server: Server, tmp_path: Path
) -> None:
    whole = source(server, table="people").snapshot(tmp_path)
    for words in (
        {"table": "people", "partition": {"column": "id", "parts": 4}},
        {"table": "people", "partition": {"column": "id", "parts": 7}},
    ):
        assert source(server, **words).snapshot(tmp_path).to_dict() == whole.to_dict()
    assert whole.files[0].position.startswith("lsn ")
    assert "txid" in whole.files[0].position
    told(server, "UPDATE people SET age = age + 1 WHERE id = 500;\n")
    changed = source(server, table="people").snapshot(tmp_path)
    assert changed.files[0].sha256 != whole.files[0].sha256
    told(server, "UPDATE people SET age = age - 1 WHERE id = 500;\n")
    again = source(server, table="people").snapshot(tmp_path)
    # Another place on the server's disk, and the same rows.
    assert again.to_dict() == whole.to_dict()


def test_moments_divide_a_table_as_numbers_do(server: Server, tmp_path: Path) -> None:
    by_day = {"column": "joined", "parts": 5}
    one = source(server, table="people", order_by="joined").snapshot(tmp_path)
    many = source(server, table="people", order_by="joined", partition=by_day)
    assert many.snapshot(tmp_path).to_dict() == one.to_dict()


def test_a_table_that_no_transaction_changed_is_not_read_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.formats.postgres import Postgres

    first = source(server, table="people").snapshot(tmp_path)
    reads: list[Any] = []
    genuine = Postgres.batches
    monkeypatch.setattr(
        Postgres, "batches", lambda self, s: (reads.append(s), genuine(self, s))[1]
    )
    assert source(server, table="people").snapshot(tmp_path) == first
    assert not reads
    told(server, "UPDATE people SET age = age WHERE id = 1;\n")
    assert source(server, table="people").snapshot(tmp_path) == first
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ({"table": "peeple"}, "has no table 'peeple'. Did you mean 'people'?"),
        ({"table": "keyless"}, "keyless has no primary key"),
        ({"table": "keyless", "order_by": "a"}, "does not tell all rows apart"),
        ({"table": "people", "order_by": "agee"}, "no column 'agee' to order by"),
        ({"table": "people", "columns": ["idd"]}, "no column 'idd'"),
        ({"table": "odd"}, "the column 'spot' of odd has a type 'point'"),
        ({"table": "deep"}, "arrays of 2 dimensions"),
        (
            {"table": "people", "partition": {"column": "country", "parts": 2}},
            "no whole number, date or moment",
        ),
        (
            {"query": "SELECT id, 1 / (id - 3) AS x FROM people", "order_by": "id"},
            "division by zero",
        ),
        ({"query": "SELECT nosuch FROM people", "order_by": "nosuch"}, "does not exist"),
        (
            {
                "query": "SELECT a.id, count(*) AS n FROM people a, people b, people c GROUP BY 1",
                "order_by": "id",
                "timeout": 1,
            },
            "longer than `timeout` allows",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    server: Server, tmp_path: Path, words: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(SourceError, match=re.escape(fragment)) as error:
        source(server, **words).snapshot(tmp_path)
    assert error.value.exit_code == 2
    assert PASSWORD not in str(error.value)


def test_columns_without_meaning_may_be_left_out(server: Server, tmp_path: Path) -> None:
    made, rows = extracted(source(server, table="odd", columns=["id", "fine"]), tmp_path)
    assert rows["fine"].to_pylist() == ["yes"]
    assert made.schema.names == ["id", "fine"]
    query = "SELECT id, spot[0] AS x FROM odd"
    _, rows = extracted(source(server, query=query, order_by="id"), tmp_path)
    assert rows["x"].to_pylist() == [1.0]
    # An order by what is not read is an order all the same.
    made, _ = extracted(source(server, table="people", columns=["age"]), tmp_path / "b")
    assert made.schema.names == ["age"]


def test_a_moment_that_no_engine_holds_is_put_aside(
    server: Server, tmp_path: Path
) -> None:
    made, rows = extracted(source(server, table="endless"), tmp_path)
    assert (made.rows, made.rejected) == (1, 1)
    assert rows["id"].to_pylist() == [2]


@pytest.mark.parametrize(
    ("url", "password", "fragment"),
    [
        (
            "postgresql://admin@127.0.0.1:{port}/postgres",
            "wrong-one-99",
            "refuses the user",
        ),
        ("postgresql://admin@127.0.0.1:{port}/postgres", None, "asks for a password"),
        ("postgresql://admin@127.0.0.1:{port}/nosuch", PASSWORD, "does not exist"),
        ("postgresql://admin@127.0.0.1:1/postgres", PASSWORD, "no database answers at"),
        ("postgresql://admin@nosuch.invalid/x", PASSWORD, "no database answers at"),
        (
            "postgresql://reader@127.0.0.1:{port}/postgres",
            "reads-only-1234",
            "may not read",
        ),
    ],
)
def test_a_server_that_is_not_reached_or_refuses(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    password: str | None,
    fragment: str,
) -> None:
    if password is None:
        monkeypatch.delenv("PGPASSWORD")
    else:
        monkeypatch.setenv("PGPASSWORD", password)
    words = {"type": "sql", "url": url.format(port=server.port), "table": "secret"}
    with pytest.raises(SourceError, match=re.escape(fragment)) as error:
        Source.load(words).snapshot(tmp_path)
    assert not password or password not in str(error.value)


@pytest.mark.parametrize(
    ("query", "fragment"),
    [
        ("DELETE FROM people", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("SELECT pg_read_file('/etc/passwd')", "pg_read_file"),
        ("SELECT * FROM pg_catalog.pg_ls_dir('/')", "pg_ls_dir"),
        ("SELECT dblink('host=evil', 'SELECT 1')", "dblink"),
        ("WITH gone AS (DELETE FROM people RETURNING *) SELECT * FROM gone", "DELETE"),
        ("SELECT * INTO other FROM people", "INTO"),
        ("SELECT * FROM people FOR UPDATE", "LOCK"),
        ("SELECT nextval('s')", ""),
        ("COPY people TO PROGRAM 'sh'", "one SELECT"),
        ("SELECT $1", "parameter"),
        ("SELEC 1", ""),
    ],
)
def test_a_query_only_reads(query: str, fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment or None):
        checked_query(query, dialect="postgres")


def test_the_transaction_is_read_only_whatever_a_query_says(
    server: Server, tmp_path: Path
) -> None:
    from penstock.formats.postgres import Postgres

    with (
        Postgres(server.url(), base=tmp_path, timeout_seconds=9) as database,
        pytest.raises(SourceError, match="read-only transaction"),
    ):
        database._asked("DELETE FROM people RETURNING id")


def test_a_recipe_without_an_order_is_refused_with_all_its_mistakes() -> None:
    words = {"type": "sql", "url": "oracle://x/y", "query": "DROP TABLE x"}
    with pytest.raises(RecipeError, match="has 2 mistakes") as error:
        load_recipe({"source": words})
    assert {problem.path[:2] for problem in error.value.problems} == {
        ("source", "url"),
        ("source", "order_by"),
    }


RECIPE = """
name: people
source: {{type: sql, url: "{url}", table: people}}
inputs: {{age: number, country: category}}
targets: {{bought: {{type: binary, positive: "yes"}}}}
"""
PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def nobody_says_the_password(folder: Path, shown: str) -> None:
    assert PASSWORD not in shown
    for path in folder.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_variable_stands_for_the_password(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGPASSWORD")
    url = server.url().replace("admin@", "admin:${SHOP_PASSWORD}@")
    Path("recipe.yaml").write_text(RECIPE.format(url=url), "utf-8")
    assert main(["check", "recipe.yaml"]) == 2
    assert "SHOP_PASSWORD is not set" in capsys.readouterr().err
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    assert main(["check", "recipe.yaml"]) == 0
    assert main(["plan", "recipe.yaml", "--store", "store"]) == 0
    one = penstock.prepare("recipe.yaml", store="store")
    parts = load_recipe("recipe.yaml", ["source.partition={column: id, parts: 3}"])
    # In how many parts is how it is read, not what.
    assert penstock.prepare(parts, store="store").id == one.id
    entry = one.manifest["lineage"]["source"][0]
    assert entry["position"].startswith("lsn ")
    assert one.counts["in"] == 900
    assert "SHOP_PASSWORD" in Path("recipe.yaml").read_text("utf-8")
    shown = capsys.readouterr()
    nobody_says_the_password(tmp_path, shown.out + shown.err)


@pytest.mark.slow
def test_the_page_is_what_happens(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """init, check, prepare, run and predict, as the page has them."""
    monkeypatch.chdir(tmp_path)
    commands = [
        line.removeprefix("$ penstock ").replace(
            "127.0.0.1:5432", f"127.0.0.1:{server.port}"
        )
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("$ penstock ")
        # Those of subsets and of MySQL have tests of their own.
        and not line.startswith("$ penstock subset ")
        and "mysql://" not in line
    ]
    assert [command.split()[0] for command in commands] == [
        "init",
        "check",
        "prepare",
        "run",
        "predict",
    ]
    for command in commands:
        words = shlex.split(command)
        if "BUNDLE" in words:
            words[words.index("BUNDLE")] = next(Path("store", "bundles").iterdir()).name
        assert main(words) == 0, command
    assert len(Path("answers.csv").read_text("utf-8").splitlines()) == 901
    drafted = yaml.safe_load(Path("recipe.yaml").read_text("utf-8"))["source"]
    assert drafted == {"type": "sql", "url": server.url(), "table": "people"}
    shown = capsys.readouterr()
    nobody_says_the_password(tmp_path, shown.out + shown.err)


def test_a_join_reads_another_table(server: Server, tmp_path: Path) -> None:
    rows = pa.table({"person": [1, 2, 3, 950], "y": ["a", "b", "a", "b"]})
    pq.write_table(rows, tmp_path / "orders.parquet")
    recipe = {
        "name": "joined",
        "source": str(tmp_path / "orders.parquet"),
        "join": [
            {
                "source": {"type": "sql", "url": server.url(), "table": "people"},
                "on": {"person": "id"},
                "columns": ["age", "country"],
            }
        ],
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
    }
    dataset = penstock.prepare(recipe, store=tmp_path / "store")
    table = pa.Table.from_batches(list(dataset.batches("train")))
    ages = dict(zip(table["person"].to_pylist(), table["age"].to_pylist(), strict=True))
    assert ages == {1: 27, 2: 34, 3: 41, 950: None}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, paid, note TEXT, blob BLOB, mixed)"
        )
        rows = [
            (1, 1, "a", b"\x00", 1),
            (2, 2.5, None, None, "x"),
            (3, None, "c", b"", 2.5),
        ]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


def test_sqlite_gives_a_table_and_a_query(shop: Path, tmp_path: Path) -> None:
    whole = Source.load({"type": "sql", "url": "sqlite:///shop.db", "table": "orders"})
    check_source(whole, tmp_path)
    made, rows = extracted(whole, tmp_path)
    assert rows["paid"].to_pylist() == [1.0, 2.5, None]
    assert rows["mixed"].to_pylist() == ["1", "x", "2.5"]
    assert rows["blob"].to_pylist() == [b"\x00", None, b""]
    assert made.schema.field("id").type == pa.int64()
    query = "SELECT note, count(*) AS n FROM orders WHERE note IS NOT NULL GROUP BY note"
    words = {
        "type": "sql",
        "url": f"sqlite:///{shop}",
        "query": query,
        "order_by": "note",
    }
    _, rows = extracted(Source.load(words), tmp_path / "other")
    assert rows.select(["note", "n"]).to_pylist() == [
        {"note": "a", "n": 1},
        {"note": "c", "n": 1},
    ]


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ({"url": "sqlite:///nosuch.db", "table": "x"}, "there is no database"),
        ({"url": "sqlite:///shop.db", "table": "ordrs"}, "Did you mean 'orders'?"),
        (
            {"url": "sqlite:///shop.db", "query": "SELECT x", "order_by": "x"},
            "no such column",
        ),
    ],
)
def test_what_sqlite_refuses(
    shop: Path, tmp_path: Path, words: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(PenstockError, match=re.escape(fragment)):
        Source.load({"type": "sql", **words}).snapshot(tmp_path)


def test_a_digest_is_of_content_alone() -> None:
    def digest(batches: list[pa.RecordBatch]) -> str:
        whole = ContentDigest(batches[0].schema)
        for batch in batches:
            whole.add(batch)
        return whole.hexdigest()

    table = pa.table(
        {
            "n": [1, None, 3, 4],
            "x": [0.5, float("nan"), None, -0.0],
            "t": ["a", "", None, "ü"],
            "l": [[1, 2], [], None, [None]],
            "b": [True, None, False, True],
            "d": pa.array([1, 2, None, 4], pa.date32()),
        }
    )
    whole = digest(table.to_batches())
    assert digest(table.to_batches(max_chunksize=1)) == whole
    assert digest([b.slice(0) for b in table.slice(0, 4).to_batches(3)]) == whole
    for name, other in (("n", [1, None, 3, 5]), ("l", [[1], [2], None, [None]])):
        at = table.column_names.index(name)
        changed = table.set_column(at, name, pa.array(other, table.schema.field(at).type))
        assert digest(changed.to_batches()) != whole
