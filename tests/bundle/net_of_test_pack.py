"""Modules of a user's, one that ONNX can express and one that it cannot."""

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, specs, width=4):
        super().__init__()
        self.lines = nn.ModuleDict({"pay": nn.Linear(2, 1), "kind": nn.Linear(2, 3)})
        self.width = width

    def forward(self, batch):
        x = torch.stack([batch["age.value"], batch["age.missing"]], dim=1)
        return {"pay": self.lines["pay"](x)[:, 0], "kind": self.lines["kind"](x)}


class Stubborn(Plain):
    def forward(self, batch):
        # a number of the data decides: no graph can say it
        shift = float(batch["age.value"].sum().item() > 1e9)
        found = super().forward(batch)
        if shift > 0.5:
            return {name: -value for name, value in found.items()}
        return found
