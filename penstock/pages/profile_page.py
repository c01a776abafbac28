"""A profile as a page: figures, findings with what to write in the recipe, and a card a column."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.pages.charts import histogram, ranked
from penstock.pages.markup import Markup, join, page, tag
from penstock.pages.style import STYLE

_SHOWN = 30
"""Findings that stand open; the others are a click away."""
_TOP = 8
_THOUSANDS, _LARGE = 1e4, 1e12
_YEARS = (1800, 2200)
_MOST_COLUMNS = 400
"""Cards of one page; the JSON has all columns."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def profile_page(facts: Mapping[str, Any]) -> str:
    """A whole page that needs nothing beside it.

    Args:
        facts: `Profile.to_dict()`.
    """
    columns = facts["columns"]
    places = {column["name"]: f"c{i}" for i, column in enumerate(columns)}
    worst: dict[str, Counter[str]] = {}
    for finding in facts["findings"]:
        worst.setdefault(finding["column"], Counter())[finding["severity"]] += 1
    shown = columns[:_MOST_COLUMNS]
    cards = [
        _card(
            column,
            places[column["name"]],
            worst.get(column["name"], Counter()),
            facts["target"],
        )
        for column in shown
    ]
    more = len(columns) - len(shown)
    body = tag(
        "main",
        tag("h1", facts["source"]),
        tag("p", _lead(facts), class_="lead"),
        _tiles(facts),
        tag("h2", "What to mind"),
        _findings(facts["findings"], places),
        tag("h2", "Columns"),
        tag("div", *cards, class_="columns"),
        tag("p", f"and {more:,} more columns: the JSON has them")
        if more > 0
        else Markup(),
        tag("footer", _footer(facts)),
    )
    return page(f"Profile of {facts['source']}", STYLE, body)


