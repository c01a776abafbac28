"""What a run may take of the machine: the section `resources` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from penstock.contracts.amounts import Bytes, parse_bytes
from penstock.contracts.part import Strict

LEAST_MEMORY = 400 * 2**20


def _enough(value: int) -> int:
    if value < LEAST_MEMORY:
        raise ValueError(
            f"must be at least {LEAST_MEMORY >> 20} MiB, because the interpreter and its"
            f" libraries take 300; found {value / 2**20:.3g} MiB"
        )
    return value


class Resources(Strict):
    """What a recipe lets the machine spend: memory, threads and cache."""

    memory: Annotated[
        Bytes, AfterValidator(_enough), Field(json_schema_extra={"minimum": LEAST_MEMORY})
    ] = 4 * 2**30
    """The ceiling of the process tree: 400 MiB or more, of which 300 are the interpreter's and its
    libraries'. Preparing and encoding keep it always; training, packing and evaluating are held below it
    where it is declared.
    """
    threads: int | None = Field(None, ge=1, le=1024)
    """For preparing; all cores unless given."""
    cache: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)] = 20 * 2**30
    """The most that copies of a bucket's shards and rows take on this machine's disk (below `PENSTOCK_CACHE`,
    or ~/.cache/penstock), over all processes and runs: the least recently used go first. 0 keeps none: shards
    are then held in memory while they are needed.
    """
