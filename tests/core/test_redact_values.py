"""A secret that was seen once is blanked by its value, in every spelling and wherever it stands."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core import redact, secret_values
from penstock.core.events import Events
from penstock.core.redact import (
    learn,
    redacted,
    register,
)

pytestmark = pytest.mark.usefixtures("forgetful")


def test_a_secret_is_known_by_its_value_once_it_was_seen():
    learn({"source": {"path": "https://me:s%C3%A9cr%40t9x@host/rows.csv"}})
    for spelling in (
        "sécr@t9x",
        "s%C3%A9cr%40t9x",
        "s%c3%a9cr%40t9x",
        r"s\u00e9cr@t9x",
        "bWU6c8OpY3JAdDl4",
        r"s\xc3\xa9cr@t9x",
    ):
        assert (
            redacted(f"the server said {spelling!s}, twice {spelling}")
            == "the server said ***, twice ***"
        )


@pytest.mark.parametrize(
    "value",
    [
        "Pl4nted/se+cret==",
        "pl4nted 'q\"x",
        "plänted-ü<7>&",
        "simple7Planted",
        "-----BEGIN X-----\nMIIEplanted0123456789/+abc\n-----END X-----",
    ],
)
def test_a_value_is_known_in_every_spelling(value):
    register(value)
    inside = [
        base64.b64encode(f"{'u' * n}:{value}:more".encode()).decode() for n in range(1, 4)
    ]
    written = [
        value,
        quote(value, safe=""),
        quote_plus(value),
        quote(quote(value, safe=""), safe=""),
        json.dumps(value),
        json.dumps(json.dumps(value)),
        json.dumps(value).replace("/", "\\/"),
        repr(value),
        repr(value.encode()),
        html.escape(value),
        base64.b64encode(value.encode()).decode(),
        base64.urlsafe_b64encode(value.encode()).decode(),
        value.encode().hex(),
        value.encode().hex().upper(),
        value.replace("'", "''"),
        *inside,
    ]
    for text in written:
        said = redacted(f"<{text}>")
        assert "***" in said, text
        assert not re.search(r"planted|pl4nted|pl\S*nted", said, re.IGNORECASE), said
    for text in inside:
        # what is left is of the neighbours, and of three characters at most at each end
        assert len(redacted(text)) < 30


@pytest.mark.parametrize(
    "mark", ["\n", "\r\n    ", "\\\n", "'\n 'b", '"\n  "', "\n> ", "\n | "]
)
def test_a_value_is_known_over_two_lines(mark):
    register("Planted/secret+key0123")
    for at in range(4, 18):
        broken = (
            "Planted/secret+key0123"[:at]
            + mark.rstrip("b")
            + "Planted/secret+key0123"[at:]
        )
        said = redacted(f"before\nthe key {broken} after\nend")
        assert said == "before\nthe key *** after\nend"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab1", min_size=4, max_size=12), min_size=1, max_size=6),
    st.text("ab1 \n", max_size=30),
    st.integers(0, 5),
)
def test_values_of_one_beginning_are_found_wherever_they_stand(given, around, which):
    values = secret_values.Values()
    for value in given:
        values.add(value, {value: False}, in_passing=False)
    text = around + given[which % len(given)]
    said = values.blanked(text)
    assert not [value for value in given if value in said]
    assert "".join(said.split("***")) in text or said.count("***") > 1


def test_what_is_known_is_not_spelt_again(monkeypatch):
    register("Pl4nted-once")
    monkeypatch.setattr(secret_values, "_forms", None)
    register("Pl4nted-once")
    register("Pl4nted-once", in_passing=True)


def test_variables_tell_by_their_last_word(monkeypatch):
    monkeypatch.setenv("SERVE_TOKEN", "tok-Pl4nted")
    monkeypatch.setenv("ACME_KEY", "key-Pl4nted")
    monkeypatch.setenv("SERVE_TOKEN_FILE", "/run/tok-file9")
    assert redacted("tok-Pl4nted key-Pl4nted /run/tok-file9") == "*** *** /run/tok-file9"


def test_a_value_that_is_no_text_is_known_too():
    learn({"password": "\udcffPl4nted", "url": "http://me:\udcffPl5nted@host"})
    assert redacted("a \udcffPl4nted b \udcffPl5nted") == "a *** b ***"


def test_values_that_overlap_are_blanked_together():
    for value in ("abcdefgh1234", "1234-ijklmnop", "abcdefg9"):
        register(value)
    assert redacted("x abcdefgh1234-ijklmnop y abcdefg9 z") == "x *** y *** z"


def test_a_text_is_gone_through_once_however_many_values_there_are(monkeypatch):
    """The work is counted, since time is not to be relied on."""
    values = secret_values.Values()
    for i in range(1_000):
        values.add(
            f"{i:04d}-planted-{i}", {f"{i:04d}-planted-{i}": False}, in_passing=False
        )
    asked = []

    class Counted(dict):
        def __contains__(self, head):
            asked.append(head)
            return super().__contains__(head)

    values._heads = Counted(values._heads)
    text = "x" * 10_000 + "0007-planted-7" + "0999-planted-999"
    assert values.blanked(text) == "x" * 10_000 + "***" + "***"
    assert len(asked) <= len(text)


def test_what_texts_show_in_passing_pushes_out_nothing_that_was_given():
    register("given-Pl4nted")
    for i in range(3_000):
        redacted(f"cannot read http://me:elsewhere{i}x@host")
    assert redacted("it was given-Pl4nted, then elsewhere2999x") == "it was ***, then ***"
    assert redacted("elsewhere1x") == "elsewhere1x"  # seen in passing, long ago
    assert len(secret_values._values._uses) < 30_000


def test_a_short_secret_is_blanked_as_a_word_and_a_common_one_by_its_shape_alone():
    learn(
        [
            "http://me:pw1!@host",
            "http://me:train@other",
            "http://me:abcd@third",
            "s3://KEY:data@bucket",
        ]
    )
    assert redacted("pw1! is refused; stopw1!x stays") == "*** is refused; stopw1!x stays"
    assert redacted("train the data, abcd") == "train the data, abcd"
    assert (
        redacted("http://me:train@other: invalid bucket 'KEY:data@bucket'")
        == "http://me:***@other: invalid bucket '***@bucket'"
    )


def test_the_environment_is_known(monkeypatch):
    monkeypatch.setenv("ACME_API_TOKEN", "tok-1234567890")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:sesame77x@gate:3128")
    assert redacted("sent tok-1234567890 by sesame77x") == "sent *** by ***"


def test_the_same_short_words_are_gone_through_once(monkeypatch):
    gone_through = []
    by_shape = redact.by_shape
    monkeypatch.setattr(
        redact, "by_shape", lambda text: gone_through.append(text) or by_shape(text)
    )
    seen = []
    events = Events(seen.append)
    for done in range(100):
        events.progress("a stage of this test", done, 100, "pieces of it", rows=done)
    assert len(seen) == 100
    assert all(gone_through.count(text) <= 1 for text in set(gone_through))


def test_what_becomes_a_secret_later_is_blanked_from_then_on(monkeypatch):
    assert redacted("stage late7Planted") == "stage late7Planted"
    register("late7Planted")
    assert redacted("stage late7Planted") == "stage ***"
    assert redacted("stage env7Planted") == "stage env7Planted"
    monkeypatch.setenv("ACME_TOKEN", "env7Planted")
    monkeypatch.setattr(secret_values, "_environment_seen", float("-inf"))
    assert redacted("stage env7Planted") == "stage ***"


def test_a_text_that_teaches_a_secret_is_never_remembered():
    text = "http://me:taught7Planted@h"
    assert redacted(text) == redacted(text) == "http://me:***@h"
    assert redacted("taught7Planted") == "***"
    assert not any("7Planted" in word for word in redact._clean[1])
