"""Generated texts: the decoder that tells them, and what is measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.learn import Decoder, Encoded
from penstock.contracts.tensors import TensorSpec
from penstock.metrics import Measures, intervals, kind_of, measure
from penstock.model import seeded
from penstock.testing.laws import decoders as laws
from penstock.testing.laws._learning import encoded

torch.set_num_threads(1)
BEGIN, END, LENGTH, WORDS = 2, 3, 7, 9
SPEC = {
    "tokens": TensorSpec(
        "int64",
        (None,),
        "target",
        ("time",),
        WORDS,
        {"begin": BEGIN, "end": END, "length": LENGTH},
    ),
    "mask": TensorSpec("bool", (None,), "mask", ("time",)),
}


def made(seed: int = 0, **options: Any) -> Any:
    decoder = Decoder.load({"type": "text", "hidden": 12, "embedding": 8, **options})
    with seeded(seed):
        return decoder, decoder.build(SPEC, 8)


def truth() -> dict[str, torch.Tensor]:
    """Row i tells word 4 + i % 5 twice, or once."""
    rows = [
        [BEGIN, 4 + i % 5, 4 + i % 5, END] if i % 2 else [BEGIN, 4 + i % 5, END, 0]
        for i in range(20)
    ]
    tokens = torch.tensor(rows)
    return {"tokens": tokens, "mask": tokens > 0}


@pytest.mark.parametrize(
    "law",
    [
        laws.deterministic,
        laws.measured,
        laws.refuses,
        laws.declared,
        laws.light,
        laws.saved,
    ],
    ids=lambda law: law.__name__,
)
def test_laws(law: laws.Law) -> None:
    law(Decoder.load({"type": "text", "hidden": 12, "embedding": 8}), SPEC)


def test_it_learns_to_tell() -> None:
    decoder, module = made(dropout=0.0)
    known, told = encoded(20, 3, 8, padding=1), truth()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = decoder.loss(module(known, told), told, SPEC)
        assert loss.shape == (20,)
        loss.sum().backward()
        assert all(
            p.grad is not None and bool(torch.isfinite(p.grad).all())
            for p in module.parameters()
        )
        optimiser.step()
        losses.append(float(loss.detach().mean()))
    assert losses[-1] < 0.05 < losses[0]
    module.eval()
    for beam in (1, 4):
        module.beam = beam
        tokens = decoder.answer(module(known), SPEC)["tokens"]
        assert tokens.shape == (20, LENGTH - 1)
        for row, wanted in zip(tokens.tolist(), told["tokens"].tolist(), strict=True):
            assert row[: row.index(END)] == wanted[1 : wanted.index(END)]


def test_padding_of_the_truth_and_of_the_memory_changes_nothing() -> None:
    decoder, module = made()
    module.eval()
    known, told = encoded(20, 4, 8, padding=1), truth()
    longer = {
        name: torch.nn.functional.pad(array, (0, 3)) for name, array in told.items()
    }
    with torch.no_grad():
        one, other = (
            decoder.loss(module(known, told), told, SPEC),
            decoder.loss(module(known, longer), longer, SPEC),
        )
        torch.testing.assert_close(one, other)
        garbage = Encoded(
            torch.where(known.mask.unsqueeze(-1), known.tokens, torch.full((), 50.0)),
            known.mask,
            known.pooled,
        )
        assert torch.equal(module(known), module(garbage))
        assert torch.equal(
            module(Encoded(*(part[3:4] for part in known))), module(known)[3:4]
        )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_nothing_unsayable_is_said_and_an_end_is_an_end(seed: int) -> None:
    _, module = made(seed, beam=1, length_power=0.0)
    module.eval()
    known = encoded(4, 2, 8, seed=seed)
    for beam in (1, 6):
        module.beam = beam
        with torch.no_grad():
            said = module(known)
        for row in said.tolist():
            assert min(row) >= END
            assert END not in row or set(row[row.index(END) :]) == {END}


def test_the_step_written_out_is_torchs() -> None:
    _, module = made()
    ids, state = torch.tensor([[4, 5], [6, 7]]), torch.randn(2, 2, 12)
    wanted = module.layer(module.table(ids).reshape(4, 1, 8), state.reshape(1, 4, 12))[
        0
    ].reshape(2, 2, 12)
    torch.testing.assert_close(module._step(ids, state), wanted)


@pytest.mark.parametrize("beam", [1, 3])
def test_the_whole_of_telling_is_one_onnx_program(beam: int, tmp_path: Path) -> None:
    import onnxruntime

    from penstock.bundle.export import write_onnx

    _, module = made(beam=beam)

    class Program(torch.nn.Module):
        input_names, output_names = ["tokens", "mask", "pooled"], ["told"]

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(
            self, tokens: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor
        ) -> torch.Tensor:
            return self.module(Encoded(tokens, mask, pooled))  # type: ignore[no-any-return]

        def example(self) -> tuple[torch.Tensor, ...]:
            return tuple(encoded(3, 4, 8, padding=1))

        def dynamic_shapes(self) -> Any:
            free = torch.export.Dim.DYNAMIC
            return ({0: free, 1: free}, {0: free, 1: free}, {0: free})

    write_onnx(Program().eval(), tmp_path / "main.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "main.onnx"))
    for rows, tokens in ((1, 2), (9, 6)):
        known = encoded(rows, tokens, 8, seed=5)
        (found,) = session.run(
            None,
            {
                name: part.numpy()
                for name, part in zip(Program.input_names, known, strict=True)
            },
        )
        with torch.no_grad():
            assert found.tolist() == module.eval()(known).tolist()


# -- measures ------------------------------------------------------------------------------------------------

TRUE = np.array(
    ["a red shirt for men", "blue jeans", "žluťoučký kůň pěl", "a hat"], object
)
SAID = np.array(["a red shirt for women", "blue jeans", "žluťoučký kůň", ""], object)


def test_measures_are_the_libraries_and_halves_merge() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    found = measure(["bleu", "rouge_l"], TRUE, {"text": SAID})
    assert kind_of({"text": SAID}) == "text"
    assert found["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(list(SAID), [list(TRUE)]).score / 100
    )
    assert found["rouge_l"] == pytest.approx(np.mean([0.8, 1.0, 0.8, 0.0])), (
        "letters beyond a to z are words as well"
    )
    halves = [Measures(["bleu", "rouge_l"]) for _ in range(2)]
    halves[0].update(TRUE[:1], {"text": SAID[:1]})
    halves[1].update(TRUE[1:], {"text": SAID[1:]})
    halves[0].merge(halves[1])
    assert halves[0].result() == found
    assert measure(["bleu", "rouge_l"], TRUE, {"text": TRUE}) == pytest.approx(
        {"bleu": 1.0, "rouge_l": 1.0}
    )
    assert measure(["bleu", "rouge_l"], TRUE[:0], {"text": SAID[:0]}) == {
        "bleu": None,
        "rouge_l": None,
    }


def test_intervals_hold_the_measure() -> None:
    many, said = np.tile(TRUE, 20), np.tile(SAID, 20)
    found = intervals(["bleu", "rouge_l"], many, {"text": said}, resamples=50)
    at = measure(["bleu", "rouge_l"], many, {"text": said})
    assert all(low <= at[name] <= high for name, (low, high) in found.items())  # type: ignore[misc]


def test_weights_count() -> None:
    doubled = measure(
        ["bleu", "rouge_l"], TRUE, {"text": SAID}, np.array([2.0, 1.0, 1.0, 0.0])
    )
    assert doubled == pytest.approx(
        measure(["bleu", "rouge_l"], TRUE[[0, 0, 1, 2]], {"text": SAID[[0, 0, 1, 2]]})
    )


def test_the_truth_keeps_the_place_of_what_the_model_cannot_say() -> None:
    import pyarrow as pa

    from penstock.contracts.data import Feature
    from penstock.testing.laws.features import Specimen, fit

    feature = Feature.load({"type": "text", "min_count": 2, "lower": False, "length": 5})
    _, fitted = fit(
        Specimen(feature, (pa.array(["Žluť hat", "Žluť hat", "a hat"]),), target=True)
    )
    stored = feature.encode(pa.array(["Žluť hat", "my old hat"]), fitted)
    assert feature.truth(stored, fitted).tolist() == ["Žluť hat", "⟨unk⟩  ⟨unk⟩ hat"]
    told = np.array([[4, 5, END, 4], [5, END, END, END]])
    assert set(feature.judged({"tokens": told}, fitted)["text"]) <= {
        "Žluť hat",
        "hat Žluť",
        "hat",
        "Žluť",
    }
