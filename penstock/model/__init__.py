"""Encoders → combiner → decoders, assembled from specs; or the user's own `nn.Module` in their place.

What comes in is a recipe and an encoding (anything with features and their `TensorSpec`s); what comes out is
a network with `forward(batch) → {target: raw}` and, for export, a program with `forward(*arrays) → answers`.
This room knows no rows, no files and no task.

- `choices`: which encoder, combiner and decoder a recipe means.
- `build`: the network of a recipe, each module initialised from a seed of its own (`seeding`).
- `network`: what is built. A module is called by its feature's name (`encoders.text:bio`), so that
  `train.from` finds it again in another model.
- `ensemble`: several networks that are one, and the decoders that read what all of them say.
- `own`: the user's own module, looked at before it is trained.
- `targets`: class weights (`train.class_weights`) become the fact `weights` of the target's spec, which
  decoders read in their loss: whoever calls `Objective.phases` passes `target_specs(recipe, encoding)`.
- `program`: a trained network and its answers as one function of arrays, for export.
- `fake`: batches of chance, to try a model out.
"""

from __future__ import annotations

from penstock.model.build import build_network
from penstock.model.choices import (
    Encoding,
    combiner_of,
    decoders_of,
    encoders_of,
    ensemble_of,
    separate_members,
)
from penstock.model.ensemble import networks_of
from penstock.model.fake import fake_batch
from penstock.model.network import Network, parameter_count
from penstock.model.own import OwnNetwork
from penstock.model.program import Program
from penstock.model.seeding import seeded
from penstock.model.targets import target_specs

__all__ = [
    "Encoding",
    "Network",
    "OwnNetwork",
    "Program",
    "build_network",
    "combiner_of",
    "decoders_of",
    "encoders_of",
    "ensemble_of",
    "fake_batch",
    "networks_of",
    "parameter_count",
    "seeded",
    "separate_members",
    "target_specs",
]
