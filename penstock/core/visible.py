"""Text as a terminal or a page shows it: what comes from data, names and recipes is read there, never obeyed.

A column's name may hold an escape sequence that paints over a terminal, or a tag that a Markdown viewer takes
for HTML. So whatever is printed goes through `visible`, and whatever stands in a Markdown file through
`prose` or `code`.
"""

from __future__ import annotations

import re

_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
"""Controls but for tabs and line ends, and what turns the direction of writing."""
_MARKS = re.compile(r"[\\`*\[]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
"""What begins emphasis, code, a link, a tag or an entity; `<=50K` begins none."""
_ENDS = re.compile(r"\s*[\r\n]\s*")


def visible(text: str) -> str:
    """`text` with each control character as `\\u001b`, which is its spelling in JSON and YAML, too."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def prose(text: str) -> str:
    """`text` as one line of Markdown that shows just it."""
    return _MARKS.sub(r"\\\g<0>", visible(_ENDS.sub(" ", text)))


def code(text: str) -> str:
    """`text` in one line of Markdown as code, whatever backticks it has."""
    line = visible(_ENDS.sub(" ", text))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"
