"""How a loader is set beside its peers: each in a process of its own, on as many cores, over the same values;
an epoch each in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Cannot, compare, say_compared, size, skip
from benchmarks.peers import Peer


@dataclass(frozen=True)
class Against:
    """A peer, and what is to be reached beside it."""

    name: str
    script: str
    task: str
    how: dict[str, Any] = field(default_factory=dict)
    group: str | None = "loading"
    least: float | None = None
    pairs: int = 10
    by_bound: bool = False


def beside(
    name: str,
    ours: Against,
    others: list[Against],
    *,
    cores: int,
    folder: Path,
    per_row: Callable[[dict[str, Any]], float] = lambda seen: 1.0,
    unit: str = "rows",
) -> None:
    """Print one line for each of the others; what cannot be run says so.

    Args:
        per_row: how many of `unit` a row has, from an epoch of ours that was counted.
    """
    pairs = size("PAIRS", 0)
    with ExitStack() as stack:
        mine = stack.enter_context(
            Peer(ours.script, group=None, cores=cores, folder=folder)
        ).setup(ours.task, **ours.how)
        seen = mine.check()
        for other in others:
            line = f"{name}: {other.name}"
            try:
                with Peer(
                    other.script, group=other.group, cores=cores, folder=folder / "peers"
                ) as peer:
                    peer.setup(other.task, **other.how)
                    theirs = peer.check()
                    if (
                        theirs["rows"] == seen["rows"]
                        and theirs["total"] != seen["total"]
                    ):
                        raise Cannot(
                            f"{other.name} gave other values: their total is {theirs['total']:,}, ours"
                            f" {seen['total']:,}"
                        )
                    found = compare(mine.run, peer.run, pairs=pairs or other.pairs)
                    say_compared(
                        found,
                        name=line,
                        other=other.name,
                        unit=unit,
                        per_row=per_row(seen),
                        least=other.least,
                        by_bound=other.by_bound,
                        cores=cores,
                        versions=peer.versions,
                        gives=(
                            theirs["first"]
                            if len(theirs["first"]) < 8
                            else f"{len(theirs['first'])} arrays"
                        ),
                    )
            except Cannot as reason:
                skip(line, reason)
