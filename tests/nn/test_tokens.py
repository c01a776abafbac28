"""Tokens out of columns, against definitions written out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.nn.tokens import (
    FeatureLinear,
    Lookup,
    Periodic,
    PiecewiseLinear,
    StraightAndBent,
    Tokens,
)

torch.set_num_threads(1)
finite = st.floats(-100, 100, width=32)


def by_hand(x: float, edges: list[float], bins: int) -> list[float]:
    """Gorishniy et al. 2022, equation 1, with both outer bins closed."""
    parts = []
    for low, high in pairwise(edges):
        parts.append(0.0 if x < low else 1.0 if x >= high else (x - low) / (high - low))
    return parts + [0.0] * (bins - len(parts))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.integers(-50, 50), unique=True, max_size=8).map(sorted),
        min_size=1,
        max_size=4,
    ),
    st.lists(finite, min_size=4, max_size=4),
)
def test_piecewise_is_the_papers_definition(
    edges: list[list[int]], x: list[float]
) -> None:
    layer = PiecewiseLinear([[float(e) for e in one] for one in edges])
    values = torch.tensor([x[: len(edges)]], dtype=torch.float32)
    found = layer(values)
    assert found.shape == (1, len(edges), layer.bins)
    wanted = [
        by_hand(float(v), [float(e) for e in one], layer.bins)
        for v, one in zip(values[0], edges, strict=True)
    ]
    np.testing.assert_allclose(found[0].numpy(), np.array(wanted), atol=1e-4)


def test_a_value_far_outside_is_encoded_like_the_nearest_seen() -> None:
    layer = PiecewiseLinear([[-1.0, 0.0, 2.0]])
    assert torch.equal(
        layer(torch.tensor([[1e30], [-1e30]])), layer(torch.tensor([[2.0], [-1.0]]))
    )


def test_edges_are_facts_and_not_weights() -> None:
    assert not PiecewiseLinear([[0.0, 1.0]]).state_dict()


def test_each_feature_has_a_linear_map_of_its_own() -> None:
    layer = FeatureLinear(3, 5, 4)
    x = torch.randn(7, 3, 5)
    for f in range(3):
        torch.testing.assert_close(
            layer(x)[:, f], x[:, f] @ layer.weight[f] + layer.bias[f]
        )


def test_a_feature_begins_as_a_straight_line_and_bends_at_its_edges() -> None:
    layer = StraightAndBent(PiecewiseLinear([[-1.0, 0.0, 1.0]]), 2)
    x = torch.tensor([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x).diff(dim=0).diff(dim=0), torch.zeros(3, 1, 2), atol=1e-6, rtol=0
        )
        layer.bent[0, 1] = 1.0
        bend = layer(x).diff(dim=0).diff(dim=0)
        torch.testing.assert_close(
            bend[:, 0],
            torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 0.0]]),
            atol=1e-6,
            rtol=0,
        )


def test_waves_have_their_frequency() -> None:
    layer = Periodic(1, 2, scale=0.1)
    with torch.no_grad():
        layer.frequency.copy_(torch.tensor([[1.0, 0.5]]))
    torch.testing.assert_close(
        layer(torch.tensor([[0.5]]))[0, 0],
        torch.tensor([math.cos(math.pi), math.cos(math.pi / 2), 0.0, 1.0]),
        atol=1e-6,
        rtol=0,
    )


def test_one_table_serves_features_with_equal_indices() -> None:
    lookup = Lookup(["a", "b"], [3, 4], 2, unseen=[1, 1], forget=0.0, dropout=0.0).eval()
    out = lookup({"a.index": torch.tensor([2, 0]), "b.index": torch.tensor([2, 3])})
    torch.testing.assert_close(
        out.tokens, lookup.table.weight[torch.tensor([[2, 5], [0, 6]])]
    )


def test_forgetting_trains_the_unseen_vector_and_spares_the_missing_one() -> None:
    lookup = Lookup(["a", "b"], [5, 5], 2, unseen=[1, None], forget=0.5, dropout=0.0)
    rows = 400
    batch = {
        "a.index": torch.randint(0, 5, (rows,)),
        "b.index": torch.randint(0, 5, (rows,)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens = lookup(batch).tokens
    changed = (tokens != lookup.eval()(batch).tokens).any(-1)
    assert 0.35 < changed[batch["a.index"] > 1, 0].float().mean() < 0.65
    assert not changed[batch["a.index"] == 0, 0].any(), (
        "a missing value is known to be missing"
    )
    assert not changed[:, 1].any(), "a feature without an unseen value forgets nothing"
    assert torch.equal(
        tokens[changed[:, 0], 0],
        lookup.table.weight[1].expand(int(changed[:, 0].sum()), 2),
    )


def test_what_is_no_matrix_is_spared_from_decay() -> None:
    tokens = Tokens(
        ["a"], ["value"], FeatureLinear(1, 1, 4), 4, missing=True, scalar=False
    )
    spared = {
        name
        for name, parameter in tokens.named_parameters()
        if getattr(parameter, "no_decay", False)
    }
    assert spared == {"missing", "layers.bias"}
