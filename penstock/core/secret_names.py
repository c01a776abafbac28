"""Names that tell of a secret: one table of what options, parameters, headers and variables are called that
hold one.

A name is taken apart into words (`api_key`, `apiKey`, `API-Key` and `x.api_key` are the same two), and the
table says which words, alone or together, hold a secret. What speaks about one without holding it
(`token_env`, `password_file`) does not.

What this file refuses to know: where names and values stand in a text (`core.secret_shapes`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

WHOLE = frozenset(
    {
        "apikey",
        "apipass",
        "auth",
        "authorization",
        "basicauth",
        "bearer",
        "connectionstring",
        "connstr",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "jwt",
        "otp",
        "pass",
        "passcode",
        "passkey",
        "passphrase",
        "passwd",
        "password",
        "privkey",
        "proxyauth",
        "pw",
        "pwd",
        "sas",
        "sastoken",
        "sasurl",
        "secret",
        "sig",
        "signature",
        "signatureprovided",
        "token",
    }
)
"""Names that are nothing but a secret's."""
ANYWHERE = frozenset(
    {
        "accountkey",
        "apikey",
        "connectionstring",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
    }
)
"""Words, or two words together, that tell wherever they stand in a name: `aws_secret_access_key`."""
ENDS = (
    "accesstoken",
    "accesskey",
    "apikey",
    "authtoken",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "secretkey",
)
"""How a single word ends that was written without marks between its parts: `PGPASSWORD`, `dbpasswd`,
`clientsecret`.
"""
LAST = frozenset(
    {
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "jwt",
        "sig",
        "signature",
    }
)
"""Last words that tell, whatever comes before them."""
BEFORE = {
    "key": frozenset(
        {
            "access",
            "account",
            "admin",
            "api",
            "app",
            "application",
            "auth",
            "client",
            "consumer",
            "encryption",
            "fernet",
            "hmac",
            "license",
            "master",
            "private",
            "service",
            "shared",
            "signing",
            "ssh",
            "storage",
            "subscription",
            "webhook",
        }
    ),
    "token": frozenset(
        {
            "access",
            "api",
            "auth",
            "bearer",
            "bot",
            "csrf",
            "deploy",
            "github",
            "gitlab",
            "hf",
            "id",
            "identity",
            "jwt",
            "oauth",
            "personal",
            "push",
            "refresh",
            "registry",
            "sas",
            "security",
            "service",
            "session",
            "slack",
            "upload",
            "user",
            "write",
            "read",
        }
    ),
    "pass": frozenset(
        {
            "account",
            "admin",
            "auth",
            "db",
            "database",
            "email",
            "ftp",
            "http",
            "keystore",
            "ldap",
            "login",
            "mail",
            "mongo",
            "my",
            "mysql",
            "pg",
            "postgres",
            "proxy",
            "redis",
            "root",
            "service",
            "smtp",
            "sql",
            "ssh",
            "user",
            "vpn",
        }
    ),
    "auth": frozenset({"basic", "http", "proxy", "redis", "rediscli", "registry"}),
}
"""Last words that tell only after one of these: `api_key` does, `primary_key` does not; `smtp_pass` does,
`forward_pass` does not.
"""
ABOUT = frozenset(
    {
        "column",
        "count",
        "dir",
        "env",
        "field",
        "file",
        "folder",
        "id",
        "length",
        "limit",
        "name",
        "path",
        "ref",
        "size",
        "type",
        "uri",
        "url",
        "var",
        "variable",
    }
)
"""Last words of names that speak about a secret without holding it: `token_env`, `password_file`."""
IN_QUERIES = frozenset({"code", "key"})
"""Names that hold a secret in a URL's query where the value is long."""

# `apikey`, `authtoken`: the pairs of `BEFORE` written as one word.
_ONE_WORD = {
    f"{first}{last}" for last in ("key", "pass", "token") for first in BEFORE[last]
}
_SETTING = re.compile(r"(?:spark|hadoop|fs)\.")
"""Such as `spark.hadoop.fs.s3a.secret.key`, `fs.azure.account.key.NAME.blob.core.windows.net`."""
# Runs of capitals (`API`), capitalised or lower words, digits, and letters of other
# scripts.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")
_MANY = re.compile(r"(?<=.(?:d|t|y|e))s\Z")
"""The mark of several, after words of the table: `passwords`, `secrets`, `api_keys`, `cookies`; of tokens
there are many that are none.
"""


def _is_told(words: list[str]) -> bool:
    """Whether one of the words, or two together, name a secret in any place of a name."""
    return not ANYWHERE.isdisjoint({*words, *map("".join, pairwise(words))})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether an option, parameter or variable of this name holds a secret: `api_key`, `X-Amz-Signature`,
    `AccountKey`.
    """
    # The last 200 characters: names come from texts, and each is matched against
    # several patterns.
    whole, _, last = name[-200:].rpartition(".")
    words = [word.lower() for word in _WORDS.findall(last)]
    if _SETTING.match(
        name
    ):  # Spark's and Hadoop's settings spread one name over their dots
        words = [word.lower() for word in _WORDS.findall(whole)] + words
        if _is_told(words):
            return True
    while words and words[-1].isdigit():  # `password1`, `token_2`
        words.pop()
    if not words:
        return False
    if words[-1] != "pass":
        words[-1] = _MANY.sub("", words[-1])
    last = words[-1]
    # Before `ABOUT`: a whole name such as `sas` or `dsn` needs no second word.
    if "".join(words) in WHOLE:
        return True
    if last in ABOUT:
        return False
    # After `ABOUT`: `token_env` and `password_file` must have left by now.
    if last in LAST or last in _ONE_WORD or last.endswith(ENDS) or _is_told(words):
        return True
    return len(words) > 1 and words[-2] in BEFORE.get(last, ())


_LAST_OF_VARIABLES = frozenset({"auth", "key", "pass", "pat", "token"})
"""Last words of variables that hold a secret, whatever comes before: `SERVE_TOKEN`, `ACME_KEY`.

In a recipe `pad_token` is none.
"""


def is_secret_variable(name: str) -> bool:
    """Whether a variable of the environment of this name holds a secret."""
    # Of nested settings (`APP__DB__TOKEN`) the last part tells.
    words = _WORDS.findall(name.lower().rpartition("__")[2])
    return is_secret_name(name) or (bool(words) and words[-1] in _LAST_OF_VARIABLES)


_COMMON = 13
"""Letters alone, in one case, count as an ordinary word up to this length."""
_LONG = 8
_TYPE = re.compile(
    r"(?:u?int|float|utf|decimal|bfloat|date|string|str|binary|complex)\d{0,3}\Z"
)


def is_ordinary(value: str) -> bool:
    """Whether a value is a word, a short number or the name of a type, which texts
    often hold without any secret.
    """
    # Five digits are ports, years and counts; six may be a one-time code.
    if value.isdigit():
        return len(value) < 6
    # Long words beyond ASCII are rare in the texts of programs, so they count as
    # secrets.
    if not value.isascii() and len(value) >= _LONG:
        return False
    if _TYPE.match(value):
        return True
    return (
        value.isalpha()
        # The longest words of sentences, roughly; a password of letters alone is longer
        # or mixed.
        and len(value) <= _COMMON
        and (value.islower() or value.isupper() or value.istitle())
    )


def is_plain(value: str) -> bool:
    """Whether a value after a telling name is harmless, since the name may be a
    column's: a type, a word, a number.
    """
    bare = value.strip("\"'`.,;:()[]{}")
    return len(bare) < 3 or is_ordinary(bare)
