"""The table of metrics in `docs/metrics.md`, made from the metrics themselves.

`python -m tests.metric_table` writes it anew; a test compares the page with the code.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from penstock.metrics import known

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- made by `python -m tests.metric_table` -->", "<!-- end -->"


def table() -> str:
    """One line a metric, in the order of reports."""
    lines = [
        "| name | better | targets | what | undefined (`null`) when |",
        "|---|---|---|---|---|",
    ]
    for name, metric in known().items():
        what = (
            " ".join((inspect.getdoc(metric) or "").split())
            .rstrip(".")
            .replace("|", "\\|")
        )
        better = metric.better if metric.scalar else "–"
        lines.append(
            f"| `{name}` | {better} | {', '.join(metric.kinds)} | {what} | {metric.undefined} |"
        )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table as it should be."""
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return between.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
