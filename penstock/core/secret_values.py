"""Secrets by their value: what this process was given, blanked wherever it turns up, in whatever spelling.

A value is registered once, in every form in which other programs write it: percent-encoded, escaped as JSON
or Python do, in base64 (within a longer one, too) and hexadecimal. A text is then gone through once, however
many values there are: each of its positions is asked whether any form begins there, by its first four
characters; where one does, the longest that fits is taken. What overlaps is blanked together. Where a text
has lines, a value that was broken over them is found as well.

What the user gave (environment, recipe, options) is kept; what was only seen in passing, in a sentence, is
kept apart, so that texts from elsewhere push none of it out.

What this file refuses to know: where texts come from and go to.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import os
import re
import shlex
import threading
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from penstock.core.secret_names import is_ordinary, is_secret_name, is_secret_variable
from penstock.core.secret_shapes import parameters_in
from penstock.core.secret_urls import BLANK, credentials_in, has_url, keeps_user

_HEAD = 4
"""Characters by which a text is searched. A shorter value is blanked by its shape alone."""
_SUBSTRING = 8
"""A value of so many characters is blanked inside other words, too."""
_LINE = 16
"""A line of so many characters, of a value of several, is a value of its own."""
_MOST_GIVEN, _MOST_SEEN = 10_000, 500
"""Values that are kept; beyond, the oldest is forgotten."""
_BREAK = re.compile(r"""["']?\\?[ \t]*\r?\n[ \t|>#]*["']?""")
"""How a long value is broken over lines: wrapped, indented, in strings side by side, with a backslash."""
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
"""Variables of the environment that are the folder a shell is in."""
_LOOK_SECONDS = 1.0
"""How long the environment counts as known."""

# -- spellings -----------------------------------------------------------------------------------------------


def _spellings(value: str) -> Iterator[str]:
    """A value as other programs write it: in a URL, in JSON, in a repr, in HTML, in a shell, in YAML."""
    # Two programs may compose accents differently, so both normal forms are searched.
    for form in {
        value,
        unicodedata.normalize("NFC", value),
        unicodedata.normalize("NFD", value),
    }:
        yield form
        if form.isascii() and form.isalnum():
            continue  # all of what follows writes it as it is
        content = form.encode("utf-8", "surrogatepass")
        # Programs disagree about which marks to encode: all, all but `/`, forms of the
        # web, URLs' user part.
        for encoded in (
            quote(content, safe=""),
            quote(content),
            quote_plus(content),
            quote(content, safe="!$&'()*+,;=:~@"),
        ):
            yield encoded
            # Some write hexadecimal digits in lower case.
            yield re.sub(r"%[0-9A-F]{2}", lambda hit: hit[0].lower(), encoded)
            # Encoded twice: a URL within a URL's query.
            yield quote(encoded, safe="")
        yield json.dumps(form)[1:-1]
        yield json.dumps(json.dumps(form)[1:-1])[1:-1]
        yield json.dumps(form)[1:-1].replace("/", "\\/")
        yield json.dumps(form, ensure_ascii=False)[1:-1]
        yield repr(form)[1:-1]
        yield repr(content)[2:-1]
        yield html.escape(form)
        yield html.escape(form, quote=False)
        yield shlex.quote(form).strip("'")
        # SQL and YAML double a single quote.
        yield form.replace("'", "''")


def _encodings(value: str) -> Iterator[str]:
    """A value as bytes are written: base64, whole or within a longer one, and hexadecimal; those that are
    long enough to tell.
    """
    content = value.encode("utf-8", "surrogatepass")
    # where it begins within a group of three bytes; what depends on its neighbours is left out
    for at in range(3):
        # `at` foreign bytes before it, as if it began there within a longer text.
        whole = base64.b64encode(b"\0" * at + content).decode()
        # Those bytes reach into the first 2 or 3 characters, which cannot be searched
        # for.
        whole = whole[(0, 2, 3)[at] :]
        unpadded = whole.rstrip("=")
        # Before padding, the last character depends on what follows in a longer text.
        cut = unpadded if len(unpadded) == len(whole) else unpadded[:-1]
        # A text may be this value alone, which is then blanked to its last character.
        for form in (cut, unpadded) if at == 0 else (cut,):
            if len(form) >= _SUBSTRING:
                yield form
                yield form.replace("+", "-").replace("/", "_")
                yield quote(form, safe="")
    if len(content) >= _SUBSTRING // 2:
        yield content.hex()
        yield content.hex().upper()


def _forms(value: str) -> dict[str, bool]:
    """Every form of a value that is blanked: True where only as a word of its own.

    An ordinary word, or a very short one, is one no longer where it is percent-encoded or escaped.
    """
    # Blanking a word such as `train` everywhere would leave no sentence readable.
    common = len(value) < _HEAD or is_ordinary(value)
    # Short values and numbers occur inside others by chance, so they count only as
    # whole words.
    alone = len(value) < _SUBSTRING or value.isdigit()
    forms = {
        form: alone
        # An escaped form that grew is no ordinary word any more, and is searched for.
        for form in _spellings(value)
        if not common or (form != value and len(form) > len(value) + 1)
    }
    if not common:
        forms |= dict.fromkeys(_encodings(value), False)
        # A key in PEM is often printed line by line; its `-----BEGIN` lines are no
        # secret.
        if "\n" in value:
            for line in map(str.strip, value.splitlines()):
                if len(line) >= _LINE and not line.startswith("---"):
                    forms |= dict.fromkeys([*_spellings(line), *_encodings(line)], False)
    # Four characters are the index: a shorter form could not be found.
    return {form: only for form, only in forms.items() if len(form) >= _HEAD}


_versions = itertools.count()

# -- finding -------------------------------------------------------------------------------------------------


class Values:
    """Values and their forms, and where they stand in a text. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.version = next(_versions)
        """Another whenever a value is added or forgotten, and in no two of this process the same."""
        self._given: dict[str, dict[str, bool]] = {}
        self._seen: dict[str, dict[str, bool]] = {}
        self._uses: dict[str, int] = {}
        """How many values have a form."""
        self._alone: dict[str, bool] = {}
        self._heads: dict[str, dict[int, int]] = {}
        """By the first characters of forms: how many forms there are of each length, longest first."""

    def has(self, value: str, *, in_passing: bool) -> bool:
        """Whether adding it would change nothing."""
        return value in self._given or (in_passing and value in self._seen)

    def add(self, value: str, forms: Mapping[str, bool], *, in_passing: bool) -> None:
        """Blank the forms of a value from now on."""
        with self._lock:
            if self.has(value, in_passing=in_passing):
                return
            # Kept apart, so that a thousand quoted URLs cannot push out what the user
            # gave.
            values, most = (
                (self._seen, _MOST_SEEN) if in_passing else (self._given, _MOST_GIVEN)
            )
            if len(values) >= most:
                # Dictionaries keep their order, so the first key is the oldest.
                self._forget(values.pop(next(iter(values))))
            values[value] = dict(forms)
            for form, alone in forms.items():
                self._enter(form, alone)
            self.version = next(_versions)

    def _enter(self, form: str, alone: bool) -> None:
        self._uses[form] = self._uses.get(form, 0) + 1
        # One owner that wants it blanked inside words decides for all.
        self._alone[form] = self._alone.get(form, True) and alone
        # Its length enters the index once, however many values share the form.
        if self._uses[form] == 1:
            head = form[:_HEAD]
            lengths = {**self._heads.get(head, {})}
            lengths[len(form)] = lengths.get(len(form), 0) + 1
            # Longest first: a value within a longer one must not leave the rest of it
            # readable.
            self._heads[head] = dict(sorted(lengths.items(), reverse=True))

    def _forget(self, forms: Iterable[str]) -> None:
        for form in forms:
            self._uses[form] -= 1
            # Another value still has this form.
            if self._uses[form]:
                continue
            del self._uses[form], self._alone[form]
            head = form[:_HEAD]
            lengths = {**self._heads[head]}
            lengths[len(form)] -= 1
            if not lengths[len(form)]:
                del lengths[len(form)]
            if lengths:
                self._heads[head] = lengths
            else:
                del self._heads[head]

    def blanked(self, text: str) -> str:
        """A text without any value that is known."""
        # The usual case, and without the lock.
        if not self._heads:
            return text
        with self._lock:
            spans = list(self._spans(text))
            # The second pass costs a joined copy of the text, so only texts with lines
            # pay.
            if "\n" in text:
                spans = sorted([*spans, *self._broken(text)])
        return _without(text, spans) if spans else text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where forms stand, in order of their beginnings: the longest at each."""
        heads, alone = self._heads, self._alone
        # One look-up a position, whatever the number of values; the rest runs only at
        # candidates.
        begins = [
            at for at in range(len(text) - _HEAD + 1) if text[at : at + _HEAD] in heads
        ]
        for at in begins:
            for length in heads[text[at : at + _HEAD]]:
                # A slice cut off by the end of the text may be another form; the bound
                # below rules it out.
                only = alone.get(text[at : at + length])
                if (
                    only is not None
                    and at + length <= len(text)
                    and (not only or _is_alone(text, at, at + length))
                ):
                    yield at, at + length
                    break

    def _broken(self, text: str) -> Iterator[tuple[int, int]]:
        """Where forms stand that are broken over lines."""
        # `starts[i]`: where piece i begins in the joined text; `offsets[i]`: what leads
        # from there back into `text`.
        joined, starts, offsets, at = [], [0], [0], 0
        for hit in _BREAK.finditer(text):
            joined.append(text[at : hit.start()])
            at = hit.end()
            starts.append(starts[-1] + len(joined[-1]))
            offsets.append(at - starts[-1])
        joined.append(text[at:])
        for start, end in self._spans("".join(joined)):
            first, last = (
                bisect_right(starts, start) - 1,
                bisect_right(starts, end - 1) - 1,
            )
            # Within one piece `_spans` has found it already; a short one over a break
            # is chance.
            if first != last and end - start >= _SUBSTRING:
                yield start + offsets[first], end + offsets[last]


def _is_alone(text: str, start: int, end: int) -> bool:
    """Whether a hit is a word of its own."""
    before, first, last, after = (
        text[start - 1 : start],
        text[start],
        text[end - 1],
        text[end : end + 1],
    )
    # A mark at the value's own edge ends a word, so only letter beside letter
    # disqualifies.
    return not (_is_letter(before) and _is_letter(first)) and not (
        _is_letter(last) and _is_letter(after)
    )


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text with spans blanked, those that overlap together."""
    parts, at, i = [], 0, 0
    while i < len(spans):
        start, end = spans[i]
        last = end
        # What overlaps becomes one blank: two would show where the values meet.
        while i + 1 < len(spans) and spans[i + 1][0] < end:
            i += 1
            if spans[i][1] > end:
                end = last = spans[i][1]
        # A form `user:password@` ends in the `@` that makes the rest readable as a URL.
        sign = "@" if text[last - 1] == "@" and ":" in text[start:last] else ""
        parts += [text[at:start], BLANK, sign]
        at, i = end, i + 1
    return "".join([*parts, text[at:]])


# -- learning ------------------------------------------------------------------------------------------------

_values = Values()
_environment_seen = float("-inf")


def blanked(text: str) -> str:
    """A text without any value that this process was given or has seen."""
    return _values.blanked(text)


def version() -> int:
    """Another whenever more or other values are known than before."""
    return _values.version


def register(value: str, *, in_passing: bool = False) -> None:
    """Blank this value from now on, wherever it turns up.

    One that is an ordinary word or very short is left to its shape.

    Args:
        in_passing: it was seen in a sentence, not given by the user.
    """
    # Variables of the environment and options often end in a line break.
    value = value.strip()
    if value and value != BLANK and not _values.has(value, in_passing=in_passing):
        _values.add(value, _forms(value), in_passing=in_passing)


def learn(data: Any) -> None:
    """Remember every credential in plain data (a recipe, an option's value, a URL), so that it is blanked by
    its value, too.
    """
    if isinstance(data, str):
        learn_text(data)
    elif isinstance(data, Mapping):
        for name, value in data.items():
            if isinstance(name, str):
                learn_text(name)
                if is_secret_name(name):
                    _register_all(value)
            learn(value)
    elif isinstance(data, (list, tuple)):
        for item in data:
            learn(item)


def _register_all(value: Any) -> None:
    """What stands under a telling name: a text, or texts in a list."""
    if isinstance(value, str):
        register(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _register_all(item)


def learn_text(text: str, *, whole: bool = True, in_passing: bool = False) -> None:
    """Remember the credentials of a text's URLs and parameters.

    Args:
        whole: the text may be a URL and nothing else; a sentence is none.
        in_passing: see `register`.
    """
    if has_url(text):
        for user, password in credentials_in(text, whole=whole):
            _learn_userinfo(user, password, in_passing)
    if "=" in text:
        for value in parameters_in(text):
            # Errors quote the value as it was sent or as it was decoded.
            for form in {value, unquote(value), unquote_plus(value)}:
                register(form, in_passing=in_passing)


def _learn_userinfo(user: str, password: str | None, in_passing: bool) -> None:
    # A user that looks like a person's name is kept, and so must not be learnt.
    for value in (password, None if keeps_user(user, password) else user):
        for form in {value, unquote(value)} if value else ():
            register(form, in_passing=in_passing)
    if password and password != BLANK:
        # Told without its scheme, and as the header that HTTP clients make of it; however common the word.
        plain = f"{unquote(user)}:{unquote(password)}"
        encoded = {
            # Clients encode it as UTF-8 or, as older ones do, as Latin-1.
            plain.encode("utf-8", "surrogatepass"),
            plain.encode("latin-1", "replace"),
        }
        basic = [base64.b64encode(one).decode() for one in encoded]
        forms = (
            f"{user}:{password}@",
            f"{plain}@",
            quote(f"{plain}@".encode("utf-8", "surrogatepass"), safe=""),
            *basic,
        )
        # Directly, past `_forms`: with its user and `@` even a common password is
        # unmistakable.
        _values.add(
            f"{plain}@",
            {form: False for form in forms if len(form) >= _HEAD},
            in_passing=in_passing,
        )


def learn_environment() -> None:
    """Secrets that this process was given by its environment, which errors of other packages may quote."""
    global _environment_seen
    now = time.monotonic()
    # Errors come in bursts; going through the environment for each would be felt.
    if now < _environment_seen:
        return
    _environment_seen = now + _LOOK_SECONDS
    for name, value in list(os.environ.items()):
        if name not in _NO_SECRETS and is_secret_variable(name):
            register(value)
        # URLs, and connection strings such as `AccountName=…;AccountKey=…`.
        if "://" in value or ("=" in value and ";" in value):
            learn_text(value, whole=" " not in value)
