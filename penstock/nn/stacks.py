"""A program of many inputs with few: arrays that one module reads together lie in one, `[B, F, …]`.

    age.value [B], fare.value [B], …, 1,000 of them  →  stack.0 [B, 1000]

Tracing, translating and running a graph cost for each input, some of it in proportion to all the others. So
the graph of a wide table must not grow with its columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from penstock.model import Program


class StackedBatch(Mapping[str, Tensor]):
    """A batch by `<feature>.<array>`, some arrays of which lie in stacks `[B, F, …]`.

    Args:
        single: arrays that lie in no stack.
        stacks: by stack.
        members: by stack, the names of its arrays along the axis F.
    """

    def __init__(
        self,
        single: Mapping[str, Tensor],
        stacks: Mapping[str, Tensor],
        members: Mapping[str, Sequence[str]],
    ) -> None:
        self._single = single
        self._stacks = stacks
        # By the exact names in order: a module that reads others finds no stack.
        self._members = {tuple(names): stack for stack, names in members.items()}
        self._places = {
            name: (stack, place)
            for stack, names in members.items()
            for place, name in enumerate(names)
        }

    def __getitem__(self, name: str) -> Tensor:
        if name in self._single:
            return self._single[name]
        stack, place = self._places[name]
        # A view `[B, …]`: nothing is copied for a module that reads one array alone.
        return self._stacks[stack].select(1, place)

    def __iter__(self) -> Iterator[str]:
        yield from self._single
        yield from self._places

    def __len__(self) -> int:
        return len(self._single) + len(self._places)

    def together(self, names: Sequence[str]) -> Tensor | None:
        """The stack of exactly these arrays, in this order; None if there is none."""
        stack = self._members.get(tuple(names))
        return None if stack is None else self._stacks[stack]


def stack_of(batch: Mapping[str, Tensor], features: Sequence[str], array: str) -> Tensor:
    """One array of several features side by side: `F × [B, …] → [B, F, …]`."""
    names = [f"{feature}.{array}" for feature in features]
    if isinstance(batch, StackedBatch):
        whole = batch.together(names)
        if whole is not None:
            return whole
    return torch.stack([batch[name] for name in names], dim=1)


class StackedProgram(nn.Module):
    """The same program, whose inputs are stacks, and the arrays that lie in none.

    Args:
        program: the one it stands for; `forward` takes the arrays in the order of `input_names`, as that one
            does.
        members: by stack, the names of its arrays; of one type and shape, without open axes.
    """

    def __init__(self, program: Program, members: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.program = program
        self.members = {stack: list(names) for stack, names in members.items()}
        within = {name for names in self.members.values() for name in names}
        self._single = [name for name in program.input_names if name not in within]
        # Stacks come first: `forward` tells the two apart by their number.
        self.input_names = [*self.members, *self._single]
        self.output_names = list(program.output_names)
        self.eval()

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        count = len(self.members)
        stacks = dict(zip(self.members, arrays[:count], strict=True))
        single = dict(zip(self._single, arrays[count:], strict=True))
        return self.program.answers(StackedBatch(single, stacks, self.members))

    def example(self, rows: int = 3, *, length: int = 5) -> tuple[Tensor, ...]:
        """Arrays to trace with, where the network is; open axes have `length`."""
        arrays = self._named(self.program.example(rows, length=length))
        stacks = [
            torch.stack([arrays[name] for name in names], dim=1)
            for names in self.members.values()
        ]
        return (*stacks, *(arrays[name] for name in self._single))

    def dynamic_shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
        """Which axes vary: the batch, and each length that a spec leaves open."""
        shapes = self._named(self.program.dynamic_shapes()[0])
        # All of one shape without open axes, so that only the batch varies.
        stacks = [shapes[names[0]] for names in self.members.values()]
        return ((*stacks, *(shapes[name] for name in self._single)),)

    def _named(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.program.input_names, values, strict=True))


def stacks_of(program: Program) -> dict[str, list[str]]:
    """By stack, the arrays of a program that one module reads together and that are of one type and shape."""
    alike: dict[Any, list[str]] = {}
    readers = program.readers()
    for feature, arrays in program.specs().items():
        for array, spec in arrays.items():
            if None not in spec.shape:  # a length that varies is each array's own
                # Of one module, name, type and shape: what `stack_of` will ask for
                # together.
                alike.setdefault(
                    (readers.get(feature), array, spec.dtype, spec.shape), []
                ).append(f"{feature}.{array}")
    # A stack of one would change nothing.
    several = [names for names in alike.values() if len(names) > 1]
    return {f"stack.{place}": names for place, names in enumerate(several)}
