r"""Credentials in URLs: the user and password before the `@`, as they are, percent-encoded, with `\/` for `/`
as JSON writes it, broken over a line; and telling parameters of the query.

Every pattern is linear in the text: repetitions are bounded, or cannot begin anew at each of their
characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from penstock.core.lazy_patterns import lazily
from penstock.core.secret_names import IN_QUERIES, is_ordinary, is_secret_name

BLANK = "***"

# `//`, as JSON may escape it (`\/\/`), or as Unicode escapes of it.
_SLASHES = r"(?://|\\{1,4}/\\{1,4}/|(?:\\{1,4}u002[fF]){2})"
_SCHEME_NAME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}"
_START = rf"{_SCHEME_NAME}:{_SLASHES}"
# Groups: scheme, colon and slashes, rest. The look-ahead ends a URL where the next one
# begins.
_URL = lazily(rf"""({_SCHEME_NAME})(:{_SLASHES})((?:(?!{_START})[^\s"'<>`])+)""")
"""A URL in a sentence; one inside another (`zip://a.csv::https://…`) counts for itself."""
_WHOLE_URL = lazily(rf"({_SCHEME_NAME})(:{_SLASHES})((?:(?!{_START}).)+)", re.DOTALL)
"""URLs in a value that is nothing else, with whatever characters their user has put into them."""
# A number after the colon is a port, and begins no password.
_BROKEN_URL = lazily(
    rf"""({_SCHEME_NAME}:{_SLASHES}[^\s/@:?#"'<>`\[]{{0,100}}:)(?!\d{{1,5}}(?:[\s/?#"'<>`]|\Z))"""
    rf"""[^\s@"'<>`]{{0,200}}(?:["'<>` ](?:(?!:{_SLASHES})[^\n@]){{0,200}}|[^\S ]{{1,3}}[^\s@]{{0,200}})@"""
)
"""A password with a space or a quote in it, or broken over a line: it ends at the `@`."""
_PORT = lazily(r"\d{1,5}\Z")
_USER = lazily(r"[A-Za-z][a-z._-]{0,19}\d{0,4}\Z")
"""What looks like a person's name is kept; an access key is not."""
_NAMED_BEFORE_AT = frozenset({"abfs", "abfss", "wasb", "wasbs", "adl"})
"""Schemes that name a container before the `@`."""
# An `@` that was percent-encoded up to four times.
_AT = lazily(r"%(?:25){0,3}40")
# A parameter of a query or fragment; braces are values of ODBC.
QUERY = lazily(r"""(?<=[?&;#])([A-Za-z][\w.%-]{0,80})=(\{[^}\n]*\}|[^\s&;#"'<>`\\]+)""")


_VARIABLE = lazily(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
"""A variable of the environment that stands for a password: its name is no secret."""


def _userinfo(scheme: str, rest: str) -> tuple[str, str | None, int] | None:
    """`_written_userinfo`; None as well where a variable stands in the password's place."""
    credential = _written_userinfo(scheme, rest)
    if credential is None:
        return None
    user, password, _ = credential
    is_named = _VARIABLE.fullmatch(user if password is None else password) is not None
    return None if is_named else credential


def _written_userinfo(scheme: str, rest: str) -> tuple[str, str | None, int] | None:
    """What stands before a URL's `@`: user, password, and where the rest begins.

    None where there is no credential.

    Users write passwords as they are; one with `/`, `?` or `#` in it reaches beyond what a parser takes for
    the host.
    """
    end = next((i for i, c in enumerate(rest) if c in "/?#"), len(rest))
    authority = rest[:end]
    # The last `@`: users write passwords with an `@` in them unencoded.
    at = authority.rfind("@")
    user, colon, password = (
        authority[:at].partition(":") if at >= 0 else authority.partition(":")
    )
    if at >= 0:
        if not colon:  # abfs://container@account and sftp://me@host name no secret
            return (
                None
                if scheme.lower() in _NAMED_BEFORE_AT or _USER.match(user) or not user
                else (user, None, at + 1)
            )
        return user, password, at + 1
    # No colon, a port, or an IPv6 address in brackets: nothing here is a password.
    if not colon or _PORT.match(password) or authority.startswith("["):
        return None
    # The `@` lies beyond a `/`, `?` or `#` of the password.
    at = rest.find("@", end)
    if at >= 0:
        return user, rest[len(user) + 1 : at], at + 1
    if (hit := _AT.search(password)) is not None:  # the whole was encoded by somebody
        return user, password[: hit.start()], len(user) + 1 + hit.end()
    if rest.endswith(("...", "…")):  # cut short by whoever quotes it
        return user, rest[len(user) + 1 :], len(rest)
    return None


def keeps_user(user: str, password: str | None) -> bool:
    """Whether the user of a URL may be shown beside a blanked password."""
    return (
        bool(password)
        # GitHub takes a token as the user, with this word for a password.
        and password != "x-oauth-basic"
        and (_USER.match(user) is not None or user == BLANK)
    )


def _blank_url(match: re.Match[str]) -> str:
    scheme, slashes, rest = match[1], match[2], match[3]
    credential = _userinfo(scheme, rest)
    if credential is not None:
        user, password, start = credential
        # A user that may be shown helps a reader to see which account is meant.
        credentials = (
            f"{user if keeps_user(user, password) else BLANK}:{BLANK}"
            if password is not None
            else BLANK
        )
        rest = f"{credentials}@{rest[start:]}"
    return f"{scheme}{slashes}{QUERY.sub(blank_query, rest)}"


def blank_query(match: re.Match[str]) -> str:
    """A parameter of a query, blanked if it holds a secret."""
    return f"{match[1]}={BLANK}" if is_secret_parameter(match[1], match[2]) else match[0]


def is_secret_parameter(name: str, value: str) -> bool:
    """Whether a parameter of a query holds a secret."""
    name = unquote(name)
    return is_secret_name(name) or (
        # `code` and `key` are common names of harmless parameters, so a short value is
        # kept.
        name.lower() in IN_QUERIES and len(value) >= 16 and not is_ordinary(value)
    )


def has_url(text: str) -> bool:
    """Whether there may be a URL in a text."""
    return "://" in text or ":\\" in text


def by_url(text: str) -> str:
    """A text with the URLs in it blanked by their shape."""
    if not has_url(text):
        return text
    # Broken ones first: `_URL` would end at the break and leave the rest.
    if "@" in text:
        text = _BROKEN_URL.sub(rf"\1{BLANK}@", text)
    return _URL.sub(_blank_url, text)


def redacted_url(url: str) -> str:
    """A URL without its credentials, known by their shape alone: the same for every password, so that
    identities rest on it.
    """
    return _WHOLE_URL.sub(_blank_url, url) if "://" in url else url


@dataclass(frozen=True)
class Credential:
    """A URL taken apart at its `@`."""

    scheme: str
    user: str
    password: str | None
    rest: str
    """What follows the `@`."""

    @property
    def text(self) -> str:
        """User and password as they stand in a URL before the `@`."""
        return self.user if self.password is None else f"{self.user}:{self.password}"


def split_credential(url: str) -> Credential | None:
    """A URL's user and password, as they are written; None where it has none."""
    scheme, _, rest = url.partition("://")
    credential = _userinfo(scheme, rest)
    return (
        None
        if credential is None
        else Credential(scheme, credential[0], credential[1], rest[credential[2] :])
    )


def credentials_in(text: str, *, whole: bool) -> Iterator[tuple[str, str | None]]:
    """User and password of each URL in a text.

    Args:
        whole: the text is a URL and nothing else, and what looks like the end of one belongs to it.
    """
    # A value that is one URL may have spaces and quotes in its password, which a
    # sentence's URL ends at.
    for pattern in (_WHOLE_URL, _URL) if whole else (_URL,):
        for match in pattern.finditer(text):
            credential = _userinfo(match[1], match[3])
            if credential is not None:
                yield credential[0], credential[1]
