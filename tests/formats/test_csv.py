"""CSV: every row read right, or rejected with its line, reason and text; whatever the block size."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats import Input, Reading, csv_head, delimited
from penstock.formats.dialect import Careful, Dialect, plain_cut
from penstock.formats.reader import LINE, Context
from penstock.formats.rejects import Rejects
from tests.formats.conftest import Read


def test_types_come_from_all_the_data(read):
    got = read(
        "i,f,b,t,z,zip,plus,big,mixed,empty,late\n"
        + "1,1.5,true,2024-01-02 03:04:05,2024-01-02T03:04:05+01:00,01234,+5,9223372036854775807,1,,1\n"
        * 3
        + "-7,2e3,FALSE,2024-02-29,2024-02-29T00:00Z,99999,7,-9223372036854775808,x,,1\n"
        + ",,,,,,,,,,1.5\n"
    )
    assert got.types == {
        "i": "int64",
        "f": "double",
        "b": "bool",
        "t": "timestamp[us]",
        "z": "timestamp[us, tz=UTC]",
        "zip": "string",
        "plus": "string",
        "big": "int64",
        "mixed": "string",
        "empty": "string",
        "late": "double",
    }
    assert got.records[0]["big"] == 2**63 - 1 and got.records[3]["big"] == -(2**63)
    assert got.records[0]["z"].hour == 2 and got.records[4]["i"] is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["9223372036854775808", "1"], "string"),
        (["9007199254740993", "1.5"], "string"),
        (["1.5", "9007199254740993"], "string"),
        (["9007199254740992", "1.5"], "double"),
        (["0", "1"], "int64"),
        (["-0", "1"], "double"),
        (["00", "1"], "string"),
        (["0.5", ".5", "5."], "double"),
        (["01.5", "2"], "string"),
        (["0x1F", "2"], "string"),
        (["1e400", "2"], "string"),
        (["NaN", "1.0"], "double"),
        (["-inf", "1"], "double"),
        (["nan(1)", "1.0"], "string"),
        (["yes", "no"], "string"),
        (["2024-02-30", "2024-01-01"], "string"),
        (["2024-01-01", "2024-01-01T00:00Z"], "string"),
        (["1_000", "2"], "string"),
        (["20240101", "2"], "int64"),
        (["1,5", "2,5"], "string"),
        (["٣", "1"], "string"),
        (["true", "1"], "string"),
    ],
)
def test_narrowest_type(read, values, kind):
    assert (
        read("v;w\n" + "".join(f"{v};x\n" for v in values), delimiter=";").types["v"]
        == kind
    )


def test_ragged_stray_and_undecodable_rows_are_rejected_alone(read):
    got = read(
        b'id,name,v\n1,"a, b",1\n2,short\n3,x,1,extra\n\n4,"open,1\n5,"mid"dle,1\n6,12"'
        b' pipe,1\n7,caf\xe9,1\n8,"two\nlines ""quoted""",1\n9,last,1'
    )
    assert [r["id"] for r in got.records] == [1, 6, 8, 9]
    assert [r["name"] for r in got.records] == [
        "a, b",
        '12" pipe',
        'two\nlines "quoted"',
        "last",
    ]
    assert got.bad_lines == [3, 4, 6, 7, 9]
    assert [r["row"] for r in got.rejects] == [
        "2,short",
        "3,x,1,extra",
        '4,"open,1',
        '5,"mid"dle,1',
        "7,caf\\xe9,1",
    ]
    assert (
        "expected 3 cells, found 2" in got.rejects[0]["reason"]
        and "0xe9" in got.rejects[4]["reason"]
    )
    assert {(r["file"], r["stage"]) for r in got.rejects} == {("a.csv", "read")}


def test_a_quote_never_closed_costs_one_row(read):
    got = read("a,b\n" + '1,"open\n' + "".join(f"{i},x\n" for i in range(2, 3000)))
    assert (
        got.rows == 2998
        and got.bad_lines == [2]
        and "never closed" in got.rejects[0]["reason"]
    )


