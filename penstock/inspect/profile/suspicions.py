"""What a text may hold that it should not: personal data, damage of encodings, markup, and stand-ins.

Each is a pattern of RE2 that Arrow matches over many texts at once; some are checked again one by one (the
check digits of cards and of bank accounts). Masking replaces what reaches a person, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.raw_column import MARKERS

_CARD = r"\b(?:\d{13,19}|\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,7}|\d{4}[ -]\d{6}[ -]\d{4,5})\b"
"""In one piece, or in groups as they are printed: other numbers side by side are none."""
_NETWORKS = re.compile(
    r"4(\d{12}|\d{15}|\d{18})|(5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(6011|64[4-9]\d|65\d\d)\d{12,15}|62\d{14,17}|35(2[89]|[3-8]\d)\d{12}|3(0[0-5]|[68]\d)\d{11}"
)
"""Numbers that card networks give, by their first digits and their length (ISO/IEC 7812)."""
_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"
_IBAN_LENGTHS = dict(
    pair.split(":")
    for pair in """
    AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22
    DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28
    IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27
    MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24
    SC:31 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20
    """.split()
)
"""By country, how many characters an account has (the registry of ISO 13616)."""
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812: the last digit is the check digit of the others."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(text: str) -> bool:
    numbers = (re.sub(r"[ -]", "", m[0]) for m in re.finditer(_CARD, text))
    # One digit over and over is none.
    return any(_NETWORKS.fullmatch(n) and len(set(n)) > 1 and _luhn(n) for n in numbers)


def _is_iban(text: str) -> bool:
    """ISO 13616: the number with its first four characters behind is 1 modulo 97."""
    for match in re.finditer(_IBAN, text):
        plain = match[0].replace(" ", "")
        if _IBAN_LENGTHS.get(plain[:2]) != str(len(plain)):
            continue
        moved = plain[4:] + plain[:4]
        if int("".join(str(int(c, 36)) for c in moved)) % 97 == 1:
            return True
    return False


PERSONAL: dict[str, tuple[str, str, Callable[[str], bool] | None]] = {
    "e-mail addresses": ("@", r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}", None),
    "telephone numbers": (
        "",
        r"(^|[^\w.])(\+[1-9]\d{0,3}[ ()/-][\d ()./-]{5,20}\d|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})($|\W)",
        None,
    ),
    "numbers of payment cards": ("", _CARD, _is_card),
    "bank accounts (IBAN)": ("", _IBAN, _is_iban),
    "IP addresses": (".", rf"(^|[^\w.]){_OCTET}(\.{_OCTET}){{3}}($|[^\w.])", None),
    "numbers of social security": ("-", r"(^|[^\w-])\d{3}-\d{2}-\d{4}($|[^\w-])", None),
}
"""By kind: what any such text has in it, the pattern, and a second check of a text that matches."""

DAMAGE = {
    "mojibake": "[ÃÂ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€|ï»¿|Ð[\u0080-\u00bf]Ð|\ufffd",
    "invisible": "[\ufeff\u200b\u200c\u200e\u200f\u2060\u00ad\u202a-\u202e]",
    "control": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    "markup": r"<(br|p|div|span|b|i|a|li|ul|td|tr|img|h[1-6])( [^>]*)?/?>|&(amp|nbsp|quot|lt|gt|#\d+);",
}
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DIGITS = r"\d{2}"
_BY_CHANCE = 0.5
"""The share of numbers whose check digits are right, below which they are so by chance."""
_PLACEHOLDER = r"\[[A-Z][A-Z_]{2,}\]"
_MARKED = pa.array(sorted(MARKERS))


def suspicions(words: pa.Array) -> dict[str, np.ndarray]:
    """Which of some different texts are what: booleans `[N]` by kind; kinds that none has are left out.

    Args:
        words: without nulls.
    """
    trimmed = pc.utf8_trim_whitespace(words)
    flags = {
        "blank": pc.equal(trimmed, ""),
        "padded": pc.and_(pc.not_equal(trimmed, words), pc.not_equal(trimmed, "")),
        "marker": pc.is_in(pc.utf8_lower(trimmed), _MARKED),
        "number": pc.match_substring_regex(trimmed, NUMBER),
    }
    flags["placeholders"] = pc.match_substring_regex(words, _PLACEHOLDER)
    for kind, pattern in DAMAGE.items():
        flags[kind] = pc.match_substring_regex(words, pattern)
    by_kind = {kind: np.asarray(each) for kind, each in flags.items()}
    by_kind |= _personal(words)
    return {kind: each for kind, each in by_kind.items() if each.any()}


def _personal(words: pa.Array) -> dict[str, np.ndarray]:
    by_kind: dict[str, np.ndarray] = {}
    # Most texts have neither two digits nor an @, and one cheap look rules them out.
    digits = np.asarray(pc.match_substring_regex(words, _DIGITS))
    for kind, (must, pattern, check) in PERSONAL.items():
        maybe = np.asarray(pc.match_substring(words, must)) if must == "@" else digits
        at = np.flatnonzero(maybe)
        if not len(at):
            continue
        some = words.take(pa.array(at))
        hit = np.array(pc.match_substring_regex(some, pattern))
        if check is not None and hit.any():
            good = [check(text) for text in some.filter(pa.array(hit)).to_pylist()]
            # Of plain numbers some pass by chance: then most others do not.
            hit[hit] = good if sum(good) >= _BY_CHANCE * len(good) else False
        flags = np.zeros(len(words), bool)
        flags[at[hit]] = True
        by_kind[kind] = flags
    return by_kind


def masked(text: str) -> str:
    """A text without what reaches a person."""
    for kind, (_, pattern, _) in PERSONAL.items():
        text = re.sub(pattern, f"[{kind}]", text)
    return text
