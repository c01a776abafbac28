"""Runtimes: their laws, and what they say of programs that cannot be."""

from __future__ import annotations

import pytest

from penstock.contracts.learn import Runtime
from penstock.core.errors import BundleError
from penstock.testing.laws import runtimes as laws


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("type", Runtime.types())
def test_laws(type, law):
    law(Runtime.load(type))


def test_what_is_no_program(tmp_path):
    onnx = Runtime.load("onnx")
    program = onnx.specimen(tmp_path)
    with pytest.raises(BundleError, match="the bundle says it takes"):
        onnx.open(tmp_path, {**program, "inputs": program["inputs"][:1]}, threads=1)
    (tmp_path / "main.onnx").write_bytes(b"nothing of the sort")
    with pytest.raises(BundleError, match="onnxruntime cannot read"):
        onnx.open(tmp_path, program, threads=1)


def test_source_that_cannot_be_run(tmp_path):
    torch = Runtime.load("torch")
    program = torch.specimen(tmp_path)
    with pytest.raises(BundleError, match="cannot be built"):
        torch.open(tmp_path, {**program, "class": "Nut"}, threads=1)
    (tmp_path / "net.py").write_text("import nowhere_to_be_found")
    with pytest.raises(
        BundleError, match="not installed here: No module named 'nowhere_to_be_found'"
    ):
        torch.open(tmp_path, program, threads=1)
