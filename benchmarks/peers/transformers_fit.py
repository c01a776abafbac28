"""Hugging Face's Trainer, without logging, saving or progress."""

from __future__ import annotations

from shared_training import CLIP, DECAY, LR, Perceptron, fitting, loss_of, tensors
from torch import nn
from torch.utils.data import Dataset

PACKAGES = ("transformers", "accelerate", "torch")


def fit(*, folder: str, data: str, batch: int, steps: int):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    x, y = tensors(data)

    class Rows(Dataset):
        def __len__(self) -> int:
            return len(y)

        def __getitem__(self, row: int):
            return {"x": x[row], "labels": y[row]}

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Perceptron()

        def forward(self, x, labels):
            logits = self.network.logits(x)
            return {"loss": loss_of(logits, labels), "logits": logits}

    def train(clock) -> None:
        class Clocked(TrainerCallback):
            def on_train_begin(self, args, state, control, **rest) -> None:
                clock.begin()

            def on_train_end(self, args, state, control, **rest) -> None:
                clock.end()

        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=steps,
            optim="adamw_torch_fused",
            learning_rate=LR,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            lr_scheduler_type="constant",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            Module(), arguments, train_dataset=Rows(), callbacks=[Clocked()]
        )
        trainer.train()
        assert trainer.state.global_step == steps

    return fitting(train, batch=batch, steps=steps)
