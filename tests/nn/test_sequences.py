"""What the encoders of token sequences share: padding never matters, and recurrent networks become ONNX's
own.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.nn.recurrent import OneWay, Recurrent, onnx_translations, reversal, turned
from penstock.nn.sequences import max_there, mean_there, places

torch.set_num_threads(1)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
@settings(deadline=None)
def test_turning_around_twice_is_nothing(lengths):
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), 6, 2)
    turn = reversal(mask)
    assert torch.equal(turned(turned(x, turn), turn), x)
    for row, length in enumerate(lengths):
        assert torch.equal(turned(x, turn)[row, :length], x[row, :length].flip(0))


def test_means_and_maxima_are_of_what_is_there():
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_there(x, mask).tolist() == [[2.0], [0.0]]
    assert max_there(x, mask).tolist() == [[3.0], [0.0]]


def test_places_differ_and_do_not_depend_on_the_length():
    like = torch.zeros(1)
    assert torch.equal(places(4, 8, like), places(9, 8, like)[:, :4])
    assert len({tuple(row.tolist()) for row in places(50, 8, like)[0]}) == 50


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_operator_for_export_is_torchs_own_layer(cell):
    layer = OneWay(3, 4, cell)
    x = torch.randn(2, 5, 3)
    run = getattr(torch.ops.penstock, cell)
    inner = layer.layer
    assert torch.allclose(
        run(
            x, inner.weight_ih_l0, inner.weight_hh_l0, inner.bias_ih_l0, inner.bias_hh_l0
        ),
        layer(x),
        atol=1e-6,
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_onnxruntime_answers_as_torch_does_at_any_length(cell):
    import onnxruntime

    module = Recurrent(3, 4, 2, cell=cell, dropout=0.0).eval()
    free = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own chatter
        exported = torch.export.export(
            module,
            (torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)),
            dynamic_shapes=({0: free, 1: free}, {0: free, 1: free}),
            strict=False,
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            input_names=["x", "mask"],
            output_names=["tokens", "pooled"],
            custom_translation_table=onnx_translations(),
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for rows, length in ((1, 1), (3, 9)):
        x = torch.randn(rows, length, 3)
        mask = torch.arange(length)[None] < torch.randint(0, length + 1, (rows, 1))
        with torch.no_grad():
            wanted = module(x, mask)
        found = session.run(None, {"x": x.numpy(), "mask": mask.numpy()})
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-5)
