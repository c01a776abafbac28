"""Columns that name a person: left out, since a model needs no names to learn from, and must not leak them.

A column is judged by its name and by the shape of its values together, so that products and cities with
capital letters stay what they are.
"""

from __future__ import annotations

import re

from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import shown

_PERSON = re.compile(
    r"(^|[._\- ])(first|last|full|sur|given|family|middle|maiden|fore|person|customer|client|patient"
    r"|employee|user|author|owner|passenger|student|contact|host|guest|driver|seller|buyer|holder|applicant"
    r"|member|reviewer|actor|defendant)[._\- ]?name([._\- ]|$)|^(sur|fore|vor|nach)name$"
    r"|^(firstname|lastname|fullname|username|first|last)$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"^(name|names|person|passenger|patient|customer|employee|authors?|applicant)$",
    re.IGNORECASE,
)
_KINDS = (
    (
        "e-mail addresses",
        re.compile(r"e?[._\- ]?mail", re.IGNORECASE),
        re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}"),
    ),
    (
        "telephone numbers",
        re.compile(
            r"phone|mobile|\btel|fax|handy|cell[._\- ]?(no|num|phone)", re.IGNORECASE
        ),
        re.compile(r"\+?[\d(][\d\s()./x-]{5,22}\d"),
    ),
    (
        "telephone numbers",
        # With a country's code and a gap they need no name.
        re.compile(""),
        re.compile(r"\+[1-9]\d{0,3}[ ()/-][\d ()./-]{5,22}\d"),
    ),
    (
        "bank accounts (IBAN)",
        re.compile(r"iban|account|konto", re.IGNORECASE),
        re.compile(r"[A-Z]{2}\d{2} ?(?:[A-Z0-9]{2,4} ?){2,8}"),
    ),
    (
        "numbers of social security",
        re.compile(r"ssn|social|nino|passport|insurance[._\- ]?(no|num)", re.IGNORECASE),
        re.compile(r"\d{3}-?\d{2}-?\d{4}|[A-Z]{1,2}\d{6,8}[A-Z]?"),
    ),
)
# Shapes that need no name beside them.
_SURE = ("e-mail addresses",)
_SHAPE = re.compile(
    r"(?:[^\W\d_][\w'’.-]*,? ){0,5}(?:\"?\(?)[^\W\d_][\w'’.\-\")(]*", re.UNICODE
)
_TITLE = re.compile(
    r"(^|[\s,])(mr|mrs|ms|miss|dr|prof|sir|lady|herr|frau|mme|mlle|sr|sra)\b", re.I
)
_GIVEN = frozenset(
    "james mary john patricia robert jennifer michael linda william elizabeth david barbara richard susan"
    " joseph jessica thomas sarah charles karen christopher nancy daniel lisa matthew anthony mark sandra"
    " paul steven andrew emily joshua george kevin brian edward anna maria peter hans jan ali ahmed mohammed"
    " fatima wei li chen juan carlos jose luis sofia laura marco giulia pierre jean marie claire lars erik"
    " ivan olga yuki hiroshi priya raj amit jack henry emma olivia noah liam grace alice bob kate tom max"
    " paula julia martin stefan andreas thomas frank klaus ingrid astrid".split()
)
_SPACES = re.compile(r"[ -]")
_FEW = 5
"""Different values below which nothing is said: they are hardly persons."""


def personal(look: Look) -> Finding | None:
    """A column that names persons, as one that is left out; None where it does not."""
    if look.distinct < _FEW:
        return None
    if _cards(look):
        return _left_out(look, "numbers of payment cards", "")
    if not look.is_text:
        return None
    texts = [text for text in look.present if isinstance(text, str)][:2_000]
    for what, name, shape in _KINDS:
        fits = sum(bool(shape.fullmatch(text)) for text in texts) > 0.8 * len(texts)
        if fits and (what in _SURE or name.search(look.name)):
            return _left_out(look, what, texts[0])
    # A name that many rows share is a category, such as a doctor's.
    if look.distinct <= 50 and look.distinct <= 0.3 * look.filled:
        return None
    shaped = sum(bool(_SHAPE.fullmatch(text)) for text in texts) > 0.8 * len(texts)
    if not shaped or any(c.isdigit() for text in texts[:50] for c in text):
        return None
    # Of a field in an object, the object's name says more than its own: `applicant.name`.
    own = look.name.rsplit(".", 1)[-1]
    if _PERSON.search(look.name) or (_NAME.search(own) and _persons(texts)):
        return _left_out(look, "names of persons", texts[0])
    return None


def _cards(look: Look) -> bool:
    """Whether nearly all values are different numbers of 13 to 19 digits that end in their check digit."""
    if look.distinct < 0.5 * look.filled:
        return False
    values = list(look.present)[:500]
    digits = [_SPACES.sub("", str(value)) for value in values]
    good = sum(13 <= len(d) <= 19 and d.isdecimal() and _is_checked(d) for d in digits)
    # One in ten numbers ends so by chance.
    return good >= 0.9 * len(digits)


def _is_checked(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812, Luhn)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _persons(texts: list[str]) -> bool:
    """Whether many have a title, or a given name that is common."""
    titled = sum(bool(_TITLE.search(text)) for text in texts)
    given = sum(not _GIVEN.isdisjoint(re.split(r"[\s,.-]+", t.lower())) for t in texts)
    return max(titled, given) >= 0.2 * len(texts)


def _left_out(look: Look, what: str, example: str) -> Finding:
    such_as = f", such as {shown(_masked(example))}" if example else ""
    return Finding(
        look.name,
        None,
        f"{what}{such_as}: personal, and a model that learns them does not serve others",
        role="personal",
    )


def _masked(text: str) -> str:
    """The first letter of each word: a recipe is no place for a person's name."""
    return re.sub(r"(\w)\w+", r"\1…", text)
