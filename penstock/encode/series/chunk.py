"""Chunk: some steps of series, in order, as one table with what is known of each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.encode.encoding import Accepted


@dataclass
class Chunk:
    """Some steps, in order, that were accepted."""

    table: pa.Table
    accepted: Accepted
    segment: np.ndarray
    """Which unbroken run each belongs to, int64 `[n]`, counted from 0 over all chunks."""
    series: np.ndarray
    """Which series, likewise."""
    rank: np.ndarray
    """Its split, int8 `[n]`."""
