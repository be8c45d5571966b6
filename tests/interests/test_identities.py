"""Three exact identities behind DMF, for any sizes: its fast form, and its relations to SimTier and early fusion."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.interests.direct import direct_dta
from tests.interests.helpers import make_inputs, randomize, tensors
from tfctr.interests import (
    DecoupledTargetAttention,
    EarlyFusionAttention,
    SimilarityHistogram,
    TargetAttention,
)

Drawn = tuple[dict[str, Any], dict[str, Any], int]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """Inputs, arguments of the attention, and the width."""
    heads, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    length = draw(st.integers(1, 9))
    batch = draw(st.integers(1, 3))
    inputs = make_inputs(
        batch=batch,
        candidates=draw(st.integers(1, 4)),
        length=length,
        width=heads * size,
        lengths=[draw(st.integers(0, length)) for _ in range(batch)],
        seed=draw(st.integers(0, 1000)),
    )
    arguments = {
        "frozen": draw(st.sampled_from([["text"], ["text", "image"]])),
        "bins": draw(st.integers(1, 12)),
        "num_heads": heads,
        "soft_buckets": draw(st.booleans()),
        "scale": draw(st.booleans()),
        "activation": draw(st.sampled_from(["softmax", "sigmoid", "relu"])),
    }
    return tensors(inputs), arguments, heads * size


def build(cls: Any, width: int, **arguments: Any) -> Any:
    layer = cls(**arguments)
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


def assert_near(actual: Any, expected: Any) -> None:
    expected = ops.convert_to_numpy(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * max(1.0, np.max(np.abs(expected), initial=0.0)))


def check_factored(case: Drawn, enrich_values: bool) -> None:
    inputs, arguments, width = case
    layer = build(DecoupledTargetAttention, width, enrich_values=enrich_values, **arguments)
    assert_near(layer(inputs), direct_dta(layer, inputs))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(case=drawn(), enrich_values=st.booleans())
def test_factored_attention_is_the_direct_one(case: Drawn, enrich_values: bool) -> None:
    """q K = q (X W_K) + (q E_K^T)[b], and a V = a (X W_V) + h E_V."""
    check_factored(case, enrich_values)


def check_uniform(case: Drawn) -> None:
    inputs, arguments, width = case
    arguments = {**arguments, "activation": "softmax", "output_projection": False}
    attention = build(DecoupledTargetAttention, width, **arguments)
    for dense in (attention.query, attention.value):
        dense.kernel.assign(np.zeros((width, width)))
    shared = ("frozen", "bins", "soft_buckets")
    histogram = SimilarityHistogram(counts="fraction", **{name: arguments[name] for name in shared})
    state = {**histogram.encode(inputs["sequence"]), **inputs["sequence"]}
    features = histogram.features(state["length"], histogram.buckets(state, inputs["candidate"]))
    table = ops.concatenate([ops.convert_to_tensor(one) for one in attention.value_tables.values()], axis=0)
    assert_near(attention(inputs), ops.matmul(features, table))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(case=drawn())
def test_values_under_uniform_attention_are_simtier_over_the_length(case: Drawn) -> None:
    """With W_Q = 0 all weights are 1 / L, and with W_V = 0 the output is counts / L times E_V."""
    check_uniform(case)


def check_early(case: Drawn, similarity_dim: int | None) -> None:
    inputs, arguments, width = case
    early = build(EarlyFusionAttention, width, similarity_dim=similarity_dim, **arguments)
    folded = build(DecoupledTargetAttention, width, **arguments)
    folded.query.kernel.assign(early.query.kernel)
    folded.output_dense.kernel.assign(early.output_dense.kernel)
    for kind, tables in (("key", folded.key_tables), ("value", folded.value_tables)):
        of_ids, *of_similarity = np.split(
            ops.convert_to_numpy(getattr(early, kind).kernel),
            [width + i * (similarity_dim or width) for i in range(len(early.frozen_names))],
        )
        getattr(folded, kind).kernel.assign(of_ids)
        for name, kernel in zip(early.frozen_names, of_similarity, strict=True):
            tables[name].assign(ops.convert_to_numpy(early.tables[name]) @ kernel)
    assert_near(folded(inputs), early(inputs))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(case=drawn(), similarity_dim=st.sampled_from([None, 1, 3]))
def test_early_fusion_over_buckets_folds_into_dta(case: Drawn, similarity_dim: int | None) -> None:
    """[x_i ; T[b_i]] W = x_i W_x + (T W_s)[b_i]: DTA with E = T W_s, for one table or several."""
    check_early(case, similarity_dim)


def fixed(soft: bool, activation: str) -> Drawn:
    arguments = {
        "frozen": ["text", "image"],
        "bins": 5,
        "num_heads": 2,
        "soft_buckets": soft,
        "scale": True,
        "activation": activation,
    }
    return tensors(make_inputs()), arguments, 8


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "relu"])
def test_all_three_where_nothing_is_drawn(soft: bool, activation: str) -> None:
    """The three identities at fixed sizes, for the backends on which drawing sizes takes too long."""
    case = fixed(soft, activation)
    check_factored(case, True)
    check_uniform(case)
    check_early(case, None)


@pytest.mark.parametrize("cls", [DecoupledTargetAttention, EarlyFusionAttention])
def test_without_tables_both_are_target_attention(cls: Any) -> None:
    inputs, plain = tensors(make_inputs()), build(TargetAttention, 8, num_heads=2)
    enriched = build(cls, 8, frozen="text", num_heads=2)
    for name in ("query", "key", "value", "output_dense"):
        kernel = np.zeros(getattr(enriched, name).kernel.shape, "float32")
        kernel[:8] = ops.convert_to_numpy(getattr(plain, name).kernel)
        getattr(enriched, name).kernel.assign(kernel)
    tables = enriched.tables if cls is EarlyFusionAttention else {**enriched.key_tables}
    for table in (*tables.values(), *getattr(enriched, "value_tables", {}).values()):
        table.assign(np.zeros(table.shape))
    np.testing.assert_allclose(enriched(inputs), plain(inputs), rtol=1e-5, atol=1e-6)
