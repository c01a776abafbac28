"""Patterns over paths, names that must be refused, and bytes as text."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.formats.path_pattern import (
    ParentFolder,
    Pattern,
    check_encoding,
    decoded,
    hidden,
    is_text,
    safe,
)

STEP = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6
).filter(lambda s: s not in (".", ".."))
PATH = st.lists(STEP, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("pattern", "path", "told"),
    [
        (
            "cifar10/{split}/{label}/{name}.jpg",
            "cifar10/train/cat/0001.jpg",
            {"split": "train", "label": "cat", "name": "0001"},
        ),
        ("{label}/*.txt", "spam/a b.txt", {"label": "spam"}),
        ("{label}/*.txt", "spam/deep/a.txt", None),
        ("{label}/*.txt", "spam/a.TXT", None),
        ("**/*.png", "a.png", {}),
        ("**/*.png", "x/y/a.png", {}),
        ("**", "x/y", {}),
        ("{label}/**", "x/y/z", {"label": "x"}),
        ("{label}/**/{name}.jpg", "x/1.jpg", {"label": "x", "name": "1"}),
        ("{who}_{n}.wav", "ann_lee_3.wav", {"who": "ann_lee", "n": "3"}),
        ("{a}/{a}.txt", "x/x.txt", {"a": "x"}),
        ("{a}/{a}.txt", "x/y.txt", None),
        ("img?.jp*g", "img1.jpeg", {}),
        ("[ab][!0-9].txt", "bc.txt", {}),
        ("[ab][!0-9].txt", "b5.txt", None),
        ("[!x]", "/", None),
        ("a.(b)+", "a.(b)+", {}),
        ("{bokstav}/æ.txt", "ø/æ.txt", {"bokstav": "ø"}),
    ],
)
def test_what_a_path_tells(pattern, path, told):
    assert Pattern(pattern).match(path) == told


@pytest.mark.parametrize(
    ("pattern", "ending"),
    [
        ("**/*.JPG", ".jpg"),
        ("{name}.tar.gz", ".gz"),
        ("*", ""),
        ("{a}.{b}", ""),
        ("a/readme.txt", ".txt"),
        ("a.b/{x}", ""),
        ("*.[jp]*", ""),
    ],
)
def test_the_ending_that_is_sure(pattern, ending):
    assert Pattern(pattern).ending == ending


@pytest.mark.parametrize(
    "wrong", ["", "/a", "a/", "a//b", "../*", "./a", "a**/b", "{a b}", "{}", "{1}/x"]
)
def test_patterns_that_do_not_hold(wrong):
    with pytest.raises(ValueError):
        Pattern(wrong)


@settings(deadline=None, max_examples=60)
@given(PATH, st.data())
def test_names_in_the_place_of_steps_tell_these_steps(steps, data):
    named = data.draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
    quoted = ["".join(f"[{c}]" if c in "*?[" else c for c in step) for step in steps]
    if any("{" in step or "}" in step for step in steps):
        quoted, named = ["x"] * len(steps), [True] * len(steps)
    pattern = Pattern(
        "/".join(
            f"{{p{i}}}" if name else step
            for i, (name, step) in enumerate(zip(named, quoted, strict=True))
        )
    )
    assert pattern.match("/".join(steps)) == {
        f"p{i}": step
        for i, (name, step) in enumerate(zip(named, steps, strict=True))
        if name
    }
    assert pattern.match("/".join([*steps, "more"])) is None
    assert Pattern("**").match("/".join(steps)) == {}


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_a_safe_name_is_a_plain_relative_path(name):
    plain, reason = safe(name)
    plain.encode()
    assert (
        "\0" not in plain and not plain.startswith("/") and ".." not in plain.split("/")
    )
    if reason is None:
        assert plain and "//" not in plain and safe(plain) == (plain, None)


def test_names_that_are_refused_and_names_that_are_not():
    assert safe("./a//b.txt") == ("a/b.txt", None)
    assert safe("/etc/passwd") == ("etc/passwd", None)
    assert safe("a/../../b") == ("a/b", "its name leads out of the archive")
    assert safe("caf\udce9.txt") == ("caf\\udce9.txt", "its name is not UTF-8")
    assert "zero byte" in str(safe("a\0b")[1])
    assert [
        hidden(p)
        for p in (
            "a/.git/x",
            "__MACOSX/._a",
            ".DS_Store",
            "a/Thumbs.db",
            "_DSC001.jpg",
            "a/b",
            "./a",
        )
    ] == [True, True, True, True, False, False, False]
    assert is_text("a/b.TXT") and not is_text("a.jpg") and not is_text("txt")


def test_without_a_pattern_the_folder_is_the_label():
    assert ParentFolder(folders=True).match("a/cat/1.jpg") == {"label": "cat"}
    assert ParentFolder(folders=True).match("1.jpg") == {"label": None}
    assert ParentFolder(folders=False).match("1.jpg") == {}


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["utf-8", "utf-16", "utf-32", "auto"]),
)
def test_text_comes_back(text, encoding):
    text = text.removeprefix("\ufeff")
    data = text.encode("utf-8" if encoding == "auto" else encoding)
    assert decoded(data, encoding) == (text, False) or data.startswith(
        (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8)
    )


def test_encodings_found_and_refused():
    assert decoded(codecs.BOM_UTF8 + b"hei", "utf-8") == ("hei", False)
    assert decoded("smør".encode("utf-16"), "auto") == ("smør", False)
    assert decoded("smør".encode("latin-1"), "auto") == ("smør", True)
    with pytest.raises(ValueError, match="is not utf-8: byte 3 is 0xf8"):
        decoded("smør".encode("latin-1"), "utf-8")
    with pytest.raises(ValueError, match="mark of UTF-16"):
        decoded("smør".encode("utf-16"), "utf-8")
    with pytest.raises(ValueError, match="is not utf-16"):
        decoded(b"\xff\xfea", "utf-16")
    assert check_encoding("utf-8") is None and check_encoding("auto") is None
    assert "no encoding of text" in str(
        check_encoding("hex")
    ) and "no encoding of text" in str(check_encoding("utf-9"))
