"""What several peers need: common data by row, and collating of what rows give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import library


def columns(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(
        np.load(Path(data) / f"{name}.npy") for name in ("floats", "ints", "labels")
    )  # type: ignore[return-value]


class Pictures:
    """Coded pictures and labels, by row."""

    def __init__(self, data: str) -> None:
        self.coded = np.memmap(Path(data) / "pictures.bin", np.uint8, "r")
        self.offsets, self.labels = (
            np.load(Path(data) / f"{name}.npy") for name in ("offsets", "labels")
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[bytes, int]:
        return self.coded[self.offsets[row] : self.offsets[row + 1]].tobytes(), int(
            self.labels[row]
        )


def cropped(coded: bytes, side: int) -> torch.Tensor:
    """Decoded by the same decoder as the limit's, and cropped at random: uint8 `[side, side, 3]`."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(coded, "RGB")
    top, left = (
        np.random.randint(pixels.shape[0] - side + 1),
        np.random.randint(pixels.shape[1] - side + 1),
    )
    return torch.from_numpy(pixels[top : top + side, left : left + side])


def padded(rows: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrays of ids side by side: int64 `[B, T]`, and where something is."""
    lengths = np.array([len(row) for row in rows])
    tokens = np.zeros((len(rows), int(lengths.max())), np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return torch.from_numpy(tokens), torch.from_numpy(
        np.arange(tokens.shape[1]) < lengths[:, None]
    )


def joined(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Packed samples as a batch; usually one."""
    return {
        name: torch.from_numpy(np.concatenate([row[name] for row in rows]))
        for name in rows[0]
    }


def without_box_operators() -> None:
    """Declare the signatures of torchvision's compiled operators, so that its Python imports where they
    cannot be loaded (a build for another torch). None is called here: Mosaic Streaming imports torchvision
    for data sets of pictures that are not used.
    """
    import importlib.util
    import re

    found = importlib.util.find_spec("torchvision")
    assert found is not None and found.origin is not None
    names = set(
        re.findall(
            r'register_(?:meta|fake)\(\s*"(?:torchvision::)?(\w+)',
            (Path(found.origin).parent / "_meta_registrations.py").read_text(),
        )
    )
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import sys

        for name in [
            name for name in sys.modules if name.partition(".")[0] == "torchvision"
        ]:
            del sys.modules[name]
        fragment = library.Library("torchvision", "FRAGMENT")
        for name in names:
            if not hasattr(torch.ops.torchvision, name):
                fragment.define(f"{name}(Tensor x) -> Tensor")
        _KEPT.append(fragment)


_KEPT: list = []
