"""What is blanked, by shape and by value, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core import credentials, redact
from penstock.core.errors import PenstockError, Problem, RecipeError, UserError
from penstock.core.events import Event, Events
from penstock.core.redact import (
    BLANK,
    is_secret_name,
    learn,
    redacted,
    redacted_data,
    redacted_output,
    redacted_url,
    redacted_words,
)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Each test knows no secret but its own."""
    monkeypatch.setattr(redact, "_values", {})
    monkeypatch.setattr(redact, "_pattern", None)
    monkeypatch.setattr(redact, "_environment_seen", float("-inf"))
    monkeypatch.setattr(credentials, "_of_bucket", {})
    monkeypatch.setattr(credentials, "_options", {})


@pytest.mark.parametrize(("text", "expected"), [
    ("cannot read s3://AKIDEXAMPLE:wJal/rXUt+nF@bucket/x: no", "cannot read s3://***:***@bucket/x: no"),
    ("http://user:hunter2@host:80/x?a=b", "http://user:***@host:80/x?a=b"),
    ("http://user:p%40ss@host", "http://user:***@host"),
    ("'http://user:p@ss@host'", "'http://user:***@host'"),
    ("https://ghtok12345ABCDE@host/x", "https://***@host/x"),
    ("zip://a.csv::https://u:p@h/x.zip", "zip://a.csv::https://u:***@h/x.zip"),
    ("s3://a,http://u:p@h", "s3://a,http://u:***@h"),
    ("postgresql://u:p@h/db", "postgresql://u:***@h/db"),
    ("https://acc.blob/x?sv=2020&sig=ab%2Bc%3D&se=1", "https://acc.blob/x?sv=2020&sig=***&se=1"),
    ("https://b/x?X-Amz-Credential=AK%2F1&X-Amz-Signature=0a1b", "https://b/x?X-Amz-Credential=***&X-Amz-Signature=***"),
    ("AccountName=a;AccountKey=Zm9v==;EndpointSuffix=x", "AccountName=a;AccountKey=***;EndpointSuffix=x"),
    ("https://h/x?access_token=abc&y=1", "https://h/x?access_token=***&y=1"),
    ("https://maps/x?key=AIzaSyA1234567890", "https://maps/x?key=***"),
    ("unrecognized arguments: --password hunter2", "unrecognized arguments: --password ***"),
    ("--storage-secret='a b'", "--storage-secret=***"),
    ("password=hunter2 host=h", "password=*** host=h"),
    ("{'secret_key': 'a', \"token\": \"b\\\"c\"}", "{'secret_key': '***', \"token\": \"***\"}"),
    ("Authorization: Bearer eyabc123", "Authorization: ***"),
    ("sent with bearer abc123def456", "sent with bearer ***"),
    ("a JWT eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ", "a JWT ***"),
    ("key ghp_abcdefghijklmnopqrstuvwxyz0123456789", "key ***"),
    ("'s3://KEY:SECR...", "'s3://***:***@"),
    ("redirect=http%3A%2F%2Fu%3Ahunter%40h", "redirect=http%3A%2F%2Fu%3A***%40h"),
])
def test_a_secret_is_known_by_its_shape(text, expected):
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize("text", [
    "https://host:8080/a@b.csv", "abfs://container@account.dfs.core.windows.net/x", "sftp://me@host/x", "s3://team/penstock/2020:01/x@2x.png",
    "inputs.token: float32 is no feature", "pad_token=<pad>", "key: id", "send the header  Authorization: Bearer <token>",
    "the bearer token that requests must bring", "serve.token_env is SERVE_TOKEN", "--secret bucket --token-env NAME", "http://[::1]:8080/x",
    "the secret of a good basic table is its token column", "https://host/x?key=7&page=2", "2020-01-01T00:00 a@b.c", "git@host:me/x.git", "x = 3; y == 4",
])
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(("name", "is_secret"), [
    ("password", True), ("api_key", True), ("apiKey", True), ("X-Amz-Security-Token", True), ("AccountKey", True), ("aws_secret_access_key", True),
    ("storage_options.secret", True), ("SAS", True), ("client-secret", True), ("connection_string", True), ("db_passwd", True),
    ("token_env", False), ("key", False), ("keys", False), ("tokenizer", False), ("max_tokens", False), ("pad_token", False), ("password_file", False),
    ("spark.hadoop.fs.s3a.secret.key", True), ("spark.hadoop.fs.s3a.access.key", True), ("spark.executor.memory", False),
    ("fs.azure.account.key.team.blob.core.windows.net", True), ("spark.sql.shuffle.partitions", False),
    ("AWS_ACCESS_KEY_ID", False), ("primary_key", False), ("passenger", False), ("design", False), ("author", False), ("", False), ("***", False),
])
def test_names_tell(name, is_secret):
    assert is_secret_name(name) is is_secret


def test_a_secret_is_known_by_its_value_once_it_was_seen():
    learn({"source": {"path": "https://me:s%C3%A9cr%40t9x@host/rows.csv"}})
    for spelling in ("sécr@t9x", "s%C3%A9cr%40t9x", "s%c3%a9cr%40t9x", r"s\u00e9cr@t9x", "bWU6c8OpY3JAdDl4", r"s\xc3\xa9cr@t9x"):
        assert redacted(f"the server said {spelling!s}, twice {spelling}") == "the server said ***, twice ***"


