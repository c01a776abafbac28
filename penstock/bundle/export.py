"""A trained program → one ONNX file that onnxruntime answers alike.

`torch.export` records the program with a free batch axis, `torch.onnx` translates it. Both are chatty; what
they say is gathered and shown only if they fail. The file is then stripped of stack traces (they name folders
of the machine that made it, and make equal programs differ) and of intermediate shapes (which stop later
quantisation).

The proof is in `difference`: the same arrays through torch and through onnxruntime.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penstock.core.errors import BundleError, PenstockError
from penstock.core.optional import require

TOLERANCE = 1e-4
"""The most that an answer may differ between torch and the exported program, as a share of 1 or of its own
size.
"""

MOST_INPUTS = 64
"""A program of more arrays is exported with those stacked that one module reads together
(`penstock.nn.stacks`).
"""


class NotExportable(BundleError):
    """ONNX cannot express this module; it may still be shipped as source."""


def stacked(program: Any) -> tuple[Any, dict[str, list[str]]]:
    """Return what to export of a `penstock.model.Program`, and for each input that is a
    stack `[B, F, …]` the names of its arrays, in order.

    Small programs are exported as they are.
    """
    if len(program.input_names) <= MOST_INPUTS:
        return program, {}
    from penstock.nn.stacks import StackedProgram, stacks_of

    members = stacks_of(program)
    return (StackedProgram(program, members), members) if members else (program, {})


def write_onnx(program: Any, path: Path) -> None:
    """Export `program` (a `penstock.model.Program`, or what `stacked` makes of it) to one file.

    Raises:
        NotExportable: torch or ONNX cannot express it; the message has their reason.
        MissingPackage: onnx or onnxscript is not installed.
    """
    # Asked for before the long export begins, so that an absent package is told at
    # once.
    torch = require("torch", extra="train", why="packing a bundle")
    require("onnx", extra="train", why="packing a bundle")
    with _quiet() as output_lines:
        require("onnxscript", extra="train", why="packing a bundle")
        try:
            exported = torch.export.export(
                program,
                program.example(),
                dynamic_shapes=program.dynamic_shapes(),
                # Not strict, so that a user's module may use Python that strict tracing
                # refuses.
                strict=False,
            )
            translated = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                input_names=program.input_names,
                output_names=program.output_names,
                optimize=True,
                custom_translation_table=_translations(),
            )
        # Whatever a user's `forward` or the exporter raises means one thing here.
        except Exception as error:
            # The exporter wraps errors in its own; a sentence of the house's may lie
            # anywhere in the chain.
            within: BaseException | None = error
            while within is not None and not isinstance(within, PenstockError):
                within = within.__cause__ or within.__context__
            if within is not None:  # a ceiling's sentence, which came in the middle of it
                raise within from None
            reason = (
                next(
                    (line.strip() for line in str(error).splitlines() if line.strip()), ""
                )
                or (output_lines()[-1:] or [""])[0]
            )
            raise NotExportable(
                f"the model cannot be exported to ONNX: {type(error).__name__}: {reason[:500]}"
            ) from error
        proto = translated.model_proto
    _strip(proto)
    # Deterministic, so that equal programs have equal bytes and one id.
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _translations() -> dict[Any, Any]:
    """Return the ONNX translations of Penstock's own operators; none unless the program
    has a recurrent network.
    """
    # Looked up, not imported: it defines torch operators when it loads.
    recurrent = sys.modules.get("penstock.nn.recurrent")
    return recurrent.onnx_translations() if recurrent else {}


def _strip(proto: Any) -> None:
    # Shapes of intermediate values would stop later quantisation.
    del proto.graph.value_info[:]
    for holder in (proto, proto.graph, *proto.functions):
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
    for entry in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del entry.metadata_props[:]
        entry.ClearField("doc_string")


@contextlib.contextmanager
def _quiet() -> Iterator[Callable[[], list[str]]]:
    """Context without output, warnings and logs; yields a function that returns the
    printed lines.
    """
    heard = io.StringIO()
    loggers = [
        logging.getLogger(name)
        for name in (
            "torch",
            "torch.onnx",
            "torch.onnx._internal.exporter._registration",
            "onnxscript",
            "onnx_ir",
        )
    ]
    levels = [logger.level for logger in loggers]
    # A maintainer who asks torch for logs gets them.
    quiet = os.environ.get("TORCH_LOGS") is None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(heard):
            warnings.simplefilter("ignore")
            if quiet:
                for logger in loggers:
                    logger.setLevel(logging.CRITICAL)
            yield lambda: [
                line.strip() for line in heard.getvalue().splitlines() if line.strip()
            ]
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_torch(program: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run the program with torch; answers by output name."""
    torch = require("torch", extra="train", why="packing a bundle")
    with torch.inference_mode():
        tensors = program(
            *(
                torch.from_numpy(np.ascontiguousarray(arrays[name]))
                for name in program.input_names
            )
        )
    return {
        name: tensor.cpu().numpy()
        for name, tensor in zip(program.output_names, tensors, strict=True)
    }


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference between two sets of answers, each relative to the
    answer's size, or to 1 if that is more.
    """
    worst = 0.0
    for name, left in one.items():
        right = other[name]
        # A wrong shape is no small difference, whatever the values are.
        if left.shape != right.shape:
            return float("inf")
        if not left.size:
            continue
        a, b = left.astype(np.float64), right.astype(np.float64)
        # Equal infinities and NaN on both sides are no difference; subtracting them
        # would be NaN.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
        worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max()))
    return worst


def signature(
    program: Any, specs: Mapping[str, Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a program's inputs and outputs: `name`, `dtype`, `shape` without the batch
    axis (None where a length varies).
    """
    flat = {
        f"{feature}.{array}": spec
        for feature, arrays in specs.items()
        for array, spec in arrays.items()
    }
    inputs = [
        {"name": name, "dtype": flat[name].dtype, "shape": list(flat[name].shape)}
        for name in program.input_names
    ]
    tried = [
        run_torch(
            program,
            {
                name: tensor.cpu().numpy()
                for name, tensor in zip(
                    program.input_names, program.example(length=length), strict=True
                )
            },
        )
        # A length that varies shows as a size that differs between the two trials.
        for length in (
            (5, 7) if any(None in entry["shape"] for entry in inputs) else (5,)
        )
    ]
    outputs = [
        {
            "name": name,
            "dtype": str(array.dtype),
            "shape": [
                size if size == other else None
                for size, other in zip(
                    array.shape[1:], tried[-1][name].shape[1:], strict=True
                )
            ],
        }
        for name, array in tried[0].items()
    ]
    return inputs, outputs
