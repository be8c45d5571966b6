"""The codebooks of DMQN: clusters by hand, training against serving, temperature, dead codewords, usage."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import gradients
from tests.layer_checks import check_layer
from tfctr.layers.codebook import MultiCodebook

X = np.random.default_rng(0).normal(size=(3, 10, 4)).astype("float32")
MASK = np.arange(10)[None, :] < np.array([10, 0, 4])[:, None]


def identity_book(codebook: np.ndarray, **options: Any) -> MultiCodebook:
    """One codebook whose map changes nothing."""
    layer = MultiCodebook(1, len(codebook), seed=1, **options)
    layer.build((None, None, codebook.shape[1]))
    layer.map.kernel.assign(np.eye(codebook.shape[1]))
    layer.codebook.assign(codebook[None])
    return layer


def numpy(x: Any) -> np.ndarray:
    result: np.ndarray = ops.convert_to_numpy(x)
    return result


def both(result: dict[str, Any]) -> tuple[Any, Any]:
    return result["clusters"], result["assignment"]


def test_clusters_by_hand() -> None:
    layer = identity_book(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    x = np.array([[[2.0, 1.0], [4.0, -1.0], [1.0, 5.0], [-9.0, 0.0]]], "float32")
    clusters, assignment = both(layer(x, mask=np.array([[True, True, True, False]])))
    np.testing.assert_array_equal(numpy(assignment)[0, :, 0], [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    # The clusters are the mean of the first two events, the third event, and zeros: the only event near the third
    # codeword is padding.
    np.testing.assert_allclose(numpy(clusters)[0, 0], [[3, 0], [1, 5], [0, 0]], atol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("assignment", ["straight_through", "soft"])
def test_layer_checks(assignment: str) -> None:
    keras.utils.set_random_seed(0)
    layer = MultiCodebook(2, 3, assignment=assignment, balance=0.1, seed=1)
    clusters, chosen = both(check_layer(layer, X, call_arguments={"mask": MASK}))
    assert clusters.shape == (3, 2, 3, 4)
    assert not clusters[1].any(), "an empty history has empty clusters"
    np.testing.assert_allclose(chosen.sum(axis=-1), np.broadcast_to(MASK[..., None], (3, 10, 2)), atol=1e-6)


@pytest.mark.parametrize("assignment", ["straight_through", "soft"])
@pytest.mark.parametrize("steps", [0, 50, 5000])
def test_serving_is_training_without_noise(assignment: str, steps: int) -> None:
    layer = MultiCodebook(2, 3, assignment=assignment, noise=False, reseed_below=0.0, anneal_steps=100, seed=1)
    layer.build((None, None, 4))
    layer.step.assign(steps)
    served = layer(X, mask=MASK)
    trained = layer(X, mask=MASK, training=True)
    for one, other in zip(both(served), both(trained), strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), atol=1e-6)


def test_noise_acts_in_training_only_and_has_its_seed() -> None:
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layer = MultiCodebook(2, 3, seed=7)
        layer.build((None, None, 4))
        runs.append([numpy(layer(X, mask=MASK, training=training)["assignment"]) for training in (False, True, True)])
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.abs(runs[0][0] - runs[0][1]).max() > 0.5
    assert np.abs(runs[0][1] - runs[0][2]).max() > 0.5, "every step draws anew"


def test_temperature_falls_exponentially() -> None:
    layer = MultiCodebook(1, 2, tau_start=1.0, tau_end=0.25, anneal_steps=10)
    layer.build((None, None, 4))
    found = []
    for _ in range(12):
        found.append(float(layer.tau))
        layer(X, mask=MASK, training=True)
    np.testing.assert_allclose(found, [0.25 ** (min(step, 10) / 10) for step in range(12)], rtol=1e-5)
    layer(X, mask=MASK)
    assert int(layer.step) == 12, "serving does not count"


def test_the_gradient_reaches_codebook_and_map_through_the_choice() -> None:
    layer = MultiCodebook(2, 3, seed=1)
    layer.build((None, None, 4))

    def loss(_: Any) -> Any:
        return ops.sum(layer(X, mask=MASK, training=True)["clusters"] ** 2)

    _, _, found = gradients(loss, None, [layer.codebook, layer.map.kernel])
    for gradient in found:
        assert np.abs(numpy(gradient)).max() > 1e-4


@pytest.mark.slow
def test_a_dead_codeword_moves_onto_an_event() -> None:
    words = np.array([[1.0, 0.0], [0.0, 1.0], [-50.0, -50.0]])
    layer = identity_book(words, reseed_below=0.5, noise=False)
    x = np.abs(np.random.default_rng(1).normal(size=(4, 6, 2))).astype("float32")
    mask = np.arange(6)[None, :] < np.array([6, 3, 1, 5])[:, None]
    before = layer.perplexity()
    for _ in range(400):
        layer(x, mask=mask, training=True)
        moved = numpy(layer.codebook + layer.offset)[0]
        if np.abs(moved[2] - words[2]).max() > 1.0:
            break
    real = x[mask]
    assert np.abs(real - moved[2]).max(axis=1).min() < 1e-5, "it is a real event"
    np.testing.assert_array_equal(moved[:2], words[:2])
    np.testing.assert_array_equal(numpy(layer.codebook)[0], words)
    assert before == pytest.approx(3.0, rel=1e-5)
    quiet = identity_book(words, reseed_below=0.0, noise=False)
    for _ in range(400):
        quiet(x, mask=mask, training=True)
    assert not numpy(quiet.offset).any()
    assert quiet.perplexity() < 2.1


def test_a_mixed_policy_keeps_codewords_whole() -> None:
    """An offset that was read in half precision and written back would lose digits in every step."""
    layer = MultiCodebook(2, 3, noise=False, dtype="mixed_bfloat16", seed=1)
    layer.build((None, None, 4))
    layer.offset.assign(np.full(layer.offset.shape, 1.0 / 3.0))
    layer(X, mask=MASK, training=True)
    np.testing.assert_array_equal(numpy(layer.offset), np.full(layer.offset.shape, np.float32(1.0 / 3.0)))


@pytest.mark.slow
def test_without_any_event_nothing_moves() -> None:
    layer = identity_book(np.eye(2), reseed_below=0.9)
    for _ in range(300):
        layer(X[:, :, :2], mask=np.zeros((3, 10), bool), training=True)
    assert not numpy(layer.offset).any()
    assert np.isfinite(numpy(layer.usage)).all()


def test_balance_is_the_variance_of_the_shares() -> None:
    layer = identity_book(np.array([[1.0, 0.0], [0.0, 1.0]]), balance=2.0, noise=False)
    x = np.array([[[2.0, 1.0], [4.0, -1.0], [1.0, 5.0], [3.0, 0.0]]], "float32")
    layer(x, mask=np.ones((1, 4), bool), training=True)
    # The shares 3/4 and 1/4 times W = 2 are 1.5 and 0.5, whose variance is 0.25; the penalty has the weight 2.
    assert float(layer.losses[0]) == pytest.approx(0.5, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_clusters_are_means_that_keep_the_sum(codebooks: int, codewords: int, seed: int) -> None:
    layer = MultiCodebook(codebooks, codewords, assignment="soft", seed=seed)
    clusters, assignment = both(layer(X, mask=MASK))
    sizes = numpy(assignment).sum(axis=1)
    mapped = numpy(layer.map(X)).reshape(3, 10, codebooks, 4) * MASK[:, :, None, None]
    np.testing.assert_allclose((numpy(clusters) * sizes[..., None]).sum(axis=2), mapped.sum(axis=1), atol=1e-4)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="`assignment` must be one of straight_through, soft"):
        MultiCodebook(1, 2, assignment="hard")
    with pytest.raises(ValueError, match="0 < `tau_end` <= `tau_start`"):
        MultiCodebook(1, 2, tau_end=2.0)
