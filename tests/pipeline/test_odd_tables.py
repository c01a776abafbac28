"""Odd little tables at the door: each gets a recipe or a sentence that helps, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli import main


def rows(header: str, count: int, row: Callable[[int], str]) -> str:
    return "\n".join([header, *(row(i) for i in range(count))]) + "\n"


TABLES: dict[str, str | bytes] = {
    "nothing": "",
    "a line break": "\n",
    "header only": "a,b,label\n",
    "one cell": "a\n",
    "one row": "a,b,label\n1,2,x\n",
    "two rows": "a,b,label\n1,2,x\n3,4,y\n",
    "three rows without header": "1,2,3\n4,5,6\n7,8,9\n",
    "one column of numbers": rows("v", 60, lambda i: str(i * i % 17)),
    "one column of one value": rows("v", 60, lambda i: "same"),
    "all missing": rows("a,b,label", 40, lambda i: ",,"),
    "all marked missing": rows("a,b,label", 40, lambda i: "NA,?,null"),
    "a column missing": rows("a,b,label", 40, lambda i: f",{i % 7},{i % 2}"),
    "the target missing": rows("a,b,label", 40, lambda i: f"{i % 5},{i % 7},"),
    "the target constant": rows("a,label", 40, lambda i: f"{i % 5},yes"),
    "the target all different": rows("a,label", 40, lambda i: f"{i % 5},n{i}x"),
    "the same name twice": rows("a,a,label", 40, lambda i: f"{i},{i % 3},{i % 2}"),
    "names that differ in case": rows("A,a,label", 40, lambda i: f"{i},{i % 3},{i % 2}"),
    "no names at all": rows(",,", 40, lambda i: f"{i % 9},{i % 3},{i % 2}"),
    "names of spaces": rows(" ,  ,label", 40, lambda i: f"{i % 9},{i % 3},{i % 2}"),
    "a name of 10,000 letters": rows(
        "n" * 10_000 + ",label", 40, lambda i: f"{i % 9},{i % 2}"
    ),
    "names of pictures": rows("🍎,🍐,🎯", 40, lambda i: f"{i % 9},{i % 3},{i % 2}"),
    "names of SQL": rows(
        'select,"x""; drop table t; --",label', 40, lambda i: f"{i % 9},{i % 3},{i % 2}"
    ),
    "names of YAML": rows(
        '"{a: b}",- c,on,label', 40, lambda i: f"{i % 9},{i % 3},{i % 4},{i % 2}"
    ),
    "names like Penstock's": rows(
        "__row,__file,label", 40, lambda i: f"{i % 9},{i % 3},{i % 2}"
    ),
    "only dates": rows(
        "start,end", 40, lambda i: f"2024-01-{i % 28 + 1:02d},2024-02-{i % 28 + 1:02d}"
    ),
    "only identifiers": rows("id,uuid", 40, lambda i: f"{i},{i:032x}"),
    "huge numbers": rows("a,label", 40, lambda i: f"{i}e307,{i % 2}"),
    "not numbers": rows("a,label", 40, lambda i: f"{('nan', 'inf')[i % 2]},{i % 2}"),
    "a value of 100,000 letters": rows(
        "a,label", 40, lambda i: f"{'x' * (100_000 if i == 7 else 5)},{i % 2}"
    ),
    "breaks within cells": rows("a,label", 40, lambda i: f'"line {i}\nnext",{i % 2}'),
    "bytes of zero": b"a,label\n" + b"\0,1\n" * 40,
    "bytes that are no text": b"a,label\n" + bytes(range(128, 200)) + b",1\n",
    "a quote that does not close": rows("a,label", 40, lambda i: f'"{i},{i % 2}'),
    "one name more than cells": rows("a,b,label", 40, lambda i: f"{i % 9},{i % 2}"),
    "one name fewer than cells": rows("b,label", 40, lambda i: f"{i},{i % 9},{i % 2}"),
    "rows of all lengths": rows("a,b,label", 40, lambda i: ",".join("12345"[: i % 5])),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_table_is_met_with_a_traceback(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    table = TABLES[name]
    data = table.encode() if isinstance(table, str) else table
    Path("t.csv").write_bytes(data)
    code = main(["init", "t.csv", "-o", "t.yaml"])
    told = capsys.readouterr()
    assert code in (0, 2), told.err
    assert "defect of Penstock" not in told.err and "Traceback" not in told.err
    if code == 2:
        # A sentence: what it is, where, and what can be done.
        assert told.err.startswith("penstock: ") and len(told.err.split()) > 4
        assert not Path("t.yaml").exists()
        return
    assert "next " in told.out
    # What is proposed is checked without a traceback, too.
    assert main(["check", "t.yaml"]) in (0, 2)
    assert "defect of Penstock" not in capsys.readouterr().err
