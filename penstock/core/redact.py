"""No secret is told: the one place that blanks credentials, in whatever leaves this process.

Two ways of knowing one. **By shape** (`core.secret_shapes`): the user and password of a URL, a query
parameter such as `sig`, `password=…`, `Authorization: …`, a token with a well-known beginning; names are
judged by `core.secret_names`. **By value** (`core.secret_values`): what `learn` saw in a URL or under a
telling name (a recipe, an option, the environment) is blanked wherever it turns up later, in whatever
spelling: errors of other packages quote it without the URL around it.

A value that is an ordinary word, or that is very short, is blanked by its shape alone: a password `train`
must not take the word out of every sentence. A credential that was blanked reads `***`; `core.credentials`
finds it again.

What this file refuses to know: where texts go. Errors, events, records, the console and the server call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from penstock.core.secret_names import is_plain
from penstock.core.secret_names import is_secret_name as is_secret_name
from penstock.core.secret_shapes import by_shape
from penstock.core.secret_urls import BLANK as BLANK
from penstock.core.secret_urls import by_url, has_url
from penstock.core.secret_urls import redacted_url as redacted_url
from penstock.core.secret_urls import split_credential as split_credential
from penstock.core.secret_values import blanked, learn_environment, learn_text, version
from penstock.core.secret_values import learn as learn
from penstock.core.secret_values import register as register

_SHORT = 64
"""Characters of a text that is remembered to have no secret in it."""
_MOST_CLEAN = 2_000
# Replaced as a whole when values change, so a thread that reads an old pair is never
# wrong.
_clean: tuple[int, set[str]] = (-1, set())
"""Short texts without a secret, and as of which version of the values that are known."""


def redacted(text: str) -> str:
    """A text without its credentials: the same where it has none.

    Names of fields, stages and units come a thousand times, so short texts without any are remembered, as
    long as no other values become known. A text with a URL teaches values, and is gone through each time.
    """
    global _clean
    learn_environment()
    # Taken before the work: a value learnt meanwhile makes the entry stale, not wrong.
    now, texts = version(), _clean
    if now != texts[0]:
        texts = _clean = (now, set())
    elif text in texts[1]:
        return text
    blanked = _redacted(text)
    # Only texts that came out unchanged: nothing secret is ever held here.
    if blanked == text and len(text) <= _SHORT and not has_url(text):
        # Emptied at once; the common texts are back after a few events.
        if len(texts[1]) >= _MOST_CLEAN:
            texts[1].clear()
        texts[1].add(text)
    return blanked


def _redacted(text: str) -> str:
    if has_url(text):
        if "@" in text or "=" in text:
            # a sentence may tell the same credential twice: in a URL, and bare
            learn_text(text, whole=False, in_passing=True)
        # URLs before other shapes, which would blank parts of one and leave it
        # unreadable.
        text = by_url(text)
    # Values last: they also find what no shape has recognised.
    return blanked(by_shape(text))


def redacted_output(text: str) -> str:
    """Redact a result as it is printed, by URLs and known values only: a column may be
    called `token`, so names decide nothing here.
    """
    learn_environment()
    return blanked(by_url(text))


def redacted_data(data: Any, *, by_name: bool = True) -> Any:
    """Plain data with every text in it redacted; what is no text, mapping or list is as it was.

    Args:
        by_name: what stands under a telling name is blanked, unless it is a plain word (a column's type).
    """
    if isinstance(data, str):
        return redacted(data)
    if isinstance(data, Mapping):
        return _redacted_mapping(data, by_name)
    if isinstance(data, list):
        return [redacted_data(item, by_name=by_name) for item in data]
    # A named tuple is left as it is: its constructor takes other arguments.
    if type(data) is tuple:
        return tuple(redacted_data(item, by_name=by_name) for item in data)
    return data


def _redacted_mapping(data: Mapping[Any, Any], by_name: bool) -> dict[Any, Any]:
    blanked: dict[Any, Any] = {}
    for name, value in data.items():
        key = redacted(name) if isinstance(name, str) else name
        if key in blanked:  # two keys may differ in their secrets alone, and none is lost
            key = next(
                other
                for i in range(2, len(data) + 2)
                if (other := f"{key} ({i})") not in blanked
            )
        # A schema's `password: string` is a type, not a secret, so plain words stay.
        hides = (
            by_name
            and isinstance(name, str)
            and isinstance(value, str)
            and is_secret_name(name)
            and not is_plain(value)
        )
        blanked[key] = BLANK if hides else redacted_data(value, by_name=by_name)
    return blanked


def redacted_words(words: Iterable[str]) -> list[str]:
    """A command line without its credentials."""
    given = [str(word) for word in words]
    # All words are learnt before any is shown, since any may quote what another
    # teaches.
    for word in given:
        learn(word)
    shown = [redacted(word) for word in given]
    for i, (word, after) in enumerate(pairwise(given), start=1):
        if (
            word.startswith("--")
            and word != "--secret"
            and "=" not in word
            and is_secret_name(word.lstrip("-"))
        ):
            register(after)
            shown[i] = BLANK
    return shown


def redacted_urls(data: Any) -> Any:
    """Plain data with the URLs in it redacted by their shape alone: for records that
    must not change with what this process knows.
    """
    if isinstance(data, str):
        return redacted_url(data)
    if isinstance(data, Mapping):
        return {key: redacted_urls(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [redacted_urls(item) for item in data]
    return data