def test_crlf_bom_and_last_line_without_end(read):
    got = read(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n\r\n2,z')
    assert got.records == [{"a": 1, "b": "x\r\ny"}, {"a": 2, "b": "z"}]


def test_adult_like_options(read):
    got = read(
        "|1x3 Cross validator\n25, ?, <=50K.\n\n38, Private, >50K.\n",
        name="a.test",
        skip_rows=1,
        names=["age", "work", "income"],
        na="?",
        trim_end={"income": "."},
    )
    assert got.records == [
        {"age": 25, "work": None, "income": "<=50K"},
        {"age": 38, "work": "Private", "income": ">50K"},
    ]


def test_header_is_judged_aloud(read):
    assert "no header" in read("1,x\n2,y\n").said
    assert read("1,x\n2,y\n").types == {"column_1": "int64", "column_2": "string"}
    assert "header: false" in read("name\nann\nbob\n").said
    assert read("a,b\n1,x\n", header=False).rows == 2
    got = read("a,b\n1,x\n", names=["p", "q"])
    assert got.rows == 2
    assert read("a,b\n1,x\n", names=["p", "q"], header=True).records == [
        {"p": 1, "q": "x"}
    ]
    assert read("P,q\n1,x\n", names=["p", "q"]).rows == 1


def test_header_names_are_made_usable_aloud(read):
    got = read("a,,a,A,__row\n1,2,3,4,5\n")
    assert list(got.types) == ["a", "column_2", "a_2", "A_3", "__row_2"]
    assert "more than one column called 'a'" in got.said and "without a name" in got.said


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(read, delimiter):
    got = read("a,b,c\n1,x y,2\n3,z,4\n".replace(",", delimiter))
    assert got.records == [{"a": 1, "b": "x y", "c": 2}, {"a": 3, "b": "z", "c": 4}]


def test_literal_quotes_comments_and_escapes(read):
    assert read(
        'say "hi"\t1\n"no end\t2\n', name="a.tsv", quote=None, header=False
    ).records == [
        {"column_1": 'say "hi"', "column_2": 1},
        {"column_1": '"no end', "column_2": 2},
    ]
    assert read("a,b\n# no\n1,x\n", comment="#").records == [{"a": 1, "b": "x"}]
    assert read('a,b\n1,"x \\" y"\n2,p\\,q\n', escape="\\").records == [
        {"a": 1, "b": 'x " y'},
        {"a": 2, "b": "p,q"},
    ]


def test_encodings(read):
    text = "n,v\nJosé,1\nZoë,2\n"
    assert read(text.encode("cp1252"), encoding="cp1252").records[0]["n"] == "José"
    assert read(text.encode("utf-16"), encoding="utf-16").records[1]["n"] == "Zoë"
    assert read(text.encode("utf-16"), encoding="auto").records[1]["n"] == "Zoë"
    got = read(text.encode("latin-1"), encoding="auto")
    assert got.records[1]["n"] == "Zoë" and "Latin-1" in got.said
    got = read(b"n,v\nok,1\nb\x81d,2\n", encoding="cp1252")
    assert got.rows == 1 and got.bad_lines == [3]
    with pytest.raises(SourceError, match="encoding: utf-16"):
        read(text.encode("utf-16"))


def test_compressed_and_damaged(read):
    packed = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    assert read(packed, name="a.csv.gz").rows == 2
    zstd = pa.compress(b"a,b\n1,2\n", "zstd", asbytes=True)
    assert read(zstd, name="a.csv.zst").rows == 1
    long = gzip.compress(
        "".join(f"{i},{i * 7919 % 10007}\n" for i in range(50_000)).encode()
    )
    with pytest.raises(SourceError, match="damaged"):
        read(long[:-1000], name="a.csv.gz")


def test_forced_types_reject_what_does_not_fit(read):
    got = read(
        "id,n,w\n007,1,yes\n8.0,x,no\n9,2.5,maybe\n",
        types={"id": "integer", "n": "number", "w": "boolean"},
    )
    assert got.records == [{"id": 7, "n": 1.0, "w": True}]
    assert [(r["line"], r["column"]) for r in got.rejects] == [(3, "n"), (4, "w")]
    assert (
        got.rejects[0]["reason"] == "expected a number; found 'x'"
        and '"n": "x"' in got.rejects[0]["row"]
    )
    assert read(
        "id,n\n1,2024-01-01T02:00+02:00\n2,2024-01-01\n",
        types={"n": "timestamp", "id": "text"},
    ).records[0] == {"id": "1", "n": __import__("datetime").datetime(2024, 1, 1)}


def test_projection_and_renaming(read):
    got = read("a,b,c\n1,2,3\n", rename={"a": "x"}, columns=["c", "x"])
    assert got.records == [{"c": 3, "x": 1}] and list(got.types) == ["c", "x"]
    for words, said in (
        ({"rename": {"aa": "x"}}, "no column 'aa'. Did you mean 'a'"),
        ({"columns": ["zz"]}, "no column 'zz'"),
        ({"types": {"q": "text"}}, "no column 'q'"),
        ({"trim_end": {"q": "."}}, "no column 'q'"),
    ):
        with pytest.raises(SourceError, match=re.escape(said)):
            read("a,b,c\n1,2,3\n", **words)


def test_files_with_other_headers_are_united(tmp_path):
    one, two = tmp_path / "1.csv", tmp_path / "2.csv"
    one.write_text("a,b\n1,x\n")
    two.write_text("C,A\n7,2.5\n")
    got = Read(tmp_path, one, two)
    assert got.records == [{"a": 1.0, "b": "x", "C": None}, {"a": 2.5, "b": None, "C": 7}]
    assert got.table["__file"].to_pylist() == [0, 1] and got.table[
        "__row"
    ].to_pylist() == [0, 0]
    assert "Both are read as one column" in got.said


@pytest.mark.parametrize(
    ("content", "reading", "said"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "is empty"),
        (b"a,b\n", {}, "no rows"),
        (
            b"a,b\n1,2\n",
            {"on_bad_row": "fail", "names": ["a", "b", "c"], "header": False},
            "line 1: expected 3 cells, found 2",
        ),
        ("a,b\n1,2\n".encode("utf-16-le"), {}, "zero bytes"),
        (b"1\n", {"skip_rows": 5}, "fewer lines"),
        (b"a,b\r1,2\r", {}, "old Macs"),
        (b"1,2\n" * 9, {"names": ["a"]}, "2 cells a row"),
    ],
)
def test_files_that_cannot_be_read_say_why(read, content, reading, said):
    with pytest.raises(SourceError, match=said):
        read(content, **reading)


