"""The texts that stand beside numbers: currencies, units, and letters that multiply."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

_CURRENCY = re.compile(
    r"[$€£¥₹₽₩₺₪฿₫₴₦₱]|(?:US|AU|A|CA|C|NZ|HK|S|R|NT|MX)\$|R[sS]\.?|[kK]r\.?|zł|Kč|Ft|lei|лв\.?|руб\.?"
    r"|(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|SEK|NOK|DKK|PLN|CZK|HUF|CAD|AUD|NZD|BRL|MXN|RUB|TRY|ZAR|KRW"
    r"|SGD|HKD|ILS|THB)"
)
_SCALES = {
    **dict.fromkeys(("k", "K", "thousand", "Tsd."), 1e3),
    **dict.fromkeys(("M", "mn", "Mn", "MM", "mio", "Mio", "Mio.", "million"), 1e6),
    **dict.fromkeys(("B", "bn", "Bn", "mrd", "Mrd", "Mrd.", "billion"), 1e9),
    **dict.fromkeys(("lakh", "Lakh", "Lac"), 1e5),
    **dict.fromkeys(("Cr", "crore", "Crore"), 1e7),
    **dict.fromkeys(("trillion",), 1e12),
}
_BESIDE_MONEY = {**_SCALES, "m": 1e6, "mm": 1e6, "mln": 1e6, "b": 1e9, "tn": 1e12}
"""What multiplies an amount of money; elsewhere some of these letters are metres, millimetres and bytes."""
_RUPEES = frozenset({"₹", "Rs", "Rs.", "RS", "RS.", "INR"})
_DAY = 86_400.0
_SAME = (
    {
        **dict.fromkeys(("mg",), 1e-6),
        **dict.fromkeys(("g", "gr", "gram"), 1e-3),
        **dict.fromkeys(("kg", "kilo"), 1.0),
        **dict.fromkeys(("t", "tonnes"), 1e3),
    },
    {
        **dict.fromkeys(("lb", "pound"), 1.0),
        **dict.fromkeys(("oz", "ounce"), 0.0625),
    },
    {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3},
    {
        **dict.fromkeys(("second", "sec", "s"), 1.0),
        **dict.fromkeys(("minute", "min"), 60.0),
        **dict.fromkeys(("hour", "hr", "h"), 3_600.0),
        **dict.fromkeys(("day", "d"), _DAY),
        **dict.fromkeys(("week", "wk"), 7 * _DAY),
        **dict.fromkeys(("month", "mo"), 30.4375 * _DAY),
        **dict.fromkeys(("year", "yr"), 365.25 * _DAY),
    },
    {"kb": 1e-3, "mb": 1.0, "gb": 1e3, "tb": 1e6},
    {"ml": 1e-3, "cl": 1e-2, "l": 1.0},
)
"""Units of one sort, each as a multiple of one of them; in small letters, without a plural or a full stop."""
_ALONE = frozenset(
    "% ‰ ° °C °F ℃ C F K mi ft in ft. in. yd mph km/h kmh m/s kmpl km/kg kW kWh hp bhp PS V W A Hz GHz MHz"
    " kHz bar psi Pa hPa kPa mbar m² m2 sqft sqm sq.ft km² ha ac cc CC rpm px dB ppm ppb pct pp kcal kJ cal"
    " mmHg µg ng nm µm L/min mg/dl mg/dL mmol/l bpm".split()
)
_OUT_OF = re.compile(r"/ ?[0-9]{1,3}")
"""Of `4.1/5`."""
_MOST = 8
_NEARLY_ALL = 0.98
_SLIP = 0.005
"""The share of the rows below which an affix is a slip."""
_WORD = re.compile(r"[^\W\d_A-Z]{2,15}")


def known_units(
    affixes: Mapping[str, int], *, before: Set[str], attached: Set[str], rows: int
) -> dict[str, float] | None:
    """What the affixes multiply by, the commonest first; None where they are no units: codes and names.

    Args:
        affixes: rows by the text beside their digits.
        before: those that stand before the digits.
        attached: those that stand behind them without a space between.
        rows: of the column, those without an affix among them.
    """
    # What is there in few rows is a slip, which the feature refuses.
    often = sorted(
        (a for a, n in affixes.items() if n >= max(_SLIP * rows, 1)),
        key=lambda a: (-affixes[a], a),
    )
    if not often:
        return {}
    money = [a for a in often if _CURRENCY.fullmatch(a)]
    # What is not money stands behind: `Room 12` is a name.
    rest = [a for a in often if a not in money and a not in before]
    if len(often) > _MOST:
        rest = [a for a in rest if affixes[a] >= 0.02 * rows]
    if len(money) + len(rest) > 2 * _MOST or before - set(money) - _slips(affixes, rows):
        return None
    # Amounts in several currencies are not to be compared.
    if len({_SYMBOLS.get(a.upper(), a.upper()) for a in money}) > 1:
        return None
    # Marks out of five stand in every row: `3/5` beside `512` is a code.
    if any(_OUT_OF.fullmatch(a) and affixes[a] < _NEARLY_ALL * rows for a in rest):
        return None
    factors = _money_factors(rest, money) if money else _factors(rest, set(attached))
    if factors is None:
        return None
    return {a: factors.get(a, 1.0) for a in often if a in factors or a in money}


_QUANTITY = re.compile(r"[-+]?\d+(?:[.,]\d+)? ?(?P<unit>[^\d\s.,+-][^\d\s]{0,5})")


def incomparable(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """Two quantities in units that no factor turns into each other, such as `5 ft` and `1.50 m`; None where
    there are none.

    Args:
        counts: rows by text.
    """
    known = {*_ALONE, *(unit for sort in _SAME for unit in sort)}
    rows: dict[str, int] = {}
    first: dict[str, str] = {}
    for text, count in counts.items():
        match = _QUANTITY.fullmatch(text)
        unit = match["unit"] if match else ""
        if unit in known or _singular(unit) in known:
            name = _singular(unit)
            rows[name] = rows.get(name, 0) + count
            first.setdefault(name, text)
    total = sum(counts.values())
    often = sorted((u for u in rows if rows[u] >= 0.02 * total), key=lambda u: -rows[u])
    if len(often) < 2 or sum(rows.values()) < 0.9 * total:
        return None
    if any(all(unit in sort for unit in often) for sort in _SAME):
        return None
    return first[often[0]], first[often[1]]


def _slips(affixes: Mapping[str, int], rows: int) -> set[str]:
    return {a for a, n in affixes.items() if n < 0.02 * rows}


_SYMBOLS = {
    "€": "EUR",
    "$": "USD",
    "US$": "USD",
    "£": "GBP",
    "₹": "INR",
    "RS": "INR",
    "RS.": "INR",
    "KR.": "KR",
    "¥": "JPY",
}


def _money_factors(units: list[str], money: list[str]) -> dict[str, float] | None:
    """By what stands beside money: its factor; None where it is none, such as `$3 d`."""
    lakh = {"L": 1e5} if _RUPEES.intersection(money) else {}
    scales = {**_BESIDE_MONEY, **lakh}
    return {u: scales[u] for u in units} if all(u in scales for u in units) else None


def _singular(unit: str) -> str:
    """`oz.`, `Pounds` and `KG` as the tables have them."""
    name = unit.lower().rstrip(".")
    return name[:-1] if len(name) > 2 and name.endswith("s") else name


def _factors(units: list[str], attached: Set[str]) -> dict[str, float] | None:
    """By unit: its factor; None where they are none, or cannot be compared."""
    if not units:
        return {}
    if all(u in _SCALES for u in units):
        return {u: _SCALES[u] for u in units}
    names = {u: _singular(u) for u in units}
    for sort in _SAME:
        if all(name in sort for name in names.values()):
            # The commonest is what the numbers are in.
            first = sort[names[units[0]]]
            return {u: float(f"{sort[name] / first:.12g}") for u, name in names.items()}
    singular = set(names.values())
    if len(singular) > 1:
        return None
    unit = units[0]
    if (
        _OUT_OF.fullmatch(unit)
        or unit in _ALONE
        or unit.lower() in {u.lower() for u in _ALONE}
    ):
        return dict.fromkeys(units, 1.0)
    # Any word behind a space: `3 rooms`. Without one it may be a code: `12A`, `3rd`.
    if not attached & set(units) and _WORD.fullmatch(unit):
        return dict.fromkeys(units, 1.0)
    return None
