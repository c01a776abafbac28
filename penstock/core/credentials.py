"""Credentials of URLs, found again: what was blanked when a URL was written down comes from the environment.

A recipe, a run and a bundle keep a URL as `https://me:***@host/rows.csv`. Whoever reads it again has the
credentials in `PENSTOCK_CREDENTIALS`: URLs with theirs, separated by spaces, each good for its scheme and
host. For the clouds' schemes (s3, gs, abfs) their own variables do as well (`AWS_ACCESS_KEY_ID`, …), since
they are asked for anyway. An option of a part that holds a secret comes from `PENSTOCK_SECRET_<NAME>`.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from penstock.core.errors import UserError
from penstock.core.redact import BLANK, learn, redacted_url, register, split_credential

VARIABLE = "PENSTOCK_CREDENTIALS"
_CLOUDS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#]+)=" + re.escape(BLANK) + r"(?=$|[&;#])")


def restored(url: str) -> str:
    """A URL with the credentials that were blanked in it filled in from the
    environment; unchanged where none were blanked.

    Raises:
        UserError: they were, and the environment does not have them.
    """
    # A URL that comes with its credentials must be blanked from here on, too.
    learn(url)
    if BLANK not in url or "://" not in url:
        return url
    known = os.environ.get(VARIABLE, "").split()
    learn(known)
    # An entry that equals the URL when it is blanked fits exactly, and wins.
    whole = next((one for one in known if redacted_url(one) == url), url)
    # Others of the same scheme and host fill what is still blank.
    for one in known:
        whole = _filled(whole, one)
    scheme = url.split("://", 1)[0].lower()
    # The clouds' packages find their own credentials once the blanks are gone.
    if scheme in _CLOUDS and _is_blanked(whole):
        whole = _without(whole)
    if _is_blanked(whole):
        raise UserError(
            f"The credentials in {url} were removed when it was saved, and they are not"
            f" in the environment. Set {VARIABLE} to that URL with its credentials in"
            f" place of {BLANK} (several are separated by spaces)."
        )
    return whole


def _is_blanked(url: str) -> bool:
    credential = split_credential(url)
    return (
        credential is not None and BLANK in (credential.user, credential.password)
    ) or _PARAMETER.search(url) is not None


def _filled(url: str, known: str) -> str:
    """`url` with what `known`, of the same scheme and host, has in the place of its blanks."""
    mine, theirs = split_credential(url), split_credential(known)
    if _place(url) != _place(known):
        return url
    # The user must agree where it was kept, or another account's password would be
    # sent.
    fits = mine is not None and theirs is not None and mine.user in (BLANK, theirs.user)
    if (
        mine is not None
        and theirs is not None
        and fits
        and BLANK in (mine.user, mine.password)
    ):
        url = f"{mine.scheme}://{theirs.text}@{mine.rest}"
    values = dict(re.findall(r"(?<=[?&;#])([^=&;#]+)=([^&;#]*)", known))
    # Parameters are filled by name; one that the environment lacks stays blank, and is
    # refused later.
    return _PARAMETER.sub(lambda hit: f"{hit[1]}={values.get(hit[1], BLANK)}", url)


def _place(url: str) -> tuple[str, str]:
    credential = split_credential(url)
    scheme, _, rest = url.partition("://")
    rest = credential.rest if credential is not None else rest
    # Without path and query: credentials are good for a whole host.
    return scheme.lower(), re.split(r"[/?#]", rest, maxsplit=1)[0].lower()


def _without(url: str) -> str:
    credential = split_credential(url)
    return f"{credential.scheme}://{credential.rest}" if credential is not None else url


def key_and_secret(url: str) -> tuple[str, str | None, str | None]:
    """An s3:// URL without its credentials, the access key and the secret: its own, or those that this
    process has seen for its bucket, since listings name objects without any.
    """
    credential = split_credential(url)
    if credential is None or credential.password is None:
        return url, *_of_bucket.get(_place(url), (None, None))
    known = unquote(credential.user), unquote(credential.password)
    # Listings name objects without credentials; the next call for this bucket finds
    # them here.
    _of_bucket[_place(url)] = known
    return _without(url), *known


_of_bucket: dict[tuple[str, str], tuple[str, str]] = {}


def address(url: str) -> str:
    """A store's URL without its password, so that everyone who opens the store gets the
    same text.
    """
    credential = split_credential(url)
    return (
        url
        if credential is None or credential.password is None
        # A mere user stays: it may be the container's name (abfs).
        else f"{credential.scheme}://{redacted_url(credential.rest)}"
    )


# -- options of parts ----------------------------------------------------------------------------------------

_options: dict[str, str] = {}
"""What this process has blanked, by name: it goes on with what its user gave it."""


def variable_of(name: str) -> str:
    """The environment variable that a blanked option is found in: `PENSTOCK_SECRET_API_KEY`."""
    return "PENSTOCK_SECRET_" + re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def forget_option(name: str, value: str) -> str:
    """Remember an option's value for this process, and return the blank that is written
    down instead.
    """
    register(value)
    # Kept in memory only, so that this process can go on with what it was given.
    _options[name] = value
    return BLANK


def option_again(name: str, *, strict: bool) -> str:
    """The value of an option that was blanked.

    Args:
        strict: that it is not to be found is an error; it stays blank otherwise.

    Raises:
        UserError: the environment does not have it.
    """
    value = os.environ.get(variable_of(name)) or _options.get(name)
    if value:
        register(value)
        return value
    if strict:
        raise UserError(
            f"The option {name!r} was removed when it was saved, because it is a secret."
            f" Set {variable_of(name)} to its value."
        )
    return BLANK
