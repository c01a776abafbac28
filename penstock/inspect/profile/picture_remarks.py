"""What is said of a column of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.inspect.profile.records import Remark
from penstock.inspect.profile.shapes import SMALL_SIDE
from penstock.inspect.wording import key

Remarks = Iterator[Remark]
_NEARLY_ALL = 0.9


def picture_remarks(facts: Mapping[str, Any]) -> Remarks:
    """Findings of one column of pictures.

    Args:
        facts: of the column, of `Measures.columns`.
    """
    name = facts["name"]
    if facts["unread"]:
        yield Remark(
            "error",
            "unreadable",
            name,
            f"{facts['unread']:,} of {facts['rows']:,} are no pictures that can be read",
            {"rows": facts["unread"]},
        )
    if facts["different_sizes"] > 1:
        sizes = ", ".join(f"{size} ({n:,})" for size, n in facts["sizes"][:3])
        more = facts["different_sizes"] - 3
        yield Remark(
            "note",
            "sizes",
            name,
            f"{facts['different_sizes']:,} sizes: {sizes}{f' and {more:,} more' if more > 0 else ''}",
            {"sizes": facts["different_sizes"]},
            f"inputs: {{{key(name)}: {{type: image, size: 64}}}}",
        )
    if len(facts["channels"]) > 1:
        modes = ", ".join(f"{mode} ({n:,})" for mode, n in facts["channels"].items())
        yield Remark(
            "note",
            "channels",
            name,
            f"pictures of several modes: {modes}",
            facts["channels"],
        )
    yield from _looks(facts)
    for word, what in (
        ("equal", "the same as an earlier one, byte by byte"),
        ("nearly_equal", "almost the same as an earlier one, by hash and by points"),
    ):
        if facts[word]:
            yield Remark(
                "warning",
                f"{word} pictures",
                name,
                f"{facts[word]:,} {'picture' if facts[word] == 1 else 'pictures'} {what}",
                {"rows": facts[word]},
            )


def _looks(facts: Mapping[str, Any]) -> Remarks:
    """What pictures are like as a whole."""
    name, read = facts["name"], facts["rows"] - facts["missing"] - facts["unread"]
    if read and facts["dark"] >= _NEARLY_ALL * read:
        yield Remark(
            "note",
            "dark",
            name,
            f"{facts['dark']:,} of {read:,} are dark (a mean below a sixth of white), as fluorescence and"
            " night are: a threshold or a scale made for daylight does not suit them",
            {"rows": facts["dark"]},
        )
    if facts["small_jpeg"] >= _NEARLY_ALL * read > 0:
        yield Remark(
            "note",
            "compressed",
            name,
            f"{facts['small_jpeg']:,} are JPEG of {SMALL_SIDE} pixels a side at most: made smaller and"
            " compressed, so that its blocks of 8 × 8 pixels are part of the picture",
            {"rows": facts["small_jpeg"]},
        )
