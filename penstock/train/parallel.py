"""What the world does to a model: processes, devices, threads, precision, compilation.

What is sent between processes lives in `communicator`; how they train one model is a strategy's business
(`penstock.contracts.strategy`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from penstock.contracts.learn import World
from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.memory import keep_freed
from penstock.recipe.schema import Recipe
from penstock.train.blocks import has_norms

_RENDEZVOUS = "PENSTOCK_RENDEZVOUS"
"""Where a launcher says that ranks meet, as torch's `init_method`; without it the MASTER_ADDR and MASTER_PORT
of the environment.
"""


# -- processes -----------------------------------------------------------------------------------------------


@contextmanager
def joined(world: World) -> Iterator[None]:
    """Open torch's process group while the body runs; one that a launcher has opened is used as it is."""
    if world.size == 1 or dist.is_initialized():
        yield
        return
    # NCCL wants a device for each rank; ranks without one, or that share one, meet by
    # gloo.
    backend = (
        "nccl"
        if torch.cuda.is_available() and torch.cuda.device_count() >= world.size
        else "gloo"
    )
    dist.init_process_group(
        backend,
        init_method=os.environ.get(_RENDEZVOUS, "env://"),
        rank=world.rank,
        world_size=world.size,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def device_of(world: World) -> torch.device:
    """The accelerator of this rank if the machine has one, otherwise the CPU."""
    if torch.cuda.is_available():
        # More ranks than devices share them, in turn.
        device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
        # Messages between ranks go by the current device: else all ranks would meet on
        # the first.
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def even_buffers(model: nn.Module, world: World) -> None:
    """Give every rank what rank 0's layers remember of batches (running means); weights are equal already.

    Not their mean: so rank 0's checkpoint is the whole truth.
    """
    if world.size > 1:
        # The same order at every rank, as all have built the same network.
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def depends(
    recipe: Recipe, world: World, network: nn.Module, *, blocks: int
) -> list[str]:
    """What the user should know of the number of processes: why the answer depends on it by more than
    rounding; and what was asked for and has nothing to work on.

    Args:
        blocks: how many blocks the network has.
    """
    declared, sentences, why = recipe.parallel, [], []
    if declared.activation_checkpointing and not blocks:
        sentences.append(
            "parallel.activation_checkpointing finds no blocks in this model, and saves nothing"
        )
    if world.size == 1:
        if idle := declared.strategy.alone():
            sentences.append(f"parallel.strategy {declared.strategy.type} {idle}")
        if declared.gradients is not None:
            sentences.append(
                f"parallel.gradients {declared.gradients.type} is how processes send, and there is one:"
                " nothing is sent"
            )
        return sentences
    if reason := declared.strategy.depends():
        why.append(reason)
    if declared.batchnorm == "each" and has_norms(network):
        why.append(
            "BatchNorm sees each process's own rows (`parallel: {batchnorm: sync}` lets it see all, `norm:"
            " group` in the encoder needs none)"
        )
    if (
        declared.batchnorm == "sync"
        and has_norms(network)
        and recipe.train.accumulate > 1
    ):
        why.append(
            "with `accumulate` BatchNorm sees one piece of every process's rows at a time, and which rows"
            " these are changes with the number of processes"
        )
    if declared.gradients is not None and declared.gradients.depends:
        why.append(declared.gradients.depends)
    if why:
        sentences.append(
            f"the weights will depend on the number of processes (now {world.size}) by more than rounding:"
            f" {'; '.join(why)}"
        )
    return sentences


def chance_depends(world: World) -> str:
    """What the user should know where a step draws from chance."""
    return (
        f"the weights will depend on the number of processes (now {world.size}) by more than rounding: each"
        " draws its own chance for its rows (dropout, values taken for unseen, rows mixed), so another"
        " number trains as another seed would; keep to one number, or set these to 0, where that must not be"
    )


# -- numbers -------------------------------------------------------------------------------------------------


class Precision:
    """fp32 as it is; bf16 and fp16 by autocast, weights and sums stay fp32; fp16 scales the loss so that
    small gradients live.
    """

    def __init__(
        self, precision: Literal["fp32", "bf16", "fp16"], device: torch.device
    ) -> None:
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[
            precision
        ]
        self._device = device.type
        # bf16 has the range of float32 and needs no scale.
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None

    def lowered(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which torch computes in the precision that the recipe asks for."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device, self._dtype)


def compiled(model: nn.Module, device: torch.device) -> Any:
    """The model, compiled when first called.

    Raises:
        UserError: there is no C++ compiler, which torch.compile needs on a CPU.
    """
    if device.type == "cpu" and not any(
        map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++", "c++"))
    ):
        raise UserError(
            "train.compile needs a C++ compiler, but neither g++ nor clang++ is on the"
            " PATH. Install one (on Debian: apt install g++), or set train.compile: false."
        )
    return torch.compile(model)


@contextmanager
def settled(*, threads: int, deterministic: bool, events: Events) -> Iterator[None]:
    """Within this, torch computes with so many threads and, if asked, with deterministic kernels; afterwards
    as before. Freed memory is kept for the next step (`core.memory.keep_freed`), and stays so.

    An operation that has no deterministic kernel is computed all the same, and said aloud once: the recipe
    asks for them where there are some.
    """
    keep_freed()
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filling: Any = torch.utils.deterministic
    fill = filling.fill_uninitialized_memory
    if deterministic and torch.cuda.is_available():
        # cuBLAS asks for it, before its first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Gives back the filters and `showwarning` at the end.
    with warnings.catch_warnings():
        warned: set[str] = set()
        otherwise = warnings.showwarning

        def show(
            message: Any,
            category: Any,
            filename: Any,
            lineno: Any,
            file: Any = None,
            line: Any = None,
        ) -> None:
            # After the first comma torch advises on switches that a recipe does not
            # have.
            text = str(message).split(",")[0]
            if "deterministic" not in text:
                otherwise(message, category, filename, lineno, file, line)
            elif text not in warned:
                warned.add(text)
                events.warn(f"Two runs may differ in the last digits: {text}.")

        warnings.showwarning = show
        # Python shows a warning once a line of code; `warned` below decides instead.
        warnings.filterwarnings(
            "always", message=".*does not have a deterministic implementation"
        )
        # losses change nothing in place
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module .* returned a view tensor"
        )
        torch.set_num_threads(threads)
        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling fresh memory costs time, and no result reads it.
            filling.fill_uninitialized_memory = False
        try:
            yield
        finally:
            # Switches of the whole process: whoever trains from a notebook gets them
            # back.
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1], warn_only=before[2])
            filling.fill_uninitialized_memory = fill
