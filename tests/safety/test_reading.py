"""JSON of requests: the same values as Python's reader, window by window; and what is refused, at what
cost.
"""

from __future__ import annotations

import json
import random

import pytest

from penstock.serve import reading
from penstock.serve.reading import Malformed, TooLarge, read_json


def value(chance: random.Random, depth: int = 0):
    if depth > 4 or chance.random() < 0.3:
        return chance.choice(
            [
                1,
                -2.5,
                1e300,
                "a,]",
                'q"\\',
                "é😀",
                None,
                True,
                10**30,
                "x" * chance.randrange(50),
                "",
                "\\ud800",
            ]
        )
    if chance.random() < 0.5:
        return [value(chance, depth + 1) for _ in range(chance.randrange(6))]
    return {f"k{i}": value(chance, depth + 1) for i in range(chance.randrange(5))}


def outcome(read, body: bytes):
    try:
        return read(body)
    except Malformed:
        return Malformed


@pytest.fixture
def small_windows(monkeypatch):
    """Windows so small that every value crosses some."""
    monkeypatch.setattr(reading, "WINDOW", 48)
    monkeypatch.setattr(reading, "_TEXT_WORTH_A_RUN", 4)


def test_windows_change_no_value(small_windows):
    chance = random.Random(1)
    for _ in range(800):
        true = [value(chance) for _ in range(3)]
        body = json.dumps(
            true, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1])
        ).encode()
        assert read_json(body) == true
        assert read_json(body, rows=3, key="records") == true
        both = ("records", "instances")
        assert read_json(b'{"instances": ' + body + b"}", rows=3, key=both) == {
            "instances": true
        }
        assert read_json(b'{"records": ' + body + b"}", rows=3, key="records") == {
            "records": true
        }


def test_windows_refuse_what_one_reader_refuses(small_windows):
    chance = random.Random(2)
    bad = 0
    for _ in range(1_500):
        body = bytearray(json.dumps([value(chance) for _ in range(3)]).encode())
        for _ in range(chance.choice([1, 1, 2])):
            body[chance.randrange(len(body))] = chance.choice(b'[]{},:"\\ 0e-')
        expected = outcome(
            lambda body: reading._whole(body.decode()) if _plain(body) else Malformed,
            bytes(body),
        )
        assert outcome(read_json, bytes(body)) == expected, bytes(body)
        bad += expected is Malformed
    assert 300 < bad < 1_400


def _plain(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"{,}",
        b'{"a"}',
        b'{"a":}',
        b"[1]]",
        b"nul",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'["\\udc00\\ud800"]',
        b'{"a": 1, "b": {"c": 1, "c": 1}}',
        b"[" + b"9" * 4301 + b"]",
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 2_000,
        b"-",
        b"1e",
        b'"',
        b"\x00",
        b"\xef\xbb\xbf[]",
    ],
)
@pytest.mark.parametrize("pad", [b"", b" " * 70_000])
def test_what_is_no_json(body, pad):
    with pytest.raises(Malformed) as caught:
        read_json(pad + body)
    assert 10 < len(caught.value.message) < 300


@pytest.mark.parametrize("pad", [b"", b" " * 70_000])
def test_what_is_json(pad):
    for text in (
        "[]",
        "{}",
        "1e5",
        '"\\ud83d\\ude00"',
        '"\\\\ud800"',
        "[" * 64 + "]" * 64,
        '["' + "[" * 200 + '"]',
        "1e999",
        "-Infinity",
        "[" + "9" * 4300 + "]",
    ):
        assert read_json(pad + text.encode()) == json.loads(text)
    assert read_json(pad + b"NaN") != read_json(b"NaN")


def test_rows_are_counted_while_they_are_read():
    for body in (b"[%s]", b'{"a": 1, "records": [%s]}'):
        for rows in (100, 50_000):
            whole = body % b",".join([b"{}"] * rows)
            read_json(whole, rows=rows, key="records", most=2**30)
            with pytest.raises(TooLarge, match=f"at most {rows - 1} are taken"):
                read_json(whole, rows=rows - 1, key="records", most=2**30)
    read_json(b'{"a": [1, 2, 3]}', rows=2, key="records")


@pytest.mark.parametrize(
    "piece", [b"{}", b"[]", b'""', b"0", b"[0]", b'{"a":0}', b"0,[]", b'"a",{}']
)
def test_values_are_weighed_before_there_are_too_many(piece):
    body = b'{"a": [' + b",".join([piece] * 100_000) + b"]}"
    read_json(body, most=2**30)
    with pytest.raises(TooLarge, match="take more than 1 MiB"):
        read_json(body, most=2**20)
