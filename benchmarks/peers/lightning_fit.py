"""Lightning: its Trainer, with nothing switched on that need not be."""

from __future__ import annotations

import logging
import warnings

from shared_training import CLIP, Perceptron, adamw, fitting, loss_of, rows_of, tensors

PACKAGES = ("lightning", "torch")


def fit(*, folder: str, data: str, batch: int, steps: int, whole: bool = False):
    import lightning

    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x, y = tensors(data)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Perceptron()

        def training_step(self, batch, index):
            return loss_of(self.network.logits(batch[0]), batch[1])

        def configure_optimizers(self):
            return adamw(self.network)

    def train(clock) -> None:
        class Clocked(lightning.Callback):
            def on_train_start(self, trainer, module) -> None:
                clock.begin()

            def on_train_end(self, trainer, module) -> None:
                clock.end()

        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=CLIP,
            default_root_dir=folder,
            callbacks=[Clocked()],
        )
        trainer.fit(Module(), rows_of(x, y, batch, whole=whole))
        assert trainer.global_step == steps

    return fitting(train, batch=batch, steps=steps)
