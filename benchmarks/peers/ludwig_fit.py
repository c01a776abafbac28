"""Ludwig: the same layers by its own words, trained by its own trainer on what it has preprocessed into
memory. The loop is timed from its first batch to its last: no evaluation, no checkpoint.
"""

from __future__ import annotations

import logging

import numpy as np
from shared_rows import without_box_operators
from shared_training import CLIP, DECAY, LR, WIDTH, fitting, tensors

PACKAGES = ("ludwig", "torch")


def fit(*, folder: str, data: str, batch: int, steps: int):
    x, y = tensors(data)
    without_box_operators()
    import pandas as pd
    from ludwig.api import LudwigModel
    from ludwig.callbacks import Callback

    values = x.numpy()
    table = pd.DataFrame(
        {
            **{
                f"x{i}": np.ascontiguousarray(values[:, i])
                for i in range(values.shape[1])
            },
            "y": y.numpy().astype(bool),
        }
    )
    config = {
        "input_features": [
            {"name": f"x{i}", "type": "number", "preprocessing": {"normalization": None}}
            for i in range(values.shape[1])
        ],
        "output_features": [{"name": "y", "type": "binary"}],
        "combiner": {
            "type": "concat",
            "num_fc_layers": 2,
            "output_size": WIDTH,
            "activation": "relu",
            "dropout": 0.0,
        },
        "preprocessing": {
            "split": {"type": "random", "probabilities": [0.98, 0.01, 0.01]}
        },
        "trainer": {
            "batch_size": batch,
            "eval_batch_size": 4096,
            "train_steps": steps,
            "learning_rate": LR,
            "optimizer": {"type": "adamw", "weight_decay": DECAY},
            "steps_per_checkpoint": 0,
            "gradient_clipping": {"clipglobalnorm": CLIP},
            "evaluate_training_set": False,
            "early_stop": -1,
            "learning_rate_scheduler": {"decay": None},
            "epochs": 1,
        },
        "backend": {"type": "local"},
    }
    first = LudwigModel(config, logging_level=logging.ERROR)
    training, validation, test, facts = first.preprocess(
        dataset=table, skip_save_processed_input=True, output_directory=folder
    )

    def train(clock) -> None:
        class Clocked(Callback):
            steps = 0

            def on_batch_start(self, trainer, progress_tracker, save_path) -> None:
                if not self.steps:
                    clock.begin()

            def on_batch_end(
                self, trainer, progress_tracker, save_path, sync_step: bool = True
            ) -> None:
                self.steps += 1
                if self.steps == steps:
                    clock.end()

        counted = Clocked()
        model = LudwigModel(config, logging_level=logging.ERROR, callbacks=[counted])
        model.train(
            training_set=training,
            validation_set=validation,
            test_set=test,
            training_set_metadata=facts,
            output_directory=folder,
            skip_save_training_description=True,
            skip_save_training_statistics=True,
            skip_save_model=True,
            skip_save_progress=True,
            skip_save_log=True,
            skip_save_processed_input=True,
        )
        assert counted.steps == steps, f"{counted.steps} steps"

    return fitting(train, batch=batch, steps=steps)
