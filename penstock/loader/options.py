"""Which share of every batch a process reads, and with what: `LoaderOptions`.

None of it changes which rows a global batch has, or in which order batches come. What it does change is how
many of the rows this process gets, on which device, and how far ahead they are read.
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from penstock.core.errors import UserError
from penstock.core.near import did_you_mean
from penstock.core.optional import require

PREFETCH_BYTES = 2**30
"""What batches that are read ahead may take, unless given."""


@dataclass(frozen=True)
class LoaderOptions:
    """A process's place among others, and its threads, memory and device."""

    rank: int | None = None
    """This process, of `world`; as torch.distributed or torchrun's environment says, unless given."""
    world: int | None = None
    """The number of processes that share every batch."""
    accumulate: int = 1
    """With more than 1, each global batch comes in so many pieces, one after another under the same position;
    each piece is divided among the processes.
    """
    threads: int | None = None
    """Threads that read and decode ahead; the batches are the same for any number.

    0: none, a batch is read when it is asked for. None: this process's share of the cores if rows must be
    decoded (`Feature.decodes`); otherwise one, or none where nothing could go on beside it: one core for this
    process, and rows that memory holds (shards of up to 4 GiB on this machine).
    """
    memory_bytes: int = PREFETCH_BYTES
    """Bytes that batches being read, waiting and in use may take; one is always read ahead."""
    device: Any = None
    """Where tensors are wanted, as torch calls it. To a CUDA device they are copied ahead, from pinned memory
    and beside the model's work (`loader.staging`); to any other when they are handed out. None, or the CPU:
    they stay where they are.
    """

    @classmethod
    def of(cls, options: LoaderOptions | Mapping[str, Any] | None) -> LoaderOptions:
        """The record made of a mapping of the same words.

        Raises:
            UserError: a word that is none of these.
        """
        if isinstance(options, LoaderOptions):
            return options
        words = [field.name for field in fields(cls)]
        if options is not None and not isinstance(options, Mapping):
            raise UserError(
                f"a loader's options are a mapping of {', '.join(words)}; found {type(options).__name__}"
            )
        # A word that is misspelt must not be ignored in silence.
        for word in options or {}:
            if word not in words:
                raise UserError(
                    f"a loader's options have no {word!r}.{did_you_mean(str(word), words)} They are:"
                    f" {', '.join(words)}"
                )
        return cls(**(options or {}))

    def placed(self) -> tuple[LoaderOptions, int, int]:
        """Check these options; returns them complete, with the rank and the world.

        Raises:
            ValueError: a number that cannot be.
            UserError: rank and world are given by halves, or the environment's do not hold; there is no such
                device here.
        """
        # Once: the environment could say something else later.
        rank, world = place_in_world(self.rank, self.world)
        check_whole(
            world=(world, 1),
            accumulate=(self.accumulate, 1),
            rank=(rank, 0),
            threads=(self.threads, 0),
            memory_bytes=(self.memory_bytes, 0),
        )
        if rank >= world:
            raise ValueError(f"rank must be below world ({world}); found {rank}")
        device = None if self.device is None else available_device(self.device)
        return replace(self, rank=rank, world=world, device=device), rank, world


def check_whole(**values: tuple[Any, int | None]) -> None:
    """Check that each value is a whole number, and not below its least; None is not checked.

    Raises:
        ValueError: one is not.
    """
    for word, (value, least) in values.items():
        if value is None:
            continue
        # Python counts a bool as an int; numpy's integers are `Integral` as well.
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"{word} must be a whole number; found {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{word} must be at least {least}; found {value}")


def available_device(device: Any) -> Any:
    """A torch device that this machine has.

    Raises:
        UserError: there is no such device, or none of its kind.
    """
    torch = require("torch", extra="train", why="batches on a device")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"device is what torch calls one, such as 'cpu' or 'cuda:0'; found {device!r}"
            f" ({str(error).splitlines()[0]})"
        ) from None
    if chosen.type == "cuda" and (
        # The index is checked here: torch would say so only at the first copy.
        not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()
    ):
        raise UserError(
            f"device is {str(chosen)!r}, and torch finds {torch.cuda.device_count()} CUDA devices here. Leave"
            " it out for the CPU"
        )
    return chosen


def place_in_world(rank: int | None, world: int | None) -> tuple[int, int]:
    """The rank and the number of processes: as given, else from torch.distributed, else from
    torchrun's environment, else (0, 1).

    Raises:
        UserError: they are given by halves, or the environment does not hold.
    """
    # Given in full, the environment is not asked.
    if rank is not None and world is not None:
        return rank, world
    known = _known_place()
    # With a world of another size shares would overlap, or leave rows out.
    if known is not None and world is not None and known[1] != world:
        raise UserError(
            f"world is {world}, but this is one of {known[1]} processes; give `rank` too, or neither"
        )
    if rank is not None:
        raise UserError(
            "`rank` needs `world`, the number of processes: give both, or neither to take them from"
            " torch.distributed or from the environment"
        )
    return known or (0, world or 1)


def _known_place() -> tuple[int, int] | None:
    # Not imported for this: a loader of numpy arrays does without torch.
    torch: Any = sys.modules.get("torch.distributed")  # whoever set it up has imported it
    if torch is not None and torch.is_available() and torch.is_initialized():
        return int(torch.get_rank()), int(torch.get_world_size())
    # As torchrun sets them before its processes start.
    words = [os.environ.get("RANK"), os.environ.get("WORLD_SIZE")]
    if None in words:
        return None
    try:
        place = int(words[0] or ""), int(words[1] or "")
    except ValueError:
        # Falls through to the sentence below, which shows what was found.
        place = (0, 0)
    if not 0 <= place[0] < place[1]:
        raise UserError(
            f"the environment says RANK={words[0]} of WORLD_SIZE={words[1]}, which is no place among"
            " processes. Unset them, or give `rank` and `world`"
        )
    return place
