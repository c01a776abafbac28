"""Ours: a Loader over a feed, as anybody's loop would use it. Run by the project's own python."""

from __future__ import annotations

import torch

import penstock
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.loader.loader import Loader

PACKAGES = ("torch", "numpy", "pyarrow")


def _loader(store: str, feed: str, batch: int, seed: int, **words):
    torch.set_num_threads(1)
    loader = penstock.Loader(
        Feed.open(Store(store), id=feed), batch_size=batch, seed=seed, **words
    )

    def epoch(n: int):
        loader.set_epoch(n)
        return iter(loader)

    return epoch


def tabular(*, folder: str, store: str, feed: str, batch: int, seed: int, **words):
    """`words` are those of penstock.Loader, such as shuffle="blocks"."""
    return (
        _loader(store, feed, batch, seed, **words),
        lambda b: len(b["row_id"]),
        lambda b: b["y.index"].sum(),
    )


def text(*, folder: str, store: str, feed: str, batch: int, seed: int):
    return (
        _loader(store, feed, batch, seed),
        lambda b: len(b["row_id"]),
        lambda b: b["words.mask"].sum(),
    )


def jpeg(*, folder: str, store: str, feed: str, batch: int, threads: int, seed: int):
    return (
        _loader(store, feed, batch, seed, options={"threads": threads}),
        lambda b: len(b["row_id"]),
        lambda b: b["y.index"].sum(),
    )


def step(
    *, folder: str, store: str, feed: str, batch: int, steps: int, width: int, seed: int
):
    """A training loop fed by the loader."""
    from itertools import islice

    train, epoch = (
        _training(Feed.open(Store(store), id=feed), width),
        _loader(store, feed, batch, seed),
    )

    def steps_of(n: int):
        for b in islice(epoch(n), steps):
            train(b["x.value"], b["y.label"])
            yield b

    return steps_of, lambda b: len(b["row_id"]), lambda b: b["y.label"].sum()


def step_memory(
    *, folder: str, store: str, feed: str, batch: int, steps: int, width: int, seed: int
):
    """The same loop fed by indexing two tensors in memory."""
    train, (x, y) = (
        _training(Feed.open(Store(store), id=feed), width),
        _tensors(store, feed),
    )

    def steps_of(n: int):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(n))
        for start in range(0, min(steps * batch, len(y)), batch):
            chosen = order[start : start + batch]
            a, b = x[chosen], y[chosen]
            train(a, b)
            yield a, b

    return steps_of, lambda b: len(b[1]), lambda b: b[1].sum()


def step_dataloader(
    *, folder: str, store: str, feed: str, batch: int, steps: int, width: int, seed: int
):
    """The same loop fed by torch's DataLoader over the same tensors, row by row as it comes."""
    from itertools import islice

    from torch.utils.data import DataLoader, TensorDataset

    train, rows = (
        _training(Feed.open(Store(store), id=feed), width),
        TensorDataset(*_tensors(store, feed)),
    )

    def steps_of(n: int):
        for a, b in islice(DataLoader(rows, batch_size=batch, shuffle=True), steps):
            train(a, b)
            yield a, b

    return steps_of, lambda b: len(b[1]), lambda b: b[1].sum()


def _tensors(store: str, feed: str) -> tuple[torch.Tensor, torch.Tensor]:
    whole = Loader(Feed.open(Store(store), id=feed), batch_size=1 << 16, order="stored")
    pieces = [(batch["x.value"].clone(), batch["y.label"].clone()) for batch in whole]
    return torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])


def _training(feed: Feed, width: int):
    """One step of a perceptron of two hidden layers, AdamW: a function of inputs and labels."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = int(feed.encoding.specs("inputs")["x"]["value"].shape[0] or 1)
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, 1),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    loss = torch.nn.BCEWithLogitsLoss()

    def train(x: torch.Tensor, y: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(network(x).squeeze(1), y).backward()
        optimiser.step()

    return train
