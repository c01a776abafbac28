"""What peers of training share: the networks, which every one of them trains, the tensors in memory, and a
clock of the loop alone.

Only torch and numpy are imported here. A network takes the batch as a dict, which is what our trainer gives a
module of the user's, and has `logits`, which takes bare tensors: what anybody else's loop calls.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 300
LR, DECAY, CLIP = 1e-3, 1e-4, 1.0
"""Of AdamW, fused; and the largest norm of the whole gradient: the same for everyone."""


class Perceptron(nn.Module):
    """30 numbers, two hidden layers of 300: 99,901 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(30, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, 1),
        )

    def logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x).squeeze(-1)
        return found

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.logits(batch["x.value"])}


class Pictures(nn.Module):
    """Four convolutions over 32² pixels, uint8 as they are stored: 205,066 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in (
            (3, 32, 1),
            (32, 64, 2),
            (64, 128, 2),
            (128, 96, 2),
        ):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)
        )

    def logits(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.layers(pixels.float() / 127.5 - 1)
        return found

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.logits(batch["x.pixels"])}


class Reader(nn.Module):
    """A transformer of two layers over 64 tokens of 1,000: about half a million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = (
            nn.Embedding(1_002, 128),
            nn.Parameter(torch.randn(64, 128) * 0.02),
        )
        layer = nn.TransformerEncoderLayer(
            128, 4, 512, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers, self.head = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Linear(128, 1),
        )

    def logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        found = self.layers(
            self.words(tokens) + self.places[: tokens.shape[1]],
            src_key_padding_mask=~mask,
        )
        there = mask.unsqueeze(-1)
        answer: Tensor = self.head((found * there).sum(1) / there.sum(1)).squeeze(-1)
        return answer

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.logits(batch["x.tokens"], batch["x.mask"])}


class Clock:
    """Seconds and CPU seconds, of all threads, between `begin` and the last `end`."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._at = 0.0, 0.0

    def begin(self) -> None:
        self._at = time.perf_counter(), time.process_time()

    def end(self) -> None:
        self.seconds, self.cpu_seconds = (
            time.perf_counter() - self._at[0],
            time.process_time() - self._at[1],
        )

    def read(self) -> tuple[float, float]:
        return self.seconds, self.cpu_seconds


def tensors(data: str) -> tuple[Tensor, Tensor]:
    """The perceptron's rows `[n, 30]` and labels `[n]` (0 or 1, float32); one thread of torch from now on."""
    torch.set_num_threads(1)
    x, y = (torch.from_numpy(np.load(Path(data) / f"{name}.npy")) for name in ("x", "y"))
    return x, y.float()


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    return (
        F.binary_cross_entropy_with_logits(logits, y)
        if logits.dim() == 1
        else F.cross_entropy(logits, y)
    )


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=DECAY, fused=True)


def rows_of(x: Tensor, y: Tensor, batch: int, *, whole: bool):
    """torch's DataLoader over tensors: row by row, which is how it is used, or a whole batch at a time."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    rows = TensorDataset(x, y)
    if whole:
        return DataLoader(
            rows,
            sampler=BatchSampler(RandomSampler(rows), batch, drop_last=False),
            batch_size=None,
        )
    return DataLoader(rows, batch_size=batch, shuffle=True)


def by_hand(
    network: nn.Module,
    inputs: list[Tensor],
    y: Tensor,
    *,
    batch: int,
    steps: int,
    clock: Clock,
) -> None:
    """The loop that anybody would write, fed by indexing tensors in memory."""
    optimiser = adamw(network)
    network.train()
    clock.begin()
    order = torch.randperm(len(y))
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        optimiser.zero_grad(set_to_none=True)
        loss_of(network.logits(*(x[chosen] for x in inputs)), y[chosen]).backward()  # type: ignore[operator]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
    clock.end()


def fitting(fit, *, batch: int, steps: int):
    """What `serve` asks for, of `fit(clock)`: a training of so many steps, whose loop the clock has timed."""
    clock = Clock()

    def epoch(n: int):
        torch.manual_seed(n)
        fit(clock)
        yield batch * steps

    return epoch, lambda b: b, lambda b: 0, clock.read
