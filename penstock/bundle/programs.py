"""The program of a bundle: ONNX, or the source of a module of the user's that ONNX cannot express.

Modules of the user's travel as copies of their source, and are run only when the bundle is trusted.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from penstock.bundle import export
from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import BundleError
from penstock.core.events import Events
from penstock.encode.encoding import Encoding
from penstock.recipe.schema import OwnModel, Recipe


class Shipped(NamedTuple):
    """A program that has been written into a bundle's folder."""

    runtime: dict[str, Any]
    """The `Runtime` that opens it, as declared."""
    facts: dict[str, Any]
    """What `bundle.json` says of it: what its runtime needs to open it."""
    sources: dict[str, str]
    """Module → file below the folder, of the user's code that it runs."""


def write_program(
    program: Any,
    recipe: Recipe,
    encoding: Encoding,
    decoders: Mapping[str, Decoder],
    folder: Path,
    events: Events,
) -> Shipped:
    """Write a `penstock.model.Program` below `folder`, as ONNX where that is possible.

    Raises:
        BundleError: ONNX cannot express it and it is Penstock's own, or a module has no source.
    """
    try:
        # Inputs that one module reads together go as one stack, where there are many.
        exported, stacks = export.stacked(program)
        export.write_onnx(exported, folder / "programs" / "main.onnx")
        facts = {"file": "programs/main.onnx", **({"stacks": stacks} if stacks else {})}
        return Shipped({"type": "onnx"}, facts, {})
    except export.NotExportable as error:
        # Penstock's own layers must export; only a module of the user's may travel as
        # source.
        if not isinstance(recipe.model, OwnModel):
            raise
        events.warn(
            f"{error.message}. It is included as source code instead: the bundle runs on"
            " torch, and opens only with --trust."
        )
    return _write_source(recipe.model, recipe, encoding, decoders, folder)


def _write_source(
    model: OwnModel,
    recipe: Recipe,
    encoding: Encoding,
    decoders: Mapping[str, Decoder],
    folder: Path,
) -> Shipped:
    """Write the source of the user's module, with all that torch needs to make it again."""
    from penstock.model import target_specs

    module, _, name = model.type.partition(":")
    network_class = getattr(importlib.import_module(module), name)
    # The source as it is now: the recipe's folder need not be there later.
    file = copy_source(module, folder)
    # What the class asks for by name and the recipe does not give, as in training.
    given = [
        parameter
        for parameter in ("specs", "targets")
        if parameter in inspect.signature(network_class).parameters
        and parameter not in model.arguments
    ]
    facts = {
        "file": file,
        "class": name,
        "arguments": model.arguments,
        "given": given,
        "weights": "weights.safetensors",
        "prefix": "module.",
        "decoders": {target: decoder.to_dict() for target, decoder in decoders.items()},
        "specs": _declared(encoding.specs("inputs")),
        "targets": _declared(target_specs(recipe, encoding)),
    }
    return Shipped({"type": "torch"}, facts, {module: file})


def _declared(specs: FeatureSpecs) -> dict[str, dict[str, Any]]:
    """Specs by feature and array, as plain data."""
    return {
        name: {array: spec.to_dict() for array, spec in arrays.items()}
        for name, arrays in specs.items()
    }


def copy_source(module: str, folder: Path) -> str:
    """Copy a module's file below `folder`; returns its path there.

    Raises:
        BundleError: the module has no Python source.
    """
    path = inspect.getsourcefile(importlib.import_module(module))
    if path is None:
        raise BundleError(
            f"the module {module!r} has no Python source that could travel in a bundle."
        )
    name = f"source/{module.replace('.', '/')}.py"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / name)
    return name


def copy_sources_of_types(declared: Any, folder: Path) -> dict[str, str]:
    """Copy the modules behind every dotted `type` that a predictor must load; returns
    module → file.

    Raises:
        BundleError: one of them has no Python source.
    """
    files: dict[str, str] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Mapping):
            module = value.get("type")
            # Built-in types have no dot; only a module path has one.
            if isinstance(module, str) and "." in module and module not in files:
                files[module] = copy_source(module, folder)
            for item in value.values():
                visit(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)

    visit(declared)
    return files


__all__ = ["Shipped", "copy_sources_of_types", "write_program"]
