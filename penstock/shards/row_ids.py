"""Row ids in shards: the two halves of an md5, as whole numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.contracts.summary import id_halves


def row_id_halves(row_ids: pa.Array) -> np.ndarray:
    """md5 row ids (32 hexadecimal digits) as two whole numbers each, int64 `[n, 2]`."""
    # The same bits as signed numbers, which all of torch's operations take.
    return id_halves(row_ids).view(np.int64)


def row_id_text(halves: np.ndarray) -> list[str]:
    """The reverse of `row_id_halves`."""
    return [
        f"{high:016x}{low:016x}"
        # Padded to 16 digits, or ids with leading zeros would come back shorter.
        for high, low in np.ascontiguousarray(halves).view(np.uint64).tolist()
    ]