def test_all_rows_bad_is_said(read):
    got = read("a,b\n1\n2\n", header=True)
    assert got.rows == 0 and got.rejected == 2 and "none of the 2 rows" in got.said


# -- properties ----------------------------------------------------------------------------------------------

cells = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=12),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_csv_writes_is_read_back(tmp_path, rows, quoting, end):
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=quoting, lineterminator=end)
    writer.writerows([("x", "y", "z"), *rows])
    file = tmp_path / "p.csv"
    file.write_bytes(buffer.getvalue().encode())
    got = Read(
        tmp_path,
        file,
        reading={
            "header": True,
            "delimiter": ",",
            "strip": False,
            "types": dict.fromkeys("xyz", "text"),
        },
    )
    assert got.rejected == 0
    assert [tuple(r.values()) for r in got.records] == [
        tuple(c or None for c in row) for row in rows
    ]


soup = st.lists(
    st.sampled_from(
        [
            b"a",
            b"1",
            b",",
            b",",
            b'"',
            b'"',
            b"\n",
            b"\n",
            b"\r\n",
            b"\r",
            b" ",
            b"\xe9",
            "é".encode(),
            b'","',
            b'"x"',
            b"#",
        ]
    ),
    max_size=60,
).map(b"".join)


def _by_blocks(
    folder: Path, content: bytes, size: int, reading: dict
) -> tuple[list, list]:
    file = folder / "soup.csv"
    file.write_bytes(content)
    (folder / "r.parquet").unlink(missing_ok=True)
    rejects = Rejects(folder / "r.parquet")
    context = Context(folder, rejects, Events(), size, 2)
    reader = delimited.Delimited(
        Input("soup.csv", str(file), Reading.model_validate(reading)),
        context,
    )
    reader.scan()
    rows = [tuple(r.values()) for b in reader.batches({}) for r in b.to_pylist()]
    reader.close()
    context.spool.close()
    bad = [
        r
        for p in rejects.close()
        for r in pq.read_table(p).select(["line", "reason", "row"]).to_pylist()
    ]
    return rows, bad


@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(soup, st.sampled_from([1, 7, 1 << 16]), st.booleans(), st.booleans())
def test_fast_and_careful_agree_in_blocks_of_any_size(
    tmp_path, monkeypatch, content, size, strip, comment
):
    words = {
        "names": ["p", "q"],
        "header": False,
        "delimiter": ",",
        "strip": strip,
        **({"comment": "#"} if comment else {}),
    }
    d = Dialect(strip=strip, comment=b"#" if comment else None)
    expected_rows, expected_bad = [], []
    for record in Careful(d).records(content, 1, final=True, width=2):
        texts = [c.decode().strip() if strip else c.decode() for c in record.cells]
        if len(texts) == 2:
            expected_rows.append((*(t or None for t in texts), record.line))
        else:
            expected_bad.append(record.line)
    monkeypatch.setattr(csv_head, "HEAD_BYTES", 1)
    rows, bad = _by_blocks(tmp_path, b"a,b\n" + content, size, words)
    assert rows == [("a", "b", 1), *((*r[:2], r[2] + 1) for r in expected_rows)]
    assert [b["line"] for b in bad] == [n + 1 for n in expected_bad]
    lines = content.split(b"\n")
    for b in bad:  # nothing is lost: each reject keeps its text
        assert (
            b["row"]
            .encode()
            .startswith(
                lines[b["line"] - 2]
                .removesuffix(b"\r")
                .decode("utf-8", "backslashreplace")
                .encode()[:3]
            )
        )


@settings(deadline=None, max_examples=300)
@given(soup)
def test_plain_cut_ends_at_a_record(content):
    cut = plain_cut(content, Dialect(), final=False)
    if cut:
        careful = Careful(Dialect())
        whole = [
            (r.line, r.raw, r.cells)
            for r in careful.records(content, 1, final=False)
            if r.line <= content[:cut].count(b"\n")
        ]
        assert whole == [
            (r.line, r.raw, r.cells)
            for r in Careful(Dialect()).records(content[:cut], 1, final=True)
        ]
        assert LINE not in content[:cut].decode("latin-1")
