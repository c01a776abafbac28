"""Every encoder on the shelf, with every word its options may be, by every law; and what laws cannot say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import TensorSpec
from penstock.model import fake_batch
from penstock.testing.laws import encoders as laws
from penstock.testing.laws._learning import declarations, inputs

torch.set_num_threads(1)
DECLARED = [part for type in Encoder.types() for part in declarations(Encoder.find(type))]
JUDGED = {
    "bag",
    "embedding",
    "linear",
    "periodic",
    "piecewise",
    "rnn",
    "textcnn",
    "transformer",
}


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "encoder",
    [p for p in DECLARED if p.type in JUDGED],
    ids=lambda part: f"{part.type}-{part}",
)
def test_laws(encoder: Encoder, law: laws.Law) -> None:
    groups = laws.readable(encoder)
    assert groups
    for group in groups.values():
        law(encoder, group)


@pytest.mark.parametrize(
    ("type", "wanted"),
    [
        ("piecewise", {"number", "binary"}),
        ("periodic", {"number", "binary"}),
        ("linear", {"number", "binary", "timestamp", "vector"}),
        ("embedding", {"category"}),
        ("bag", {"text", "grams"}),
        ("textcnn", {"text", "grams"}),
        ("rnn", {"text", "grams"}),
        ("transformer", {"text", "grams"}),
    ],
)
def test_what_each_reads(type: str, wanted: set[str]) -> None:
    assert set(laws.readable(Encoder.load(type))) == wanted


def test_an_encoder_that_breaks_a_law_is_caught() -> None:
    class Leaky(torch.nn.Module):
        width = pooled_width = 1

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name, self.scale = name, torch.nn.Parameter(torch.ones(1))

        def forward(self, batch: dict[str, torch.Tensor]) -> Any:
            from penstock.nn.tokens import each_there

            x = batch[f"{self.name}.value"]
            return each_there(((x - x.mean()) * self.scale).view(-1, 1, 1))

    class Centred(Encoder):
        together = False

        def reads(self, spec: Any) -> str | None:
            return None

        def build(self, features: Any, width: int | None) -> torch.nn.Module:
            return Leaky(next(iter(features)))

    with pytest.raises(AssertionError, match="rows_alone"):
        laws.rows_alone(Centred(), {"age": inputs()["number"]["age"]})


def test_padding_law_judges_open_axes() -> None:
    """A mean over time that forgets its mask breaks the law; one that minds it keeps it."""
    from penstock.contracts.learn import Encoded

    class Mean(torch.nn.Module):
        width = pooled_width = 1

        def __init__(self, masked: bool) -> None:
            super().__init__()
            self.masked, self.scale = masked, torch.nn.Parameter(torch.ones(1))

        def forward(self, batch: dict[str, torch.Tensor]) -> Encoded:
            x, mask = batch["s.value"] * self.scale, batch["s.mask"]
            pooled = (x * mask).sum(1) / mask.sum(1) if self.masked else x.mean(1)
            return Encoded(x.unsqueeze(-1), mask > 0, pooled.unsqueeze(-1))

    class Series(Encoder):
        masked: bool

        def reads(self, spec: Any) -> str | None:
            return None

        def build(self, features: Any, width: int | None) -> torch.nn.Module:
            return Mean(self.masked)

    features = {
        "s": {
            "value": TensorSpec("float32", (None,), "values"),
            "mask": TensorSpec("float32", (None,), "mask"),
        }
    }
    laws.padding(Series(masked=True), features)
    with pytest.raises(AssertionError, match="padding"):
        laws.padding(Series(masked=False), features)


def test_vectors_and_times_go_whole_into_the_linear_map() -> None:
    times = inputs()["timestamp"]
    module = Encoder.load("linear").build(times, 8)
    assert module.layers[0].weight.shape == (2, 5, 8)  # type: ignore[index, union-attr]
    assert module(fake_batch(times, 3)).tokens.shape == (3, 2, 8)


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        Encoder.find("piecewise")(width=0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Encoder.find("embedding")(forget=1.0)  # type: ignore[call-arg]


def test_its_own_width_wins_where_the_combiner_asks_for_none() -> None:
    assert (
        Encoder.load({"type": "embedding", "width": 5})
        .build(inputs()["category"], None)
        .width
        == 5
    )


def test_many_columns_are_quick() -> None:
    """300 columns are one kernel each, not 300: the graph does not grow with them but for the stacking."""
    wide = {f"x{i}": inputs()["number"]["fare.paid"] for i in range(300)}
    module, batch = Encoder.load("piecewise").build(wide, 16), fake_batch(wide, 256)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        module(batch)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert (
        sum(
            count
            for name, count in calls.items()
            if name.startswith(("aten::mm", "aten::bmm", "aten::addmm", "aten::einsum"))
        )
        < 20
    ), calls
