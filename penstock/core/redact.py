"""No secret is told: the one place that blanks credentials, in whatever leaves this process.

Two ways of knowing one. **By shape**: the user and password of a URL, a query parameter such as `sig`, `password=…`,
`Authorization: …`, a token with a well-known beginning. **By value**: what `learn` saw in a URL or under a telling name
(a recipe, an option, the environment) is blanked wherever it turns up later, as it stands, percent-encoded or escaped:
errors of other packages quote it without the URL around it.

A value that is an ordinary word, or that is very short, is blanked by its shape alone: a password `train` must not take
the word out of every sentence. A credential that was blanked reads `***`; `core.credentials` finds it again.

What this file refuses to know: where texts go. Errors, events, records, the console and the server call it.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

BLANK = "***"

_MOST_VALUES = 1_000
_SUBSTRING = 8
"""A value of so many characters is blanked inside other words, too."""
_TOKEN = 4
"""A shorter one is blanked by its shape alone."""
_WORD = 13
"""Letters alone, in one case, count as an ordinary word up to this length."""
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
"""Variables of the environment that are the folder a shell is in."""
_LOOK_SECONDS = 1.0
"""How long the environment counts as known."""

# -- names that tell of a secret -----------------------------------------------------------------------------------------

_WHOLE = frozenset({
    "apikey", "auth", "authorization", "bearer", "connectionstring", "cookie", "credential", "credentials", "jwt",
    "pass", "passcode", "passphrase", "passwd", "password", "pw", "pwd", "sas", "secret", "sig", "signature", "token",
})
_ANYWHERE = frozenset({"apikey", "passphrase", "passwd", "password", "pwd", "secret", "accountkey", "connectionstring"})
_LAST = frozenset({"authorization", "cookie", "credential", "credentials", "jwt", "sig", "signature"})
_BEFORE_KEY = frozenset({
    "access", "account", "api", "application", "auth", "client", "encryption", "private", "service", "shared", "signing",
    "ssh", "storage", "subscription",
})
_BEFORE_TOKEN = frozenset({
    "access", "api", "auth", "bearer", "bot", "deploy", "github", "gitlab", "hf", "id", "identity", "oauth", "personal",
    "refresh", "sas", "security", "service", "session", "user", "write", "read",
})
_ABOUT = frozenset({
    "column", "count", "dir", "env", "field", "file", "folder", "id", "length", "limit", "name", "path", "ref", "size",
    "type", "uri", "url", "var", "variable",
})
"""Last words of names that speak about a secret without holding it: `token_env`, `password_file`."""
_IN_QUERIES = frozenset({"code", "key"})
"""Names that hold a secret in a URL's query where the value is long."""
_SETTING = re.compile(r"(?:spark|hadoop|fs)\.")
"""Such as `spark.hadoop.fs.s3a.secret.key`, `fs.azure.account.key.NAME.blob.core.windows.net`."""
_NAME_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


def is_secret_name(name: str) -> bool:
    """Whether an option, parameter or variable of this name holds a secret: `api_key`, `X-Amz-Signature`, `AccountKey`."""
    whole, _, last = name[-200:].rpartition(".")
    words = [word.lower() for word in _NAME_WORDS.findall(last)]
    if _SETTING.match(name):  # Spark's and Hadoop's settings spread one name over their dots
        words = [word.lower() for word in _NAME_WORDS.findall(whole)] + words
        if _ANYWHERE & {*words, *map("".join, pairwise(words))}:
            return True
    if not words or words[-1] in _ABOUT:
        return False
    if "".join(words) in _WHOLE or words[-1] in _LAST or _ANYWHERE & {*words, *map("".join, pairwise(words))}:
        return True
    before = words[-2] if len(words) > 1 else ""
    return (words[-1] == "key" and before in _BEFORE_KEY) or (words[-1] == "token" and before in _BEFORE_TOKEN)


# -- shapes --------------------------------------------------------------------------------------------------------------

