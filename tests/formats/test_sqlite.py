"""SQLite: one table of a database that is read, and never written, run or believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime

import pytest

from penstock.core.errors import SourceError
from penstock.formats.sqlite_rows import _allow

TABLE = 'CREATE TABLE a (id INTEGER PRIMARY KEY, "o""dd" TEXT, at TIMESTAMP, raw BLOB, n)'


def base(*statements: str) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        return connection.serialize()


def test_values_are_as_they_are_stored(read):
    row = "(1, '007', '2024-01-02 03:04:05', x'00ff', 2), (2, NULL, NULL, NULL, 2.5)"
    got = read(base(TABLE, f"INSERT INTO a VALUES {row}"), name="shop.db")
    assert got.records == [
        {
            "id": 1,
            'o"dd': "007",
            "at": datetime(2024, 1, 2, 3, 4, 5),
            "raw": b"\0\xff",
            "n": 2.0,
        },
        {"id": 2, 'o"dd': None, "at": None, "raw": None, "n": 2.5},
    ]


def test_one_of_several_tables_is_named(read):
    whole = base(TABLE, "CREATE TABLE b (x)", "INSERT INTO b VALUES (1), ('x'), (NULL)")
    with pytest.raises(SourceError, match=r"several tables: a, b\..*table: a"):
        read(whole, name="a.sqlite")
    got = read(whole, name="a.sqlite", format={"type": "sqlite", "table": "B"})
    assert got.records == [{"x": "1"}, {"x": "x"}, {"x": None}]
    with pytest.raises(SourceError, match=r"no table 'bb'.*Did you mean 'b'"):
        read(whole, name="a.sqlite", format={"type": "sqlite", "table": "bb"})
    with pytest.raises(SourceError, match="without tables"):
        read(base("CREATE VIEW v AS SELECT 1"), name="a.sqlite")


def test_rows_that_cannot_be_read_are_rejects(read):
    rows = "(1, CAST(x'ff41' AS TEXT), NULL, NULL, 1), (2, 'x', '2024-13-01', NULL, 1)"
    got = read(
        base(TABLE, f"INSERT INTO a VALUES {rows}, (3, 'y', NULL, NULL, 1)"), name="a.db"
    )
    assert got.rows == 1 and got.bad_lines == [1, 2]
    assert [r["column"] for r in got.rejects] == ['o"dd', "at"]


def test_damage_is_refused(read):
    rows = "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 500)"
    whole = base(
        TABLE, f"{rows} INSERT INTO a SELECT i, 'name '||i, NULL, NULL, i FROM t"
    )
    assert read(whole, name="a.db").rows == 500
    for damaged in (whole[:-4096], whole[:9000]):
        with pytest.raises(SourceError, match="damaged SQLite database"):
            read(damaged, name="a.db")
    with pytest.raises(SourceError, match="no SQLite database, or is encrypted"):
        read(b"x" * 4096, name="a.sqlite")


def test_changes_beside_the_file_are_not_passed_over(read, tmp_path):
    (tmp_path / "a.db-wal").write_bytes(b"changes")
    with pytest.raises(SourceError, match="holds changes that are not in the file"):
        read(base(TABLE), name="a.db")


def test_a_statement_may_only_read():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE a (x)")
        connection.set_authorizer(_allow)
        assert connection.execute("SELECT count(*) FROM a").fetchall() == [(0,)]
        for statement in (
            "INSERT INTO a VALUES (1)",
            "ATTACH 'other.db' AS other",
            "PRAGMA journal_mode = WAL",
            "SELECT load_extension('x')",
            "CREATE TABLE b (x)",
        ):
            with pytest.raises(sqlite3.DatabaseError):
                connection.execute(statement)
