"""Mixed precision over histories that are longer than what half precision can count."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.interests.helpers import CONFIGS, WIDTH, Inputs, make_inputs, randomize, tensors
from tests.interests.test_contract import VECTORS
from tfctr.interests import create_interest
from tfctr.layers.codebook import MultiCodebook

pytestmark = pytest.mark.slow

POLICIES = ["mixed_bfloat16", "mixed_float16"]
LENGTH = 2100
"""Float16 counts to 2048, bfloat16 to 256."""


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Long histories whose events are alike, so that a mean does not vanish."""
    found = make_inputs(batch=2, candidates=2, length=LENGTH, lengths=[LENGTH, 1000])
    found["sequence"]["events"] = 1.0 + 0.3 * found["sequence"]["events"]
    return found


def output(config: dict[str, Any], inputs: Inputs, policy: str) -> np.ndarray:
    layer = create_interest({**config, "max_length": LENGTH} if "max_length" in config else config, dtype=policy)
    layer.build({"sequence": {"events": (None, None, WIDTH), **VECTORS}})
    for weight in randomize(layer).trainable_weights:
        weight.assign(np.asarray(weight) / 2)
    return ops.convert_to_numpy(ops.cast(layer(tensors(inputs)), "float32"))


@pytest.mark.parametrize("name", CONFIGS)
def test_no_interest_loses_count_of_a_long_history(name: str, inputs: Inputs) -> None:
    exact = output(CONFIGS[name], inputs, "float32")
    for policy, bound in zip(POLICIES, (0.1, 0.01), strict=True):
        error = np.abs(output(CONFIGS[name], inputs, policy) - exact).max() / np.abs(exact).max()
        assert error < bound, f"{policy}: {error}"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["mean", "asta_mean"])
def test_a_mean_over_a_thousand_events_is_right_to_a_percent(name: str, policy: str, inputs: Inputs) -> None:
    exact = output(CONFIGS[name], inputs, "float32")
    np.testing.assert_allclose(output(CONFIGS[name], inputs, policy), exact, rtol=0, atol=0.01 * np.abs(exact).max())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("assignment", ["soft", "straight_through"])
def test_a_cluster_of_a_thousand_events_is_their_mean(assignment: str, policy: str, inputs: Inputs) -> None:
    layer = MultiCodebook(2, 3, assignment=assignment, seed=3, dtype=policy)
    events = ops.cast(inputs["sequence"]["events"], layer.compute_dtype)
    made = layer(events, mask=ops.ones((2, LENGTH), "bool"))
    mapped = ops.reshape(ops.cast(layer.map(events), "float32"), (2, LENGTH, 2, WIDTH))
    chosen = ops.convert_to_numpy(made["assignment"])
    sums = np.einsum("blnw,blnd->bnwd", chosen, ops.convert_to_numpy(mapped))
    mean = sums / np.maximum(chosen.sum(1), 1e-6)[..., None]
    clusters = ops.convert_to_numpy(ops.cast(made["clusters"], "float32"))
    np.testing.assert_allclose(clusters, mean, rtol=0, atol=0.01 * np.abs(mean).max())
