"""Charts as inline SVG: histograms and bars, coloured by the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from penstock.pages.markup import Markup, tag

_WIDTH, _HEIGHT = 300, 84
_GAP = 1.5


def histogram(
    edges: Sequence[float],
    rows: Sequence[int],
    *,
    below: int = 0,
    above: int = 0,
    labels: Sequence[str],
) -> Markup:
    """Rows in each bin, and beside them, in another colour, those outside of all bins.

    Args:
        edges: of the bins, ascending `[n + 1]`; they are named in the bars' titles.
        rows: in each `[n]`.
        below: rows below the first edge.
        above: rows above the last.
        labels: what stands below at the left and at the right.
    """
    names = [f"{_figure(a)} to {_figure(b)}" for a, b in pairwise(edges)]
    bins = [(n, name, "bar") for n, name in zip(rows, names, strict=True)]
    if below:
        bins.insert(0, (below, f"below {_figure(edges[0])}", "bar far"))
    if above:
        bins.append((above, f"above {_figure(edges[-1])}", "bar far"))
    return _columns(bins, labels)


def _columns(bins: Sequence[tuple[int, str, str]], labels: Sequence[str]) -> Markup:
    most = max((n for n, _, _ in bins), default=0) or 1
    step = _WIDTH / max(len(bins), 1)
    bars = []
    for i, (n, name, kind) in enumerate(bins):
        # A bin with a single row among millions still shows.
        height = max(1.5, n / most * (_HEIGHT - 2)) if n else 0
        bars.append(
            tag(
                "rect",
                tag("title", f"{name}: {n:,} rows"),
                class_=kind,
                x=f"{i * step:.2f}",
                y=f"{_HEIGHT - height:.2f}",
                width=f"{max(step - _GAP, 0.5):.2f}",
                height=f"{height:.2f}",
                rx="1",
            )
        )
    svg = tag(
        "svg",
        tag("line", class_="axis", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT),
        *bars,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + 1}",
        role="img",
        aria_label=f"histogram, {labels[0]} to {labels[1]}",
        preserveAspectRatio="none",
        class_="histogram",
    )
    ends = tag("div", *(tag("span", text) for text in labels), class_="ends")
    return tag("figure", svg, ends)


def ranked(values: Sequence[tuple[str, int]], *, rows: int, others: int = 0) -> Markup:
    """The commonest texts with a bar each.

    Args:
        values: texts and their rows, the commonest first.
        rows: of the whole, for the shares.
        others: rows with any other text.
    """
    most = max([n for _, n in values] + [others, 1])
    lines = [_line(text, n, most, rows, "") for text, n in values]
    if others:
        lines.append(_line("others", others, most, rows, " rest"))
    return tag("div", *lines, class_="ranked")


def _line(text: str, n: int, most: int, rows: int, kind: str) -> Markup:
    width = max(0.5, 100 * n / most)
    share = n / max(rows, 1)
    # An empty text would leave a bar without a name.
    name = text if text.strip() else "(empty)"
    return tag(
        "div",
        tag("span", name, class_="word", title=text),
        tag("span", tag("i", style=f"width:{width:.1f}%"), class_="track"),
        tag("span", f"{share:.1%}", class_="share", title=f"{n:,} rows"),
        class_=f"rank{kind}",
    )


def _figure(value: float) -> str:
    return (
        f"{value:,.0f}" if value == int(value) and abs(value) < 1e12 else f"{value:.4g}"
    )
