"""Credentials of buckets: taken from a URL, found again from the environment, and missed in a sentence."""

from __future__ import annotations

import pytest

from penstock.core import credentials
from penstock.core.errors import UserError

pytestmark = pytest.mark.usefixtures("forgetful")


def test_credentials_are_found_again_from_the_environment(monkeypatch):
    monkeypatch.setenv(
        credentials.VARIABLE,
        "https://me:pw%40x@host:8080 https://acc.blob/a?sv=1&sig=abcDEF https://KEYID1:zz@third/x",
    )
    assert (
        credentials.restored("https://me:***@host:8080/a/b.csv?c=1")
        == "https://me:pw%40x@host:8080/a/b.csv?c=1"
    )
    assert (
        credentials.restored("https://acc.blob/other?sig=***&b=2")
        == "https://acc.blob/other?sig=abcDEF&b=2"
    )
    assert credentials.restored("https://***:***@third/x") == "https://KEYID1:zz@third/x"
    assert (
        credentials.restored("s3://***:***@bucket/x") == "s3://bucket/x"
    )  # the cloud's own variables do
    assert credentials.restored("https://plain/x") == "https://plain/x"


@pytest.mark.parametrize(
    "url",
    ["https://me:***@elsewhere/a", "https://you:***@host/a", "https://host/a?sig=***"],
)
def test_credentials_that_are_not_there_are_a_sentence_that_says_what_to_set(
    url, monkeypatch
):
    monkeypatch.setenv(credentials.VARIABLE, "https://me:pw@host")
    with pytest.raises(UserError, match=f"Set {credentials.VARIABLE}"):
        credentials.restored(url)


def test_a_bucket_takes_the_key_from_its_url():
    assert credentials.key_and_secret("s3://KEY:a%2Fb@bucket/x") == (
        "s3://bucket/x",
        "KEY",
        "a/b",
    )
    # as listings name it
    assert credentials.key_and_secret("s3://bucket/y") == ("s3://bucket/y", "KEY", "a/b")
    assert credentials.key_and_secret("s3://other/y") == ("s3://other/y", None, None)
    assert (
        credentials.address("s3://KEY:a@bucket/x")
        == credentials.address("s3://bucket/x")
        == "s3://bucket/x"
    )
