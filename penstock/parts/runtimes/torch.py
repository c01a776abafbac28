"""A user's own `torch.nn.Module`, run from the source that came with the bundle: for modules that ONNX cannot
express.

The source is executed, so the bundle opens only when trusted. The module takes the collated arrays by name
and returns one raw tensor per target; the decoders, which are Penstock's, make answers of them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from penstock.contracts.learn import Decoder, Runtime
from penstock.contracts.tensors import TensorSpec
from penstock.core.credentials import option_again
from penstock.core.errors import BundleError
from penstock.core.identity import sha256_file
from penstock.core.optional import require
from penstock.core.redact import BLANK


class Torch(Runtime):
    """Runs `program["class"]` out of `program["file"]`, a Python source file, with the weights in
    `program["weights"]`.
    """

    foreign: ClassVar[bool] = True

    def open(
        self, folder: Path, program: Mapping[str, Any], *, threads: int
    ) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        torch = require(
            "torch",
            extra="train",
            why="running a bundle whose module could not be exported",
        )
        torch.set_num_threads(threads)  # torch knows one number for the whole process
        require("safetensors.torch", extra="train", why="reading a bundle's weights")
        from penstock.nn.weights import read_tensors, take_weights

        specs = {side: _specs(program[side]) for side in ("specs", "targets")}
        network = self._network(folder, program, specs)
        weights = read_tensors(folder / program["weights"], error=BundleError)
        # The run's network wraps the user's module under this name.
        prefix = program["prefix"]
        take_weights(
            network,
            {name.removeprefix(prefix): tensor for name, tensor in weights.items()},
            where=f"the weights in {folder}",
            error=BundleError,
        )
        # Dropout and batch statistics belong to training.
        network.eval()
        decoders = {
            target: Decoder.load(declared)
            for target, declared in program["decoders"].items()
        }
        names = [entry["name"] for entry in program["inputs"]]

        def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
            with torch.inference_mode():
                raw = network({name: torch.from_numpy(arrays[name]) for name in names})
                answers = {
                    target: decoder.answer(raw[target], specs["targets"][target])
                    for target, decoder in decoders.items()
                }
            return {
                f"{target}.{name}": tensor.numpy()
                for target, tensors in answers.items()
                for name, tensor in tensors.items()
            }

        return run

    def _network(
        self, folder: Path, program: Mapping[str, Any], specs: Mapping[str, Any]
    ) -> Any:
        """The user's module, built from its source with the arguments of the recipe; its weights are those of
        chance.
        """
        torch = require(
            "torch",
            extra="train",
            why="running a bundle whose module could not be exported",
        )
        module = source_module(folder / program["file"])
        # What was blanked as a credential when the bundle was packed is asked for again.
        arguments = {
            name: option_again(name, strict=True) if value == BLANK else value
            for name, value in program["arguments"].items()
        }
        # `specs` and `targets`, where the class takes them, as in training.
        arguments.update({word: specs[word] for word in program["given"]})
        try:
            module_class = getattr(module, program["class"])
            if not (
                isinstance(module_class, type)
                and issubclass(module_class, torch.nn.Module)
            ):
                raise TypeError(f"{program['class']} is no torch.nn.Module")
            return module_class(**arguments)
        except (AttributeError, TypeError) as error:
            raise BundleError(
                f"the module in {folder / program['file']} cannot be built: {error}"
            ) from None

    def specimen(self, folder: Path) -> dict[str, Any]:
        torch = require(
            "torch",
            extra="train",
            why="running a bundle whose module could not be exported",
        )
        safetensors = require(
            "safetensors.torch", extra="train", why="writing a bundle's weights"
        )
        (folder / "net.py").write_text(_SPECIMEN, "utf-8")
        safetensors.save_file(
            {"module.two": torch.tensor(2.0)}, str(folder / "weights.safetensors")
        )
        entries: list[dict[str, Any]] = [
            {"name": name, "dtype": "float32", "shape": []}
            for name in ("a.value", "b.value", "y.value")
        ]
        target = TensorSpec("float32", role="target", facts={"mean": 0.0, "std": 1.0})
        return {
            "file": "net.py",
            "class": "Net",
            "arguments": {},
            "given": [],
            "weights": "weights.safetensors",
            "prefix": "module.",
            "inputs": entries[:2],
            "outputs": entries[2:],
            "decoders": {"y": {"type": "number"}},
            "specs": {},
            "targets": {"y": {"value": target.to_dict()}},
        }


def _specs(features: Mapping[str, Any]) -> dict[str, dict[str, TensorSpec]]:
    """By feature and array, the specs that `bundle.json` has as objects."""
    return {
        name: {array: TensorSpec.load(spec) for array, spec in arrays.items()}
        for name, arrays in features.items()
    }


_SPECIMEN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.two = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        return {"y": batch["a.value"] + self.two * batch["b.value"]}
"""


def source_module(path: Path) -> Any:
    """The Python file at `path`, executed under a name that its content decides, so that two versions live
    side by side.
    """
    # By content: two bundles may hold modules of one name.
    name = f"penstock_bundle_{sha256_file(path)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BundleError(f"{path} is not a Python source file.")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        raise BundleError(f"{path} imports what is not installed here: {error}") from None
    return module
