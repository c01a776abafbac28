"""Exporting: whose sentence is told when it fails."""

from __future__ import annotations

import pytest

from penstock.bundle.export import write_onnx


def test_a_sentence_of_ours_in_the_middle_of_an_export_is_told_as_it_is(
    tmp_path, monkeypatch
):
    import torch

    from penstock.core.errors import UserError

    def full(*_, **__):
        try:
            raise UserError("pack held 997 MiB")
        except UserError as error:
            raise RuntimeError("the exporter failed") from error

    monkeypatch.setattr(torch.export, "export", full)

    class Program:
        def example(self):
            return ()

        def dynamic_shapes(self):
            return None

    with pytest.raises(UserError, match=r"^pack held 997 MiB$"):
        write_onnx(Program(), tmp_path / "model.onnx")
