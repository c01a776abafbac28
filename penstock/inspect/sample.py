"""`Sample`: the rows that `look` judges, and what is known of the source that they were drawn from."""

from __future__ import annotations

import pyarrow as pa

from penstock.contracts.sample import Sample as Sample
from penstock.contracts.sample import Unread as Unread


def as_sample(rows: Sample | pa.Table) -> Sample:
    """A sample as it is; a bare table as one of which nothing else is known."""
    return rows if isinstance(rows, Sample) else Sample(rows)
