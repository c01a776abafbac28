"""An ONNX program run by onnxruntime, on the CPU, without torch.

One thread by default: on the small programs of tables a second thread waits longer than it works, and a
server that answers many requests has better use for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penstock.contracts.learn import Runtime
from penstock.core.errors import BundleError
from penstock.core.optional import require
from penstock.core.visible import visible
from penstock.parts.runtimes._protobuf import reads_files


class Onnx(Runtime):
    """Runs `program["file"]` with onnxruntime."""

    def open(
        self, folder: Path, program: Mapping[str, Any], *, threads: int
    ) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        ort = require("onnxruntime", extra="serve", why="answering with a bundle")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Operators run one after another; `intra_op` threads share the work of one.
        options.inter_op_num_threads = 1
        # Errors are told here: onnxruntime's own lines repeat its input unescaped.
        options.log_severity_level = 4
        if threads == 1:
            options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Threads that spin while they wait would keep an idle server busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = folder / program["file"]
        try:
            # Asked before onnxruntime opens the program, and with it the files.
            if reads_files(path.read_bytes()):
                raise BundleError(
                    f"{path} has values in files beside it, which no manifest vouches for. Pack the run"
                    " again."
                )
            session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except BundleError:
            raise
        except Exception as error:  # noqa: BLE001
            # Onnxruntime's errors share no base class, and each means the same here.
            raise BundleError(
                f"onnxruntime cannot read {path}: {_first_line(error)}"
            ) from None
        inputs = [entry["name"] for entry in program["inputs"]]
        outputs = [entry["name"] for entry in program["outputs"]]
        # What the bundle says is compared with what the program really takes.
        stacks = _stacks(program, inputs, path)
        within = set(itertools.chain.from_iterable(stacks.values()))
        single = [name for name in inputs if name not in within]
        taken = [*stacks, *single]
        io = (
            [entry.name for entry in session.get_inputs()],
            [entry.name for entry in session.get_outputs()],
        )
        if sorted(io[0]) != sorted(taken) or sorted(io[1]) != sorted(outputs):
            raise BundleError(
                f"{path} takes {io[0]} and gives {io[1]}; the bundle says it takes {taken} and gives"
                f" {outputs}."
            )

        def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
            fed = {name: arrays[name] for name in single}
            for stack, names in stacks.items():
                # Members side by side behind the batch axis, `[B, F, …]`.
                fed[stack] = np.stack([arrays[name] for name in names], axis=1)
            return dict(zip(outputs, session.run(outputs, fed), strict=True))

        return run

    def specimen(self, folder: Path) -> dict[str, Any]:
        onnx = require("onnx", extra="train", why="making an ONNX program")
        helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [
                helper.make_node("Mul", ["b.value", "two"], ["twice"]),
                helper.make_node("Add", ["a.value", "twice"], ["y.value"]),
            ],
            "specimen",
            [
                helper.make_tensor_value_info(name, numbers, ["rows"])
                for name in ("a.value", "b.value")
            ],
            [helper.make_tensor_value_info("y.value", numbers, ["rows"])],
            [helper.make_tensor("two", numbers, [], [2.0])],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        (folder / "main.onnx").write_bytes(model.SerializeToString())
        entries: list[dict[str, Any]] = [
            {"name": name, "dtype": "float32", "shape": []}
            for name in ("a.value", "b.value", "y.value")
        ]
        return {"file": "main.onnx", "inputs": entries[:2], "outputs": entries[2:]}


def _first_line(error: Exception) -> str:
    return visible(next(iter(str(error).splitlines()), type(error).__name__)[:500])


def _stacks(
    program: Mapping[str, Any], inputs: list[str], path: Path
) -> dict[str, list[str]]:
    """By input of the graph that is a stack, the arrays in it; none in bundles of few inputs, or from before
    there were stacks.

    Raises:
        BundleError: a stack is no list of the program's inputs, or an input lies in two.
    """
    stacks = program.get("stacks", {})
    lists: list[Any] = list(stacks.values()) if isinstance(stacks, dict) else [None]
    if not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        for names in lists
    ):
        raise BundleError(
            f"the bundle's `stacks` of {path} must be lists of input names, by stack. Pack it again."
        )
    # An input within two stacks, or unknown, would be fed wrongly in silence.
    within = list(itertools.chain.from_iterable(lists))
    if (
        len(set(within)) != len(within)
        or not set(within) <= set(inputs)
        or set(stacks) & set(inputs)
    ):
        raise BundleError(
            f"the bundle's `stacks` of {path} must have inputs of the program, each once. Pack it again."
        )
    return dict(stacks)
