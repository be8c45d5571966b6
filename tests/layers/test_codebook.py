"""The codebooks of DMQN: clusters and moves by hand, training against serving, temperature, dead codewords."""

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


def test_scores_are_ten_cosines_whatever_the_lengths() -> None:
    layer = identity_book(np.array([[3.0, 0.0], [0.0, 0.1]]), assignment="soft", tau_end=1.0)
    x = np.array([[[0.6, 0.8], [6.0, 8.0]]], "float32")
    _, assignment = both(layer(x, mask=np.ones((1, 2), bool)))
    expected = np.exp([6.0, 8.0]) / np.exp([6.0, 8.0]).sum()
    np.testing.assert_allclose(numpy(assignment)[0, :, 0], [expected, expected], rtol=1e-5)


def test_scores_are_inner_products_over_the_root_of_the_width() -> None:
    words = np.array([[3.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    x = np.array([[[1.0, 2.0, 0.0, 0.0]]], "float32")
    for scale, scores in ((None, [1.5, 1.0]), (0.25, [0.75, 0.5])):
        layer = identity_book(words, assignment="soft", similarity="dot", scale=scale, tau_end=1.0)
        _, assignment = both(layer(x, mask=np.ones((1, 1), bool)))
        np.testing.assert_allclose(numpy(assignment)[0, 0, 0], np.exp(scores) / np.exp(scores).sum(), rtol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"assignment": "soft", "balance": 0.1},
        {"similarity": "dot", "noise": "unit", "learning": "gradient"},
        {"noise": "scaled", "learning": "frozen"},
    ],
    ids=str,
)
def test_layer_checks(options: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    layer = MultiCodebook(2, 3, seed=1, **options)
    clusters, chosen = both(check_layer(layer, X, call_arguments={"mask": MASK}))
    assert clusters.shape == (3, 2, 3, 4)
    assert not clusters[1].any(), "an empty history has empty clusters"
    np.testing.assert_allclose(chosen.sum(axis=-1), np.broadcast_to(MASK[..., None], (3, 10, 2)), atol=1e-6)


@pytest.mark.parametrize("assignment", ["straight_through", "soft"])
@pytest.mark.parametrize("steps", [0, 50, 5000])
@pytest.mark.parametrize("learning", ["moving_average", "gradient", "frozen"])
def test_serving_is_training_without_noise(learning: str, assignment: str, steps: int) -> None:
    layer = MultiCodebook(2, 3, assignment=assignment, learning=learning, anneal_steps=100, seed=1)
    layer.build((None, None, 4))
    layer.step.assign(steps)
    served = layer(X, mask=MASK)
    trained = layer(X, mask=MASK, training=True)
    for one, other in zip(both(served), both(trained), strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), atol=1e-6)


def test_codewords_move_to_the_mean_direction_of_their_members() -> None:
    words = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    layer = identity_book(words, momentum=0.9, reseed_below=0.0)
    x = np.array([[[2.0, 0.0], [0.8, 0.6], [0.0, 5.0], [-9.0, 0.1]]], "float32")
    layer(x, mask=np.array([[True, True, True, False]]), training=True)
    # The first has the members (1, 0) and (0.8, 0.6), the second (0, 1), where it stands, the third padding alone.
    np.testing.assert_allclose(numpy(layer.codebook + layer.offset)[0], [[0.99, 0.03], [0, 1], [-1, 0]], atol=1e-6)
    for _ in range(200):
        layer(x, mask=np.array([[True, True, True, False]]), training=True)
    np.testing.assert_allclose(numpy(layer.codebook + layer.offset)[0, 0], [0.9, 0.3], atol=1e-5)
    layer(x, mask=np.ones((1, 4), bool))
    np.testing.assert_allclose(numpy(layer.codebook + layer.offset)[0, 2], [-1, 0], atol=1e-6)


def test_inner_products_move_codewords_to_the_mean_itself() -> None:
    layer = identity_book(np.array([[1.0, 0.0], [0.0, 1.0]]), similarity="dot", momentum=0.5, reseed_below=0.0)
    layer(np.array([[[3.0, 0.0], [5.0, 2.0]]], "float32"), mask=np.ones((1, 2), bool), training=True)
    np.testing.assert_allclose(numpy(layer.codebook + layer.offset)[0], [[2.5, 0.5], [0, 1]], atol=1e-6)


def test_frozen_codewords_never_move() -> None:
    layer = MultiCodebook(2, 3, learning="frozen", reseed_below=0.0, seed=1)
    for _ in range(3):
        layer(X, mask=MASK, training=True)
    assert not numpy(layer.offset).any()
    assert not any("codebook" in weight.path.split("/")[-1] for weight in layer.trainable_weights)


@pytest.mark.parametrize("noise", ["none", "scaled", "unit"])
def test_agreement_is_how_often_training_draws_what_serving_takes(noise: str) -> None:
    layer = MultiCodebook(2, 5, noise=noise, scale=2.0, learning="frozen", reseed_below=0.0, tau_end=1.0, seed=1)
    layer.build((None, None, 4))
    layer.tau_start = layer.tau_end = 0.4
    x = np.random.default_rng(0).normal(size=(1600, 60, 4)).astype("float32")
    mask = np.arange(60)[None, :] < np.random.default_rng(1).integers(0, 61, 1600)[:, None]
    served, drawn = (numpy(layer(x, mask=mask, training=one)["assignment"]) for one in (False, True))
    same = (served * drawn).sum() / served.sum()
    expected = {"none": 1.0, "scaled": 0.7, "unit": 0.5}[noise]
    found = layer.health.figures()["agreement"]
    assert found == pytest.approx(same, abs=0.01)
    assert found == pytest.approx(expected, abs=1e-5 if noise == "none" else 0.1)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_figures_look_at_the_assignment_without_noise(similarity: str) -> None:
    """Two groups of events and four codewords, of which two have no event."""
    words = np.array([[2.0, 0.0], [0.0, 2.0], [-1.0, -0.1], [-0.1, -1.0]])
    options = {"similarity": similarity, "noise": "unit", "learning": "frozen", "reseed_below": 0.0}
    layer = identity_book(words, scale=50.0, **options)
    x = np.array([[[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-5.0, 0.0]]], "float32")
    layer(x, mask=np.array([[True, True, True, False]]), training=True)
    figures = layer.health.figures()
    assert figures["fit"] == pytest.approx((1.0 + 0.8 + 0.8) / 3, rel=1e-5)
    assert figures["used_words"] == 2.0
    assert figures["agreement"] == pytest.approx(1.0, abs=1e-3)
    third = 1 / 3
    assert np.log(figures["effective_words"]) == pytest.approx(
        -2 * third * np.log(2 * third) - third * np.log(third), 1e-2
    )
    blurred = identity_book(words, scale=0.01, **options)
    blurred(x, mask=np.array([[True, True, True, False]]), training=True)
    figures = blurred.health.figures()
    assert figures["effective_words"] == pytest.approx(1.0, abs=1e-3), "scores of one size tell nothing apart"
    assert figures["agreement"] == pytest.approx(0.25, abs=0.01)
    assert figures["used_words"] == 2.0


def test_figures_are_of_one_history_in_eight() -> None:
    layer = MultiCodebook(2, 5, seed=1)
    x = np.random.default_rng(0).normal(size=(17, 20, 4)).astype("float32")
    lengths = np.arange(1, 18)
    layer(x, mask=np.arange(20) < lengths[:, None], training=True)
    events = numpy(layer.health.sums)[:, :5].sum(axis=1)
    np.testing.assert_allclose(events, 0.01 * lengths[[0, 8, 16]].sum(), rtol=1e-5)


def test_noise_acts_in_training_only_and_has_its_seed() -> None:
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layer = MultiCodebook(2, 3, similarity="dot", noise="unit", learning="frozen", seed=7)
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
    layer = MultiCodebook(2, 3, learning="gradient", seed=1)
    layer.build((None, None, 4))

    def loss(_: Any) -> Any:
        return ops.sum(layer(X, mask=MASK, training=True)["clusters"] ** 2)

    _, _, found = gradients(loss, None, [layer.codebook, layer.map.kernel])
    for gradient in found:
        assert np.abs(numpy(gradient)).max() > 1e-4


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_events_of_zeros_have_finite_gradients(similarity: str) -> None:
    layer = MultiCodebook(2, 3, similarity=similarity, seed=1)
    layer.build((None, None, 4))
    x = np.where(np.arange(10)[None, :, None] < 2, 0.0, X).astype("float32")
    _, of_input, _ = gradients(
        lambda x: ops.sum(layer(x, mask=MASK, training=True)["clusters"] ** 2),
        ops.convert_to_tensor(x),
        [layer.map.kernel],
    )
    assert np.isfinite(numpy(of_input)).all()


def test_a_dead_codeword_moves_onto_an_event() -> None:
    words = np.array([[1.0, 0.0], [0.0, 1.0], [-50.0, -50.0]])
    layer = identity_book(words, reseed_below=0.5, learning="gradient")
    x = np.abs(np.random.default_rng(1).normal(size=(4, 6, 2))).astype("float32")
    mask = np.arange(6)[None, :] < np.array([6, 3, 1, 5])[:, None]
    layer.usage.assign([[0.6, 0.4, 0.168]])
    for _ in range(2):
        layer(x, mask=mask, training=True)
    moved = numpy(layer.codebook + layer.offset)[0]
    real = x[mask] / np.linalg.norm(x[mask], axis=-1, keepdims=True)
    assert np.abs(real - moved[2]).max(axis=1).min() < 1e-5, "it is the direction of a real event"
    np.testing.assert_array_equal(moved[:2], words[:2])
    np.testing.assert_array_equal(numpy(layer.codebook)[0], words)
    assert numpy(layer.usage)[0, 2] == pytest.approx(1 / 3, rel=0.02), "it starts with an equal share"
    quiet = identity_book(words, reseed_below=0.0, learning="gradient")
    quiet.usage.assign([[0.6, 0.4, 0.0]])
    quiet(x, mask=mask, training=True)
    assert not numpy(quiet.offset).any()


def test_noise_does_not_hide_a_dead_codeword() -> None:
    """With noise larger than every score, draws give each codeword its share; without noise one has no event."""
    words = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    layer = identity_book(words, similarity="dot", scale=1e-3, noise="unit", learning="frozen", reseed_below=0.5)
    layer.usage.assign([[0.6, 0.4, 0.1]])
    x = np.abs(np.random.default_rng(1).normal(size=(4, 6, 2))).astype("float32")
    drawn = numpy(layer(x, mask=np.ones((4, 6), bool), training=True)["assignment"])
    assert drawn.sum(axis=(0, 1, 2))[2] > 2, "noise gives it events"
    assert numpy(layer.offset)[0, 2].any()
    assert not numpy(layer.offset)[0, :2].any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_keeps_codewords_whole(policy: str) -> None:
    """An offset that was read in half precision and written back would lose digits in every step."""
    layer = MultiCodebook(2, 3, learning="frozen", reseed_below=0.0, dtype=policy, seed=1)
    layer.build((None, None, 4))
    layer.offset.assign(np.full(layer.offset.shape, 1.0 / 3.0))
    layer(X, mask=MASK, training=True)
    np.testing.assert_array_equal(numpy(layer.offset), np.full(layer.offset.shape, np.float32(1.0 / 3.0)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_moves_codewords_over_a_thousand_events_as_float32_does(policy: str) -> None:
    x = (1.0 + 0.3 * np.random.default_rng(0).normal(size=(2, 1500, 4))).astype("float32")
    x = np.asarray(ops.convert_to_numpy(ops.cast(ops.cast(x, policy[6:]), "float32")))
    found = []
    for dtype in (policy, "float32"):
        layer = MultiCodebook(1, 3, seed=1, dtype=dtype)
        layer.build((None, None, 4))
        layer.map.kernel.assign(np.eye(4))
        for _ in range(5):
            layer(x, mask=np.ones((2, 1500), bool), training=True)
        found.append((numpy(layer.codebook + layer.offset), list(layer.health.figures().values())))
    for half, whole in zip(*found, strict=True):
        np.testing.assert_allclose(half, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_without_any_event_nothing_moves() -> None:
    layer = identity_book(np.eye(2), reseed_below=0.9)
    for _ in range(300):
        layer(X[:, :, :2], mask=np.zeros((3, 10), bool), training=True)
    assert not numpy(layer.offset).any()
    assert np.isfinite(numpy(layer.usage)).all()


def test_balance_is_the_variance_of_the_shares() -> None:
    layer = identity_book(np.array([[1.0, 0.0], [0.0, 1.0]]), balance=2.0)
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
    with pytest.raises(ValueError, match="`similarity` must be one of cosine, dot"):
        MultiCodebook(1, 2, similarity="euclid")
    with pytest.raises(ValueError, match="`noise` must be one of none, scaled, unit"):
        MultiCodebook(1, 2, noise=True)
    with pytest.raises(ValueError, match="`learning` must be one of moving_average, gradient, frozen"):
        MultiCodebook(1, 2, learning="ema")
    with pytest.raises(ValueError, match="`momentum` must be at least 0 and less than 1"):
        MultiCodebook(1, 2, momentum=1.0)
    with pytest.raises(ValueError, match="`scale` must be"):
        MultiCodebook(1, 2, scale=0.0)
    with pytest.raises(ValueError, match="0 < `tau_end` <= `tau_start`"):
        MultiCodebook(1, 2, tau_end=2.0)
