"""JSON: a list of objects, alone or in an object, cut into rows while it streams by."""

from __future__ import annotations

import json
import tracemalloc

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats import Input, Reading, extract
from tests.formats.conftest import Read

ROWS = [{"a": i, "b": {"c": [1, 2]}, "t": 'x, "[{ \\'} for i in range(5)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "whole", [ROWS, {"meta": {"n": 5, "of": [1]}, "data": ROWS, "next": None}]
)
def test_a_list_is_read_as_its_lines_are(read, whole, indent):
    got = read(json.dumps(whole, indent=indent), name="a.json")
    lines = read("".join(f"{json.dumps(row)}\n" for row in ROWS), name="b.jsonl")
    assert (got.records, got.types) == (lines.records, lines.types) and not got.rejects
    assert ("elements of 'data'" in got.said) == isinstance(whole, dict)


def test_json_lines_are_read_as_before(read):
    assert read('{"a": 1}\n{"a": [{"b": 2}]}\n', name="a.json").rows == 2
    got = read('{"a": 1\n{"a": 2}\n', name="a.json")
    assert (got.rows, got.bad_lines) == (1, [1])
    assert read('{"a": 1}', name="a.json").records == [{"a": 1}]


def test_of_several_lists_one_is_named(read):
    text = json.dumps({"users": ROWS[:2], "rows": ROWS})
    with pytest.raises(
        SourceError, match=r"several lists.*'users', 'rows'.*records: users"
    ):
        read(text, name="a.json")
    assert read(text, name="a.json", format={"type": "json", "records": "rows"}).rows == 5
    with pytest.raises(SourceError, match=r"called 'row'\. Did you mean 'rows'"):
        read(text, name="a.json", format={"type": "json", "records": "row"})
    with pytest.raises(SourceError, match="is a list itself"):
        read("[]", name="a.json", format={"type": "json", "records": "row"})


def test_one_object_is_a_row_where_its_fields_were_learnt(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"who": "x", "orders": [{"price": 1}, {"price": 2}]}')
    for known, rows in ((frozenset({"who", "orders.price"}), 1), (None, 2)):
        input = Input("a.json", str(file), Reading(), file.stat().st_size, known=known)
        made = extract([input], tmp_path / "s", memory_bytes=1 << 28, events=Events())
        assert made.rows == rows


def test_a_damaged_element_is_a_reject_with_its_number_and_place(read):
    text = json.dumps(ROWS, indent=1).replace('"a": 3', '"a": 03')
    got = read(text[:-2] + ',\n5,\n{"a": 1, "a": 2},\n]', name="a.json")
    assert got.rows == 4 and got.bad_lines == [4, 6, 7]
    assert [r["reason"].split(" (")[0].split(":")[0] for r in got.rejects] == [
        "not JSON at character 11",
        "expected one JSON object, found a number",
        "the key 'a' is there twice",
    ]
    assert "(line 32 of the file)" in got.rejects[0]["reason"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": 2}', "element 2, from line 1 on, is where the file ends"),
        ('[{"a": 1},\n{"a": "x}]', "element 2, from line 1 on, is where the file ends"),
        ('[{"a": 1},, {"a": 2}]', "element 2, .* nothing stands before its comma"),
        ('[{"a": 1} {"a": 2}]', "element 1, .* a comma is missing"),
        ('[{"a": 1}]\n[{"a": 2}]', "ends on line 1, after 1 elements, and more follows"),
        ('[{"a": 1}}, {"a": 2}]', "closes no object"),
        ("[]", "no rows"),
    ],
)
def test_a_damaged_structure_is_refused_with_its_place(read, text, said):
    with pytest.raises(SourceError, match=said):
        read(text, name="a.json")


values = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    ),
    max_leaves=5,
)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("xyz"), values, min_size=1), min_size=1
    ),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([1, 2, 7, 64]),
)
def test_wherever_blocks_end_elements_are_the_same(monkeypatch, rows, indent, block):
    from penstock.formats.jsonlist import ListStream

    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode()

    class Text:
        def __init__(self) -> None:
            self.place = 0

        def read(self, size: int) -> bytes:
            piece = text[self.place : self.place + min(size, block)]
            self.place += len(piece)
            return piece

    given = [
        json.loads(element)
        for some in ListStream("a", Text(), None).blocks(64)
        for element in some.texts
    ]
    assert given == rows


def test_a_list_is_held_in_blocks(tmp_path):
    file = tmp_path / "a.json"
    row = json.dumps({"n": 1, "t": "x" * 1000})
    with open(file, "w") as out:
        out.write("[" + ",".join([row] * 30_000) + "]")
    input = Input("a.json", str(file), Reading(), file.stat().st_size)
    tracemalloc.start()
    made = extract([input], tmp_path / "s", memory_bytes=64 << 20, events=Events())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.rows == 30_000 and peak < file.stat().st_size / 2


def test_a_bucket_and_an_encoding(tmp_path):
    system = fsspec.filesystem("memory")
    system.pipe("/jsons/a.json", json.dumps(ROWS, ensure_ascii=False).encode("utf-16"))
    reading = Reading.model_validate({"encoding": "utf-16"})
    input = Input("a.json", "memory://jsons/a.json", reading)
    made = extract([input], tmp_path, memory_bytes=1 << 28, events=Events())
    assert made.rows == 5


@pytest.mark.parametrize("name", ["a.json", "a.bin"])
def test_the_format_is_declared_as_one_word(read, name):
    got: Read = read(json.dumps(ROWS), name=name)
    assert got.rows == 5
    assert Reading.model_validate({"format": "json"}).to_dict()["format"] == "json"
