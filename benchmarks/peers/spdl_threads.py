"""SPDL: a pipeline of threads, its own decoder (FFmpeg's) with the crop in its filter, a batch converted at
once.
"""

from __future__ import annotations

import numpy as np
import torch
from shared_rows import Pictures

PACKAGES = ("spdl", "torch")


def jpeg(*, folder: str, data: str, batch: int, side: int, threads: int, seed: int):
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    torch.set_num_threads(1)
    pictures = Pictures(data)

    def decode(chosen: list[tuple[int, float, float]]):
        frames, labels = [], []
        for row, down, across in chosen:
            coded, label = pictures[row]
            at = f"crop={side}:{side}:floor({across}*(iw-{side}+1)):floor({down}*(ih-{side}+1)),format=rgb24"
            packets = spdl.io.demux_image(coded)
            frames.append(
                spdl.io.decode_packets(
                    packets,
                    filter_desc=spdl.io.get_filter_desc(
                        packets, filter_desc=at, pix_fmt=None
                    ),
                )
            )
            labels.append(label)
        return spdl.io.to_torch(spdl.io.convert_frames(frames)), torch.tensor(labels)

    def epoch(n: int):
        rng = np.random.default_rng((seed, n))
        order = [
            (int(row), *rng.random(2).tolist()) for row in rng.permutation(len(pictures))
        ]
        chosen = [order[start : start + batch] for start in range(0, len(order), batch)]
        pipeline = (
            PipelineBuilder()
            .add_source(chosen)
            .pipe(decode, concurrency=threads)
            .add_sink(2)
            .build(num_threads=threads)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return epoch, lambda b: len(b[0]), lambda b: b[1].sum()