def _lead(facts: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{split} {rows:,}" for split, rows in facts["splits"].items())
    target = f"Target: {facts['target']}. " if facts["target"] else ""
    divided = f"Splits: {splits}. " if splits else ""
    return f"{target}{divided}".strip() or "No target was named."


def _footer(facts: Mapping[str, Any]) -> str:
    return (
        f"Counts, ends and histograms are of all {facts['rows']:,} rows. Quantiles, correlations and what"
        f" gives the target away are of {facts['looked_at']:,} rows drawn over them. Private"
        " values are not shown."
    )


def _tiles(facts: Mapping[str, Any]) -> Markup:
    columns = facts["columns"]
    cells = sum(column["rows"] for column in columns) or 1
    gone = sum(column["missing"] for column in columns) / cells
    counts = Counter(finding["severity"] for finding in facts["findings"])
    tiles = [
        ("", f"{facts['rows']:,}", "rows"),
        ("", f"{len(columns):,}", "columns"),
        ("", f"{gone:.1%}", "of the cells missing"),
        ("error" if counts["error"] else "good", f"{counts['error']:,}", "to mend"),
        (
            "warning" if counts["warning"] else "good",
            f"{counts['warning']:,}",
            "to look at",
        ),
        ("note", f"{counts['note']:,}", "to know"),
    ]
    if facts["rejected"]:
        tiles.insert(
            1, ("error", f"{facts['rejected']:,}", "rows that could not be read")
        )
    return tag(
        "div",
        *(
            tag("div", tag("b", n), tag("span", what), class_=f"tile {kind}")
            for kind, n, what in tiles
        ),
        class_="tiles",
    )


def _findings(findings: Sequence[Mapping[str, Any]], places: Mapping[str, str]) -> Markup:
    if not findings:
        return tag("p", "Nothing to mind was found.")
    items = [_finding(finding, places) for finding in findings]
    shown = tag("ul", *items[:_SHOWN], class_="findings")
    if len(items) <= _SHOWN:
        return shown
    rest = tag("ul", *items[_SHOWN:], class_="findings")
    more = tag("summary", f"{len(items) - _SHOWN:,} more")
    return join(shown, tag("details", more, rest, class_="more"))


def _finding(finding: Mapping[str, Any], places: Mapping[str, str]) -> Markup:
    name = finding["column"]
    place = places.get(name)
    column: Markup = Markup()
    if name:
        column = tag("a", name, href=f"#{place}") if place else tag("b", name)
    parts = [
        tag("span", finding["kind"], class_="kind"),
        column,
        tag("p", finding["sentence"]),
    ]
    if finding["recipe"]:
        parts.append(tag("code", finding["recipe"]))
    return tag("li", *parts, class_=f"finding {finding['severity']}")


def _card(
    column: Mapping[str, Any], place: str, severities: Counter[str], target: str | None
) -> Markup:
    chips = [tag("span", column["type"], class_="chip")]
    if column["name"] == target:
        chips.insert(0, tag("span", "target", class_="chip target"))
    if column["feature"]:
        chips.append(tag("span", column["feature"], class_="chip"))
    else:
        chips.append(tag("span", "left out", class_="chip"))
    for severity in ("error", "warning"):
        if severities[severity]:
            word = severity if severities[severity] == 1 else f"{severity}s"
            chips.append(
                tag("span", f"{severities[severity]} {word}", class_=f"chip {severity}")
            )
    return tag(
        "article",
        tag("h3", column["name"]),
        tag("div", *chips, class_="chips"),
        _gone(column),
        _chart(column),
        _figures(column),
        class_="column",
        id=place,
    )


def _gone(column: Mapping[str, Any]) -> Markup:
    share = column["missing"] / max(column["rows"], 1)
    if not share:
        return Markup()
    bar = tag("i", style=f"width:{max(1.0, 100 * share):.1f}%")
    return tag("div", bar, class_="gone", title=f"{column['missing']:,} rows missing")


def _chart(column: Mapping[str, Any]) -> Markup:
    if column["private"]:
        return tag("p", "Values are private and not shown.", class_="lead")
    there = column["rows"] - column["missing"]
    if counts := column.get("histogram"):
        edges = counts["edges"]
        labels = [_value(edges[0], column), _value(edges[-1], column)]
        return histogram(
            edges,
            counts["rows"],
            below=counts["below"],
            above=counts["above"],
            labels=labels,
        )
    for word in ("top", "sizes"):
        values = [(str(text), n) for text, n in column.get(word, [])[:_TOP]]
        common = sum(n for _, n in values)
        # Of texts that hardly recur their lengths say more.
        if values and (word == "sizes" or common > 0.02 * there):
            return ranked(values, rows=column["rows"], others=max(0, there - common))
    length = column.get("length", {})
    bins = length.get("bins", [])
    # All of one length: there is nothing to draw.
    if bins and length["min"] < length["max"]:
        edges = [bins[0][0], *(high for _, high, _ in bins)]
        last = column["length"]["max"]
        return histogram(
            [min(edge, last + 1) for edge in edges],
            [n for _, _, n in bins],
            labels=[f"{column['length']['min']} characters", f"{last:,}"],
        )
    return Markup()


def _figures(column: Mapping[str, Any]) -> Markup:
    pairs: list[tuple[str, str]] = []
    if column["missing"]:
        share = column["missing"] / max(column["rows"], 1)
        pairs.append(("missing", f"{column['missing']:,} ({share:.1%})"))
    if "distinct" in column:
        about = "" if column["distinct_exact"] else "about "
        pairs.append(("distinct", f"{about}{column['distinct']:,}"))
    if not column["private"]:
        pairs += _own_figures(column)
    return tag(
        "dl",
        *(cell for word, text in pairs for cell in (tag("dt", word), tag("dd", text))),
    )


def _own_figures(column: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for word in ("min", "mean", "max"):
        if column.get(word) is not None:
            pairs.append((word, _value(column[word], column)))
    if (
        column["measured_as"] == "number"
        and "std" in column
        and column["std"] is not None
    ):
        pairs.append(("deviation", _spread(column["std"])))
    if quantiles := column.get("quantiles"):
        middle = [_value(quantiles[q], column) for q in ("0.25", "0.5", "0.75")]
        pairs.append(("quartiles", " · ".join(middle)))
    if "length" in column:
        length = column["length"]
        pairs.append(
            (
                "characters: least · mean · most",
                f"{length['min']} · {length['mean']:.4g} · {length['max']:,}",
            )
        )
    if "items" in column:
        items = column["items"]
        pairs.append(
            (
                "items: least · mean · most",
                f"{items['min']} · {items['mean']:.4g} · {items['max']:,}",
            )
        )
    if "channels" in column:
        pairs.append(
            ("modes", ", ".join(f"{m} {n:,}" for m, n in column["channels"].items()))
        )
    if step := column.get("order", {}).get("step_seconds"):
        pairs.append(("step", f"{step:,.6g} s"))
    return pairs


def _spread(deviation: float) -> str:
    four = float(f"{deviation:.4g}")
    return f"{four:,.0f}" if _THOUSANDS <= four < _LARGE else f"{four:.4g}"


def _value(value: float, column: Mapping[str, Any]) -> str:
    if column["measured_as"] == "moment":
        try:
            moment = _EPOCH + timedelta(microseconds=value)
        except OverflowError:
            return f"{value:.4g}"
        return (
            f"{moment:%Y-%m-%d %H:%M}"
            if moment.hour or moment.minute
            else f"{moment:%Y-%m-%d}"
        )
    if not math.isfinite(value) or abs(value) >= _LARGE:
        return f"{value:.5g}"
    if _are_years(column) and value == int(value):
        return f"{value:.0f}"
    # Thousands are read with commas, not with exponents.
    five = float(f"{value:.5g}")
    if value == int(value) or abs(five) >= _THOUSANDS:
        return f"{value if value == int(value) else five:,.0f}"
    return f"{five:,.5g}"


def _are_years(column: Mapping[str, Any]) -> bool:
    low, high = column.get("min"), column.get("max")
    if low is None or high is None or not column.get("whole"):
        return False
    return bool(_YEARS[0] <= low <= high <= _YEARS[1])
