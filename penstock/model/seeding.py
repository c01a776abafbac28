"""Initial weights that depend on a seed and a name, and on nothing that was built before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from penstock.core.identity import derive_seed


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """torch's random state derived from `seed` by name, within; the caller's again afterwards.

    The CPU's alone, since weights are made there; `devices=[]` keeps torch from waking up every GPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        yield
