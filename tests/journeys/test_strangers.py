"""Strangers enter by the same door: a user's own encoder, and a user's own torch module as the whole
model.
"""

from __future__ import annotations

import shutil
import sys

import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import BundleError

ENCODER = '''
"""A number as a bump around its mean."""
from penstock.contracts.learn import Encoded, Encoder


class Bump(Encoder):
    """exp(-x²), then a line."""

    sharpness: float = 1.0

    def reads(self, spec):
        return None if "value" in spec else "needs one number"

    def build(self, features, width):
        import torch
        from torch import nn

        (name,) = features
        sharpness = self.sharpness

        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                self.width = self.pooled_width = width or 8
                self.line = nn.Linear(2, self.width)

            def forward(self, batch):
                x = batch[f"{name}.value"]
                token = self.line(torch.stack([torch.exp(-sharpness * x * x), x], 1))
                return Encoded(token.unsqueeze(1), torch.ones_like(token[:, :1], dtype=torch.bool), token)

        return Module()
'''

MODULE = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, specs, width=16):
        super().__init__()
        self.city = nn.Embedding(specs["city"]["index"].cardinality, width)
        self.body = nn.Sequential(nn.Linear(width + 1, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, batch):
        x = torch.cat([self.city(batch["city.index"]), batch["age.value"].unsqueeze(1)], 1)
        return {"pay": self.body(x)[:, 0]}


class Stubborn(Net):
    """It decides by looking at the numbers, which no export can follow."""

    def forward(self, batch):
        out = super().forward(batch)
        if float(out["pay"].detach().sum()) > 1e9:
            return {"pay": -out["pay"]}
        return out


class Wrong(Net):
    def forward(self, batch):
        return {"payy": super().forward(batch)["pay"]}
'''


@pytest.fixture
def workshop(people, tmp_path):
    folder = tmp_path / "people"
    shutil.copytree(people, folder)
    (folder / "acme_tests").mkdir()
    (folder / "acme_tests" / "__init__.py").write_text("")
    (folder / "acme_tests" / "bump.py").write_text(ENCODER)
    (folder / "acme_net.py").write_text(MODULE)
    before = set(sys.modules), list(sys.path)
    yield folder
    for name in set(sys.modules) - before[0]:
        if name.startswith("acme_"):
            del sys.modules[name]
    sys.path[:] = before[1]


def test_a_users_own_encoder(workshop):
    outcome = penstock.run(
        workshop / "recipe.yaml",
        overrides=[
            "model.encoders={age: {type: acme_tests.bump, sharpness: 0.5}}",
            "train.epochs=1",
        ],
    )
    assert outcome.report["metrics"]["test"]["pay"]["roc_auc"] is not None
    assert outcome.bundle.predict(
        {"id": [1], "age": [30], "city": ["Oslo"], "joined": ["2026-01-02"]}
    )["pay"][0] in ("high", "low")


def test_a_users_own_module_is_exported_like_any_other(workshop):
    outcome = penstock.run(
        workshop / "recipe.yaml",
        overrides=[
            "model={type: 'acme_net:Net', arguments: {width: 8}}",
            "train.epochs=2",
        ],
    )
    assert outcome.report["metrics"]["test"]["pay"]["roc_auc"] > 0.5
    again = penstock.Bundle.open(outcome.bundle.path)
    assert again.predict(
        {"id": [1], "age": [30], "city": ["Oslo"], "joined": ["2026-01-02"]}
    )["pay"][0] in (
        "high",
        "low",
    )


def test_a_module_that_cannot_be_exported_ships_as_source_and_opens_only_when_trusted(
    workshop,
):
    outcome = penstock.run(
        workshop / "recipe.yaml",
        overrides=[
            "model={type: 'acme_net:Stubborn'}",
            "train.epochs=1",
            "evaluate.baselines=false",
        ],
    )
    with pytest.raises(BundleError, match="trust"):
        penstock.Bundle.open(outcome.bundle.path)
    again = penstock.run(
        workshop / "recipe.yaml",
        overrides=[
            "model={type: 'acme_net:Stubborn'}",
            "train.epochs=1",
            "evaluate.baselines=false",
        ],
    )
    # it is known for this user's own by its content
    assert all(again.skipped.values()) and again.bundle.id == outcome.bundle.id
    trusted = penstock.Bundle.open(outcome.bundle.path, trust=True)
    assert trusted.predict(
        {"id": [1], "age": [30], "city": ["Oslo"], "joined": ["2026-01-02"]}
    )["pay"][0] in ("high", "low")


def test_a_module_that_answers_wrongly_is_told(workshop, capsys):
    assert (
        main(
            [
                "train",
                str(workshop / "recipe.yaml"),
                "--set",
                "model={type: 'acme_net:Wrong'}",
            ]
        )
        == 2
    )
    assert "pay" in capsys.readouterr().err
    assert (
        main(
            [
                "train",
                str(workshop / "recipe.yaml"),
                "--set",
                "model={type: 'acme_net:Nett'}",
            ]
        )
        == 2
    )
    assert "Did you mean 'Net'" in capsys.readouterr().err