def test_a_short_secret_is_blanked_as_a_word_and_a_common_one_by_its_shape_alone():
    learn(["http://me:pw1!@host", "http://me:train@other", "http://me:abcd@third", "s3://KEY:data@bucket"])
    assert redacted("pw1! is refused; stopw1!x stays") == "*** is refused; stopw1!x stays"
    assert redacted("train the data, abcd") == "train the data, abcd"
    assert redacted("http://me:train@other: invalid bucket 'KEY:data@bucket'") == "http://me:***@other: invalid bucket '***@bucket'"


def test_the_environment_is_known(monkeypatch):
    monkeypatch.setenv("ACME_API_TOKEN", "tok-1234567890")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:sesame77x@gate:3128")
    assert redacted("sent tok-1234567890 by sesame77x") == "sent *** by ***"


def test_a_result_may_have_a_column_called_token():
    text = '{"schema": {"token": "string", "password": "int64"}, "url": "http://u:p@h"}'
    assert redacted_output(text) == text.replace(":p@", ":***@")


def test_a_command_line():
    words = ["penstock", "run", "r.yaml", "--set", "source.path=s3://K:S@b", "--password", "hunter2", "--secret", "bucket", "--token-env", "T"]
    assert redacted_words(words) == ["penstock", "run", "r.yaml", "--set", "source.path=s3://K:***@b", "--password", "***", "--secret", "bucket", "--token-env", "T"]


def test_errors_and_events_are_redacted_where_they_are_made():
    url = "https://me:hunter2x@host/x"
    assert "hunter2x" not in str(PenstockError(f"no {url}"))
    error = RecipeError.of([Problem(("source", "path"), f"found {url!r}")], where=url)
    assert "hunter2x" not in f"{error} {error.message} {error.problems}"
    heard: list[Event] = []
    Events(heard.append).warn(f"slow: {url}", files=[url], more={"at": (url,)})
    assert "hunter2x" not in repr(heard) + heard[0].line() and "https://me:***@host/x" in heard[0].fields["text"]


@settings(max_examples=60, deadline=None)  # each is remembered, and looked for in all that follow
@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="@/?#:%\"'<>`*."), min_size=1, max_size=30))
def test_no_password_of_a_url_is_left_in_it(password):
    assert redacted_url(f"https://me:{password}@host/x") == f"https://me:{BLANK}@host/x"
    assert redacted(f"cannot read https://me:{password}@host/x.") == f"cannot read https://me:{BLANK}@host/x."


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)))
def test_data_without_a_secret_is_as_it_was(data):
    def plain(value):
        return redacted(value) == value if isinstance(value, str) else all(map(plain, value.items() if isinstance(value, dict) else value)) if isinstance(value, (list, tuple, dict)) else True

    if plain(data):
        assert redacted_data(data) == data


@pytest.mark.parametrize("text", ["x" * 300_000, "a.b-c:=" * 30_000, "http://" * 20_000, "'a': '" * 30_000, "http://u:" * 10_000, "--a " * 30_000, "%3A%2F%2F" * 20_000, "bearer " * 30_000])
def test_long_texts_cost_no_more_than_their_length(text):
    assert isinstance(redacted(text), str)  # a regular expression that goes back would take hours


# -- found again ---------------------------------------------------------------------------------------------------------


def test_credentials_are_found_again_from_the_environment(monkeypatch):
    monkeypatch.setenv(credentials.VARIABLE, "https://me:pw%40x@host:8080 https://acc.blob/a?sv=1&sig=abcDEF https://KEYID1:zz@third/x")
    assert credentials.restored("https://me:***@host:8080/a/b.csv?c=1") == "https://me:pw%40x@host:8080/a/b.csv?c=1"
    assert credentials.restored("https://acc.blob/other?sig=***&b=2") == "https://acc.blob/other?sig=abcDEF&b=2"
    assert credentials.restored("https://***:***@third/x") == "https://KEYID1:zz@third/x"
    assert credentials.restored("s3://***:***@bucket/x") == "s3://bucket/x"  # the cloud's own variables do
    assert credentials.restored("https://plain/x") == "https://plain/x"


@pytest.mark.parametrize("url", ["https://me:***@elsewhere/a", "https://you:***@host/a", "https://host/a?sig=***"])
def test_credentials_that_are_not_there_are_a_sentence_that_says_what_to_set(url, monkeypatch):
    monkeypatch.setenv(credentials.VARIABLE, "https://me:pw@host")
    with pytest.raises(UserError, match=f"Set {credentials.VARIABLE}"):
        credentials.restored(url)


def test_a_bucket_takes_the_key_from_its_url():
    assert credentials.key_and_secret("s3://KEY:a%2Fb@bucket/x") == ("s3://bucket/x", "KEY", "a/b")
    assert credentials.key_and_secret("s3://bucket/y") == ("s3://bucket/y", "KEY", "a/b")  # as listings name it
    assert credentials.key_and_secret("s3://other/y") == ("s3://other/y", None, None)
    assert credentials.address("s3://KEY:a@bucket/x") == credentials.address("s3://bucket/x") == "s3://bucket/x"
