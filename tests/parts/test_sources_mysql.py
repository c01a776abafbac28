"""Rows of a real MariaDB, by the laws and by what their values mean."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli import main
from penstock.contracts.data import Source
from penstock.core.errors import PenstockError, SourceError
from penstock.core.events import Events
from penstock.recipe.schema import load_recipe
from penstock.testing.laws.sources import check_source
from tests.servers import PASSWORD, Server, mariadb_server

driver = pytest.importorskip("pymysql")

TABLES = """
CREATE TABLE typed (
  id int PRIMARY KEY, tiny tinyint(1), big bigint, huge bigint unsigned, price decimal(10, 2),
  longer decimal(20, 0), whole decimal(9, 0), half float, twice double, at timestamp NULL, naive datetime(6),
  day date, clock time, born year, doc json, raw varbinary(9), notes text, feeling enum('glad', 'sad'),
  some set('a', 'b'), flag bit(1)) CHARACTER SET latin1;
INSERT INTO typed VALUES
  (1, 1, 9007199254740993, 18446744073709551615, 7.10, 12345678901234567890, 5, 0.1, 0.1,
   '2024-03-01 12:00:00', '2024-03-01 12:00:00.25', '2024-03-01', '10:30:00', 1999, '{"a": 1}', x'00ff',
   'Käse', 'sad', 'a,b', b'1');
INSERT INTO typed (id) VALUES (2);
CREATE TABLE odd (id int PRIMARY KEY, spot point, fine text);
INSERT INTO odd VALUES (1, POINT(1, 2), 'yes');
CREATE TABLE people (id int PRIMARY KEY, name varchar(20), age int, bought varchar(3)) CHARACTER SET utf8mb4;
INSERT INTO people SELECT seq, concat(if(seq % 2, 'a', 'B'), lpad(seq, 4, '0')), 20 + seq * 7 % 50,
  if(seq * 7 % 50 > 24, 'yes', 'no') FROM seq_1_to_900;
CREATE TABLE keyless AS SELECT 1 AS a, 2 AS b UNION ALL SELECT 1, 2;
CREATE TABLE zero (id int PRIMARY KEY, day date);
SET sql_mode = '';
INSERT INTO zero VALUES (1, '0000-00-00');
CREATE USER reader@'%' IDENTIFIED BY 'reads-only-1234';
GRANT SELECT ON shop.people TO reader@'%';
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with mariadb_server() as running:
        connection = driver.connect(
            host="127.0.0.1",
            port=running.port,
            user="admin",
            password=PASSWORD,
            database="shop",
            autocommit=True,
            init_command="SET time_zone = '+02:00'",
        )
        with connection, connection.cursor() as cursor:
            for statement in filter(str.strip, TABLES.split(";\n")):
                cursor.execute(statement)
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


def source(server: Server, **words: Any) -> Source:
    url = server.url("shop", "mysql")
    return Source.load({"type": "sql", "url": url, **words})


def rows_of(source: Source, folder: Path) -> list[dict[str, Any]]:
    made = source.extract(
        source.snapshot(folder), folder / "x", memory_bytes=1 << 30, events=Events()
    )
    rows = pa.concat_tables([pq.read_table(path) for path in made.parquet])
    plain: list[dict[str, Any]] = rows.drop_columns(["__file", "__row"]).to_pylist()
    return plain


@pytest.mark.parametrize(
    "words",
    [
        {"table": "people"},
        {"query": "SELECT id, age FROM people WHERE age > 30", "order_by": "id"},
        {"table": "typed"},
    ],
    ids=["table", "query", "types"],
)
def test_the_laws_hold(server: Server, tmp_path: Path, words: dict[str, Any]) -> None:
    check_source(source(server, **words), tmp_path)