_START = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_URL = re.compile(rf"""([A-Za-z][A-Za-z0-9+.-]{{0,30}})://((?:(?!{_START})[^\s"'<>`])+)""")
"""A URL in a sentence; one inside another (`zip://a.csv::https://…`) counts for itself."""
_WHOLE_URL = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]{{0,30}})://((?:(?!{_START}).)+)", re.DOTALL)
"""URLs in a value that is nothing else, with whatever characters their user has put into them."""
_PORT = re.compile(r"\d{1,5}\Z")
_USER = re.compile(r"[A-Za-z][a-z._-]{0,19}\d{0,4}\Z")
"""What looks like a person's name is kept; an access key is not."""
_QUERY = re.compile(r"""(?<=[?&;#])([A-Za-z][\w.-]{0,80})=([^\s&;#"'<>`]+)""")
_ASSIGNED = re.compile(r"""(?<![\w.-])([A-Za-z_-][\w.-]{0,200})=("[^"\n]*"|'[^'\n]*'|[^\s&;"'<>`]+)""")
_OPTION = re.compile(r"""(?<![\w-])(--[A-Za-z][\w-]{0,80})[ \t]+("[^"\n]*"|'[^'\n]*'|[^\s"'<>`-][^\s"'<>`]*)""")
_QUOTED = re.compile(r"""(["'])([A-Za-z][\w.-]{0,80})\1(\s{0,4}:\s{0,4})("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_HEADER = re.compile(
    r"""(?<![\w.-])((?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,60}(?:key|token|secret|signature))(\s{0,4}[:=]\s{0,4})"""
    r"""([^\n"'<>]+)""", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic|token)([ \t]+)([A-Za-z0-9._~+/=-]{6,})", re.IGNORECASE)
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abposr]-[\w-]{10,}"
    r"|hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_ENCODED = re.compile(r"(%3A%2F%2F[^\s&/@]{0,200}?%3A)[^\s&/@]{1,400}?(%40)", re.IGNORECASE)
_HINTS = (
    "=", "--", "%3a", "':", "\":", "' :", "\" :", "bearer", "basic", "token", "authorization", "cookie", "x-", "private key",
    "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_", "hf_", "sk-", "aiza", "eyj", "akia", "asia", "xox", "glpat",
)
"""Without any of these a text has no shape of a secret but that of a URL; most texts have none."""


def _userinfo(scheme: str, rest: str) -> tuple[str, str | None, int] | None:
    """What stands before a URL's `@`: user, password, and where the rest begins. None where there is no credential.

    Users write passwords as they are; one with `/`, `?` or `#` in it reaches beyond what a parser takes for the host.
    """
    end = next((i for i, c in enumerate(rest) if c in "/?#"), len(rest))
    authority = rest[:end]
    at = authority.rfind("@")
    user, colon, password = authority[:at].partition(":") if at >= 0 else authority.partition(":")
    if at >= 0:
        if not colon:  # abfs://container@account and sftp://me@host name no secret
            return (user, None, at + 1) if scheme.lower() in ("http", "https") and not _USER.match(user) else None
        return user, password, at + 1
    if not colon or _PORT.match(password) or authority.startswith("["):
        return None
    at = rest.find("@", end)
    if at >= 0:
        return user, rest[len(user) + 1 : at], at + 1
    if rest.endswith(("...", "…")):  # cut short by whoever quotes it
        return user, rest[len(user) + 1 :], len(rest)
    return None


def _keeps_user(user: str, password: str | None) -> bool:
    return bool(password) and password != "x-oauth-basic" and (_USER.match(user) is not None or user == BLANK)


def _blank_url(match: re.Match[str]) -> str:
    scheme, rest = match[1], match[2]
    credential = _userinfo(scheme, rest)
    if credential is not None:
        user, password, start = credential
        shown = f"{user if _keeps_user(user, password) else BLANK}:{BLANK}" if password is not None else BLANK
        rest = f"{shown}@{rest[start:]}"
    return f"{scheme}://{_QUERY.sub(_blank_query, rest)}"


def _blank_query(match: re.Match[str]) -> str:
    return f"{match[1]}={BLANK}" if _is_secret_parameter(match[1], match[2]) else match[0]


def _is_secret_parameter(name: str, value: str) -> bool:
    return is_secret_name(name) or (name.lower() in _IN_QUERIES and len(value) >= 16 and not _is_word(value))


def _blank_assigned(match: re.Match[str]) -> str:
    return f"{match[1]}={BLANK}" if is_secret_name(match[1].lstrip("-")) else match[0]


def _blank_option(match: re.Match[str]) -> str:
    named = match[1] != "--secret" and is_secret_name(match[1].lstrip("-"))  # --secret names a Secret of Kubernetes
    return f"{match[1]} {BLANK}" if named else match[0]


def _blank_quoted(match: re.Match[str]) -> str:
    mark = match[4][0]
    return f"{match[1]}{match[2]}{match[1]}{match[3]}{mark}{BLANK}{mark}" if is_secret_name(match[2]) else match[0]


def _blank_header(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{BLANK}" if match[3].strip().lower() not in ("bearer", "basic", "") else match[0]


def _blank_scheme(match: re.Match[str]) -> str:
    return match[0] if _is_word(match[3].rstrip(".")) else f"{match[1]}{match[2]}{BLANK}"


def _by_url(text: str) -> str:
    return _URL.sub(_blank_url, text) if "://" in text else text


def _by_shape(text: str) -> str:
    text = _ENCODED.sub(rf"\1{BLANK}\2", text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE.sub(BLANK, text)
    text = _HEADER.sub(_blank_header, text)
    text = _SCHEME.sub(_blank_scheme, text)
    text = _QUERY.sub(_blank_query, text)
    text = _ASSIGNED.sub(_blank_assigned, text)
    text = _OPTION.sub(_blank_option, text)
    text = _QUOTED.sub(_blank_quoted, text)
    return _KNOWN.sub(BLANK, text)


# -- values --------------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_values: dict[str, bool] = {}
"""What is blanked wherever it stands; True where it is only as a word of its own."""
_pattern: re.Pattern[str] | None = None
_environment_seen = float("-inf")


def _is_word(value: str) -> bool:
    """An ordinary word, name or number, which texts may hold for other reasons."""
    if value.isdigit():
        return len(value) < 6
    if not value.isascii() and len(value) >= _SUBSTRING:
        return False
    return value.isalpha() and len(value) <= _WORD and (value.islower() or value.isupper() or value.istitle())


def _spellings(value: str) -> Iterator[str]:
    """A value as other programs write it: in a URL, in JSON, in a repr, in HTML."""
    for form in {value, unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)}:
        yield form
        for encoded in (quote(form, safe=""), quote(form), quote_plus(form), quote(form, safe="!$&'()*+,;=:~@")):
            yield encoded
            yield re.sub(r"%[0-9A-F]{2}", lambda hit: hit[0].lower(), encoded)
        yield json.dumps(form)[1:-1]
        yield json.dumps(form, ensure_ascii=False)[1:-1]
        yield repr(form)[1:-1]
        yield repr(form.encode("utf-8", "surrogatepass"))[2:-1]
        yield html.escape(form)


def register(value: str) -> None:
    """Blank this value from now on, wherever it turns up. One that is an ordinary word or very short is left to its shape."""
    value = value.strip()
    if value == BLANK:
        return
    common = len(value) < _TOKEN or _is_word(value)
    alone = len(value) < _SUBSTRING or value.isdigit()
    # An ordinary word is no longer one where it is percent-encoded or escaped.
    _remember({form: alone for form in _spellings(value) if not common or (form != value and len(form) > len(value) + 1)})


def _remember(found: Mapping[str, bool]) -> None:
    global _pattern
    with _lock:
        fresh = {value: alone for value, alone in found.items() if len(value) >= _TOKEN and value not in _values}
        if not fresh:
            return
        for value, alone in fresh.items():
            if len(_values) >= _MOST_VALUES:
                del _values[next(iter(_values))]
            _values[value] = alone
        longest_first = sorted(_values, key=len, reverse=True)
        _pattern = re.compile("|".join(_alternative(value, _values[value]) for value in longest_first))


def _alternative(value: str, alone: bool) -> str:
    before = r"(?<!\w)" if alone and re.match(r"\w", value[0]) else ""
    after = r"(?!\w)" if alone and re.match(r"\w", value[-1]) else ""
    return f"{before}{re.escape(value)}{after}"


def learn(data: Any) -> None:
    """Remember every credential in plain data (a recipe, an option's value, a URL), so that it is blanked by its value, too."""
    if isinstance(data, str):
        _learn_text(data)
    elif isinstance(data, Mapping):
        for name, value in data.items():
            if isinstance(name, str) and isinstance(value, str) and is_secret_name(name):
                register(value)
            learn(value)
    elif isinstance(data, (list, tuple)):
        for item in data:
            learn(item)


def _learn_text(text: str) -> None:
    if "://" in text:
        for pattern in (_WHOLE_URL, _URL):
            for match in pattern.finditer(text):
                _learn_url(match[1], match[2])
    if "=" in text:
        for name, value in (*_QUERY.findall(text), *_ASSIGNED.findall(text)):
            if _is_secret_parameter(name.lstrip("-"), value):
                value = value.strip("\"'")
                for form in (value, unquote(value), unquote_plus(value)):
                    register(form)


def _learn_url(scheme: str, rest: str) -> None:
    credential = _userinfo(scheme, rest)
    if credential is not None:
        user, password, _ = credential
        for value in (password, None if _keeps_user(user, password) else user):
            for form in (value, unquote(value)) if value else ():
                register(form)
        if password and password != BLANK:
            # Told without its scheme, and as the header that HTTP clients make of it; however common the word.
            plain = f"{unquote(user)}:{unquote(password)}"
            encoded = {plain.encode("utf-8", "surrogatepass"), plain.encode("latin-1", "replace")}
            basic = [base64.b64encode(one).decode() for one in encoded]
            forms = (f"{user}:{password}@", f"{plain}@", quote(f"{plain}@", safe=""), *basic)
            _remember(dict.fromkeys(forms, False))


def _learn_environment() -> None:
    """Secrets that this process was given by its environment, which errors of other packages may quote."""
    global _environment_seen
    now = time.monotonic()
    if now < _environment_seen:
        return
    _environment_seen = now + _LOOK_SECONDS
    for name, value in list(os.environ.items()):
        if name not in _NO_SECRETS and is_secret_name(name):
            register(value)
        if "://" in value or ("=" in value and ";" in value):
            _learn_text(value)


def _by_value(text: str) -> str:
    return _pattern.sub(_blank_value, text) if _pattern is not None else text


def _blank_value(match: re.Match[str]) -> str:
    return f"{BLANK}@" if match[0].endswith("@") and ":" in match[0] else BLANK


# -- what others call ----------------------------------------------------------------------------------------------------


def redacted(text: str) -> str:
    """A text without its credentials: the same where it has none."""
    _learn_environment()
    if "://" in text:
        _learn_found(text)
        text = _by_url(text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        text = _by_shape(text)
    return _by_value(text)


def redacted_output(text: str) -> str:
    """A result as it is printed: a column may be called `token`, so names tell nothing here; URLs and known values do."""
    _learn_environment()
    return _by_value(_by_url(text))


def _learn_found(text: str) -> None:
    """A sentence may tell the same credential twice: in a URL, and bare."""
    for match in _URL.finditer(text):
        if "@" in match[2] or "=" in match[2]:
            _learn_text(match[0])


def redacted_data(data: Any) -> Any:
    """Plain data with every text in it redacted; what is no text, mapping or list is as it was."""
    if isinstance(data, str):
        return redacted(data)
    if isinstance(data, Mapping):
        return {redacted(key) if isinstance(key, str) else key: redacted_data(value) for key, value in data.items()}
    if isinstance(data, list):
        return [redacted_data(item) for item in data]
    if type(data) is tuple:
        return tuple(redacted_data(item) for item in data)
    return data


def redacted_url(url: str) -> str:
    """A URL without its credentials, known by their shape alone: the same for every password, so that identities rest on it."""
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
        return self.user if self.password is None else f"{self.user}:{self.password}"


def split_credential(url: str) -> Credential | None:
    """A URL's user and password, as they are written; None where it has none."""
    scheme, _, rest = url.partition("://")
    credential = _userinfo(scheme, rest)
    return None if credential is None else Credential(scheme, credential[0], credential[1], rest[credential[2] :])


def redacted_words(words: Iterable[str]) -> list[str]:
    """A command line without its credentials."""
    given = [str(word) for word in words]
    for word in given:
        learn(word)
    shown = [redacted(word) for word in given]
    for i, (word, after) in enumerate(pairwise(given), start=1):
        if word.startswith("--") and word != "--secret" and "=" not in word and is_secret_name(word.lstrip("-")):
            register(after)
            shown[i] = BLANK
    return shown


def redacted_urls(data: Any) -> Any:
    """Plain data with the URLs in it redacted by their shape alone: for records that must mean the same afterwards."""
    if isinstance(data, str):
        return redacted_url(data)
    if isinstance(data, Mapping):
        return {key: redacted_urls(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [redacted_urls(item) for item in data]
    return data
