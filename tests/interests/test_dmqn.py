"""DMQN beyond the tests that every interest must pass: the size term, a state of fixed size, long histories."""

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.interests.helpers import make_inputs, randomize, tensors
from tfctr.interests import Dmqn


def test_attention_over_clusters_is_attention_over_equal_members() -> None:
    """A cluster of equal members with log(size) in its score weighs as much as its members do together."""
    keys = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    sizes = np.array([5, 1, 2])
    layer = Dmqn(codebooks=1, codewords=3, blocks=0, num_heads=2, describe=False)
    layer.build({"sequence": {"events": (None, None, 8)}})
    randomize(layer)
    target = np.random.default_rng(1).normal(size=(1, 4, 8)).astype("float32")

    def attend(members: np.ndarray, counts: np.ndarray) -> np.ndarray:
        heads = np.transpose(members.reshape(1, -1, 2, 4), (0, 2, 1, 3))
        state = {"key": heads, "value": 2 * heads, "size": counts[None, None].astype("float32")}
        result: np.ndarray = ops.convert_to_numpy(layer.attend(tensors(state), tensors({"target": target}), {}))
        return result

    clusters = attend(keys, sizes)
    members = attend(np.repeat(keys, sizes, axis=0), np.ones(8))
    np.testing.assert_allclose(clusters, members, rtol=1e-5, atol=1e-6)
    layer.size_term = False
    assert np.abs(attend(keys, sizes) - members).max() > 1e-3


@pytest.mark.parametrize("length", [50, 1000, 10_000])
def test_the_state_does_not_grow_with_the_history(length: int) -> None:
    layer = Dmqn(codebooks=4, codewords=32, seed=1)
    inputs = tensors(make_inputs(batch=1, candidates=2, length=length, width=16, lengths=[length]))
    state = layer.encode(inputs["sequence"])
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "key": (1, 8, 32, 8),
        "value": (1, 8, 32, 8),
        "size": (1, 4, 32),
    }
    np.testing.assert_allclose(ops.sum(state["size"], axis=-1), np.full((1, 4), length), rtol=1e-5)
    assert np.isfinite(ops.convert_to_numpy(layer.attend(state, inputs["candidate"], {}))).all()


@pytest.mark.parametrize("assignment", ["straight_through", "soft"])
def test_serving_is_training_without_noise(assignment: str) -> None:
    layer = Dmqn(codebooks=2, codewords=4, assignment=assignment, seed=1)
    layer.build({"sequence": {"events": (None, None, 8)}})
    randomize(layer)
    inputs = tensors(make_inputs())
    served, trained = (ops.convert_to_numpy(layer(inputs, training=training)) for training in (False, True))
    np.testing.assert_allclose(trained, served, rtol=1e-5, atol=1e-6)


def test_longer_padding_changes_nothing() -> None:
    layer = Dmqn(codebooks=2, codewords=4, seed=1)
    inputs = make_inputs()
    short = ops.convert_to_numpy(layer(tensors(inputs)))
    inputs["sequence"] = {
        name: np.concatenate([value, value[:, ::-1]], axis=1) if value.ndim > 1 else value
        for name, value in inputs["sequence"].items()
    }
    np.testing.assert_allclose(ops.convert_to_numpy(layer(tensors(inputs))), short, rtol=1e-5, atol=1e-6)


def test_the_loss_reaches_codebook_and_map() -> None:
    layer = Dmqn(codebooks=2, codewords=4, blocks=2, learning="gradient", seed=1)
    layer.build({"sequence": {"events": (None, None, 8)}})
    inputs = tensors(make_inputs())
    _, _, found = gradients(
        lambda _: ops.sum(layer(inputs, training=True) ** 2), None, [layer.codebook.codebook, layer.codebook.map.kernel]
    )
    words, kernel = (np.abs(ops.convert_to_numpy(gradient)) for gradient in found)
    assert (words.reshape(2, -1).max(axis=1) > 1e-9).all(), "every codebook learns"
    assert (kernel.reshape(8, 2, 8).max(axis=(0, 2)) > 1e-9).all(), "and so does every map"


def test_sizes_and_ages_are_part_of_a_cluster() -> None:
    layer = Dmqn(codebooks=1, codewords=2, blocks=0, seed=1)
    inputs = make_inputs(lengths=[7, 7, 7])
    inputs["sequence"]["ages"] = np.full((3, 7), 3, "int32")
    young = layer.encode(tensors(inputs["sequence"]))["key"]
    inputs["sequence"]["ages"] = np.full((3, 7), 20, "int32")
    old = layer.encode(tensors(inputs["sequence"]))["key"]
    assert np.abs(ops.convert_to_numpy(young) - ops.convert_to_numpy(old)).max() > 1e-3


def test_every_codebook_has_maps_of_its_own() -> None:
    layer = Dmqn(codebooks=3, codewords=4)
    layer.build({"sequence": {"events": (None, None, 8)}})
    assert layer.key.shape == (3, 8, 8)
    assert layer.query.kernel.shape == (8, 24)
    assert list(layer.diagnostics()) == [
        "codebook_agreement",
        "codebook_effective_words",
        "codebook_fit",
        "codebook_used_words",
    ]


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="`blocks` must be a whole number"):
        Dmqn(blocks=-1)
    with pytest.raises(ValueError, match="`num_heads` must divide the width of the events, 8"):
        Dmqn(num_heads=3, blocks=0).build({"sequence": {"events": (None, None, 8)}})