def test_values_mean_what_they_mean_in_files(server: Server, tmp_path: Path) -> None:
    first, second = rows_of(source(server, table="typed"), tmp_path)
    assert first == {
        "id": 1,
        "tiny": 1,
        "big": 9007199254740993,
        # As of a file: no whole number of 64 bits with a sign.
        "huge": "18446744073709551615",
        "price": 7.1,
        "longer": "12345678901234567890",
        "whole": 5,
        # The nearest single to a tenth, not the six digits that the server prints.
        "half": pytest.approx(0.10000000149011612, abs=0),
        "twice": 0.1,
        "at": dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC),
        "naive": dt.datetime(2024, 3, 1, 12, 0, 0, 250_000),
        "day": dt.datetime(2024, 3, 1),
        "clock": "10:30:00",
        "born": 1999,
        "doc": '{"a": 1}',
        "raw": b"\x00\xff",
        "notes": "Käse",
        "feeling": "sad",
        "some": "a,b",
        "flag": 1,
    }
    assert {name for name, value in second.items() if value is not None} == {"id"}


def test_texts_are_ordered_by_their_bytes(server: Server, tmp_path: Path) -> None:
    rows = rows_of(source(server, table="people", order_by="name"), tmp_path)
    names = [row["name"] for row in rows]
    assert names == sorted(names, key=str.encode) and len(names) == 900


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ({"table": "peoples"}, "Did you mean 'people'?"),
        ({"table": "keyless"}, "keyless has no primary key"),
        ({"table": "odd"}, "ST_AsText"),
        ({"table": "zero"}, "NULLIF(`day`, 0)"),
        (
            {"query": "SELECT a, b FROM keyless", "order_by": "a"},
            "does not tell all rows",
        ),
        ({"query": "SELECT nothing FROM people", "order_by": "nothing"}, "nothing"),
        (
            {"query": "SELECT id, age AS id FROM people", "order_by": "id"},
            "more than one",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    server: Server, tmp_path: Path, words: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(SourceError) as error:
        source(server, **words).snapshot(tmp_path)
    assert fragment in error.value.message


@pytest.mark.parametrize(
    ("user", "url", "fragment"),
    [
        ("admin:wrong-4712", "{}/shop", "Check the user in the URL, and MYSQL_PWD"),
        ("admin", "{}/nowhere", "has no database 'nowhere'"),
        ("admin", "127.0.0.1:1/shop", "no database answers at 127.0.0.1:1"),
        ("admin", "{}/shop?ssl_ca=none.pem", "which ssl_ca names"),
        ("admin", "{}/shop?sll=1", "Known: ssl_ca, unix_socket"),
        ("reader:reads-only-1234", "{}/shop", "has no table 'typed'"),
    ],
)
def test_a_server_that_is_not_reached_or_refuses(
    server: Server, tmp_path: Path, user: str, url: str, fragment: str
) -> None:
    address = f"mysql://{user}@{url.format(f'127.0.0.1:{server.port}')}"
    with pytest.raises(SourceError) as error:
        Source.load({"type": "sql", "url": address, "table": "typed"}).snapshot(tmp_path)
    assert fragment in error.value.message
    assert "4712" not in error.value.message and PASSWORD not in error.value.message


@pytest.mark.parametrize(
    "query",
    [
        "SELECT load_file('/etc/passwd') AS id",
        "SELECT sleep(5) AS id",
        "DELETE FROM people",
        "SELECT 1 AS id INTO OUTFILE '/tmp/x'",
        "SELECT id FROM people; DROP TABLE people",
    ],
)
def test_a_query_only_reads(server: Server, query: str) -> None:
    words = {"type": "sql", "url": server.url("shop", "mysql"), "query": query}
    with pytest.raises(PenstockError):
        load_recipe({"source": {**words, "order_by": "id"}})


def test_a_partition_is_refused(server: Server) -> None:
    words = {"type": "sql", "url": server.url("shop", "mysql"), "table": "people"}
    with pytest.raises(PenstockError, match="no state that several connections"):
        load_recipe({"source": {**words, "partition": {"column": "id", "parts": 2}}})


def test_from_init_to_a_dataset(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"{server.url('shop', 'mariadb')}#people"
    assert main(["init", url, "--target", "bought", "-o", "recipe.yaml"]) == 0
    assert main(["prepare", "recipe.yaml", "--store", "store"]) == 0
    shown = capsys.readouterr()
    assert "900 rows in" in shown.err + shown.out
    assert all(
        PASSWORD.encode() not in path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
