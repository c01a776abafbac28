"""Ludwig: from a file to encoded arrays, which it does in one step and caches beside the file."""

from __future__ import annotations

from pathlib import Path

from shared_rows import without_box_operators

PACKAGES = ("ludwig", "torch", "pandas")


def preprocess(*, folder: str, source: str, inputs: dict[str, str], targets: dict[str, str]):
    """`LudwigModel.preprocess` of the Parquet file `source`; `inputs` and `targets` are types by column. An epoch is one preprocessing."""
    without_box_operators()
    import logging

    import pandas as pd
    from ludwig.api import LudwigModel

    rows = len(pd.read_parquet(source, columns=[next(iter(targets))]))
    config = {
        "input_features": [{"name": name, "type": kind} for name, kind in inputs.items()], "output_features": [{"name": name, "type": kind} for name, kind in targets.items()],
        "backend": {"type": "local"},
    }

    def epoch(n: int):
        model = LudwigModel(config, logging_level=logging.ERROR)
        model.preprocess(dataset=source, skip_save_processed_input=True, output_directory=str(Path(folder) / str(n)), random_seed=n)
        yield []

    return epoch, lambda b: rows, lambda b: rows
