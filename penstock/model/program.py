"""A trained network and its answers as one function of arrays, which is what a bundle ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from penstock.contracts.learn import Decoder, model_inputs
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.model.choices import Encoding
from penstock.model.fake import fake_batch


class Program(nn.Module):
    """A trained network and its decoders' answers as one function of arrays.

    `forward(*arrays)` takes the inputs in the order of `input_names` (`<feature>.<array>`) and returns a
    tuple in the order of `output_names` (`<target>.<answer>`). For `torch.onnx.export(program,
    program.example(), dynamic_shapes=program.dynamic_shapes(), dynamo=True, …)`.
    """

    def __init__(
        self, network: nn.Module, decoders: Mapping[str, Decoder], encoding: Encoding
    ) -> None:
        super().__init__()
        self.network = network
        self._decoders = dict(decoders)
        self._inputs = encoding.specs("inputs")
        self._targets = encoding.specs("targets")
        self.input_names = model_inputs(self._inputs)
        self.eval()
        # What a decoder answers is known by asking it.
        with torch.no_grad():
            batch = dict(zip(self.input_names, self.example(), strict=True))
            self.output_names = list(self._answers(self.network(batch)))

    def _answers(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{name}.{answer}": value
            for name, decoder in self._decoders.items()
            for answer, value in decoder.answer(raw[name], self._targets[name]).items()
        }

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        return self.answers(dict(zip(self.input_names, arrays, strict=True)))

    def answers(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The answers to a batch by `<feature>.<array>`, in the order of `output_names`."""
        return tuple(self._answers(self.network(batch)).values())

    def specs(self) -> FeatureSpecs:
        """The inputs' arrays."""
        return self._inputs

    def readers(self) -> dict[str, str]:
        """By input, the encoder that reads it; none where the network is the user's module."""
        encoded = getattr(self.network, "encoded", {})
        return {name: key for key, names in encoded.items() for name in names}

    def example(self, rows: int = 3, *, length: int = 5) -> tuple[Tensor, ...]:
        """Arrays to trace with, where the network is; open axes have `length`."""
        # A network without parameters lives on the CPU.
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        return tuple(
            array.to(device)
            for array in fake_batch(self._inputs, rows, length=length).values()
        )

    def dynamic_shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
        """Which axes vary: the batch, and each length that a spec leaves open.

        One tuple within another, since `forward` takes its arrays as `*arrays`.
        """
        specs = [spec for arrays in self._inputs.values() for spec in arrays.values()]
        return (tuple(_open_axes(spec) for spec in specs),)


def _open_axes(spec: TensorSpec) -> dict[int, Any]:
    lengths = {
        # A spec's shape has no batch axis, which the arrays have as their first.
        axis + 1: Dim.DYNAMIC
        for axis, size in enumerate(spec.shape)
        if size is None
    }
    # The exporter fixes every axis that is not named here.
    return {0: Dim.DYNAMIC, **lengths}
