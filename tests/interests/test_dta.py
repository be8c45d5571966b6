"""Decoupled target attention: the factored form equals the direct one, without the direct form's large tensors."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from keras import ops

from tests.backends import gradients
from tests.interests.direct import direct_dta
from tests.interests.helpers import WIDTH, make_inputs, randomize, tensors
from tfctr.interests import (
    ComplementaryModality,
    DecoupledTargetAttention,
    EarlyFusionAttention,
    Interest,
    LateFusionAttention,
    TargetAttention,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "one_head": {"num_heads": 1, "bins": 5},
    "four_heads": {"num_heads": 4, "bins": 40},
    "non_invasive": {"num_heads": 2, "bins": 7, "enrich_values": False},
    "two_tables": {"frozen": ["text", "image"], "num_heads": 2, "bins": 6},
    "wide": {"num_heads": 3, "attention_dim": 12, "bins": 3, "scale": False},
    "no_output_projection": {"num_heads": 2, "bins": 4, "output_projection": False},
    "soft": {"num_heads": 2, "bins": 7, "soft_buckets": True},
    "soft_two_tables": {"frozen": ["text", "image"], "num_heads": 2, "bins": 3, "soft_buckets": True},
    "relu": {"num_heads": 2, "bins": 5, "activation": "relu"},
    "sigmoid": {"num_heads": 2, "bins": 5, "activation": "sigmoid", "soft_buckets": True},
}


def build(cls: Any = DecoupledTargetAttention, width: int = WIDTH, **arguments: Any) -> Any:
    layer = cls(**{"frozen": "text", **arguments})
    layer.build({"sequence": {"events": (None, None, width)}})
    return randomize(layer)


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_factored_form_is_the_direct_form(variant: str) -> None:
    """Both forms have the same outputs and the same gradients for events, targets and all weights."""
    layer = build(**VARIANTS[variant])
    inputs = tensors(make_inputs(batch=4, candidates=6, length=20, lengths=[20, 0, 7, 1]))
    sources = [inputs["sequence"]["events"], inputs["candidate"]["target"]]
    results = []
    for form in (layer, lambda fed: direct_dta(layer, fed)):

        def loss(fed: list[Any], form: Any = form) -> Any:
            sequence, candidate = {**inputs["sequence"], "events": fed[0]}, {**inputs["candidate"], "target": fed[1]}
            output = form({"sequence": sequence, "candidate": candidate, "context": {}})
            return ops.sum(output * ops.cos(output)), output

        (_, output), by_inputs, by_weights = gradients(loss, sources, layer.trainable_weights)
        results.append([output, *by_inputs, *by_weights])
    assert len(results[0]) == 3 + len(layer.trainable_weights)
    for ours, reference in zip(*results, strict=True):
        assert np.max(np.abs(reference)) > 0.0
        np.testing.assert_allclose(ours, reference, atol=2e-5 * np.max(np.abs(reference)), rtol=0)


def test_zero_tables_are_plain_target_attention() -> None:
    inputs = tensors(make_inputs())
    plain = TargetAttention(num_heads=2)
    enriched = DecoupledTargetAttention("text", num_heads=2)
    np.testing.assert_array_equal(plain(inputs).shape, enriched(inputs).shape)
    for name in ("query", "key", "value", "output_dense"):
        getattr(enriched, name).kernel.assign(getattr(plain, name).kernel)
    np.testing.assert_allclose(enriched(inputs), plain(inputs), rtol=1e-6, atol=1e-7)


def test_by_hand() -> None:
    """Two events, one similar and one opposite; the projections are 1, so that every number can be followed."""
    layer = DecoupledTargetAttention("text", num_heads=1, bins=2, scale=False)
    layer.build({"sequence": {"events": (None, None, 1)}})
    for dense in (layer.query, layer.key, layer.value, layer.output_dense):
        dense.kernel.assign([[1.0]])
    layer.key_tables["text"].assign([[0.0], [np.log(3.0)], [0.0]])
    layer.value_tables["text"].assign([[10.0], [20.0], [30.0]])
    inputs = {
        "sequence": {
            "events": ops.array([[[1.0], [1.0], [5.0]]]),
            "length": ops.array([2]),
            "rows/text": ops.array([[1, 2, 3]]),
            "vectors/text": ops.array([[[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]),
        },
        "candidate": {
            "target": ops.array([[[1.0], [1.0]]]),
            "rows/text": ops.array([[4, 0]]),
            "vectors/text": ops.array([[[1.0, 0.0], [0.0, 0.0]]]),
        },
    }
    # Candidate 0 has the scores 1 and 1 + log 3, the weights 1/4 and 3/4, and the values 1 + 10 and 1 + 20. Candidate 1
    # has no vector, so both events are in the bucket for missing vectors, with the weights 1/2 and the values 1 + 30.
    np.testing.assert_allclose(layer(inputs), [[[0.25 * 11 + 0.75 * 21], [31.0]]], rtol=1e-6)


def test_uniform_attention_gives_the_histogram_over_the_length() -> None:
    """With equal weights the value term is counts / length times the table."""
    layer = build(num_heads=1, bins=6, output_projection=False)
    layer.query.kernel.assign(np.zeros((WIDTH, WIDTH)))
    layer.value.kernel.assign(np.zeros((WIDTH, WIDTH)))
    inputs = tensors(make_inputs(lengths=[7, 3, 1]))
    buckets = np.array(layer.buckets({**inputs["sequence"]}, inputs["candidate"])["text"])
    counts = np.zeros((3, 5, 7))
    for b, length in enumerate([7, 3, 1]):
        for c in range(5):
            counts[b, c] = np.bincount(buckets[b, c, :length], minlength=7) / length
    np.testing.assert_allclose(layer(inputs), counts @ np.array(layer.value_tables["text"]), rtol=1e-5, atol=1e-6)


def along(similarity: list[float], missing: bool = False) -> Any:
    """One history of one event, and a candidate for each similarity."""
    angles = np.arccos(similarity)
    return tensors(
        {
            "sequence": {
                "events": np.ones((1, 1, WIDTH), "float32"),
                "length": np.array([1], "int32"),
                "rows/text": np.array([[1]], "int32"),
                "vectors/text": np.array([[[1.0, 0.0]]], "float32"),
            },
            "candidate": {
                "target": np.ones((1, len(similarity), WIDTH), "float32"),
                "rows/text": np.full((1, len(similarity)), 0 if missing else 2, "int32"),
                "vectors/text": np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None].astype("float32"),
            },
            "context": {},
        }
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_soft_buckets_are_continuous_and_hard_ones_jump(activation: str) -> None:
    steps = along(np.linspace(-1.0, 1.0, 801).tolist())
    jumps = {}
    for soft in (False, True):
        layer = build(bins=10, soft_buckets=soft, activation=activation)
        jumps[soft] = np.abs(np.diff(ops.convert_to_numpy(layer(steps))[0], axis=0)).max()
    assert jumps[False] > 0.1
    assert jumps[True] < 0.2 * jumps[False]


def test_soft_buckets_are_hard_ones_at_the_centres() -> None:
    centres = ((np.arange(10) + 0.5) / 5.0 - 1.0).tolist()
    hard, soft = build(bins=10), build(bins=10, soft_buckets=True)
    np.testing.assert_allclose(soft(along(centres)), hard(along(centres)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(soft(along(centres, missing=True)), hard(along(centres, missing=True)))


@pytest.mark.parametrize(("activation", "factor"), [("softmax", 1.0), ("relu", 2.0), ("sigmoid", 2.0)])
def test_only_the_softmax_forgets_how_many_events_there_are(activation: str, factor: float) -> None:
    """When every event is there twice, an average stays the same and a sum doubles."""
    inputs = make_inputs(lengths=[7, 7, 7])
    twice = copy.deepcopy(inputs)
    for name, value in inputs["sequence"].items():
        twice["sequence"][name] = 2 * value if name == "length" else np.concatenate([value, value], axis=1)
    layer = build(bins=5, activation=activation)
    np.testing.assert_allclose(layer(tensors(twice)), factor * layer(tensors(inputs)), rtol=1e-4, atol=1e-5)


def test_nan_vectors_are_missing() -> None:
    inputs, broken = make_inputs(), make_inputs()
    inputs["candidate"]["rows/text"][:, 0] = 0
    inputs["candidate"]["vectors/text"][:, 0] = 0.0
    broken["candidate"]["vectors/text"][:, 0] = np.nan
    layer = build(bins=5)
    np.testing.assert_array_equal(layer(tensors(inputs)), layer(tensors(broken)))


@pytest.mark.parametrize("cls", [DecoupledTargetAttention, ComplementaryModality])
def test_buckets_do_not_depend_on_the_precision(cls: type[Interest]) -> None:
    """Similarities are float32 under mixed precision, so no event changes its bucket."""
    inputs = make_inputs(candidates=60, length=60, lengths=[60] * 3, vector=32, seed=4)
    found = []
    for policy in ("float32", "mixed_bfloat16"):
        layer = build(cls, bins=100, dtype=policy)
        layer = layer.attention if cls is ComplementaryModality else layer
        found.append(np.array(layer.buckets(tensors(inputs["sequence"]), tensors(inputs["candidate"]))["text"]))
    np.testing.assert_array_equal(*found)
    cosine = np.einsum("bcm,blm->bcl", inputs["candidate"]["vectors/text"], inputs["sequence"]["vectors/text"])
    missing = (inputs["candidate"]["rows/text"] == 0)[:, :, None] | (inputs["sequence"]["rows/text"] == 0)[:, None]
    expected = np.where(missing, 100, np.clip(np.floor((cosine + 1) * 50), 0, 99))
    near_edge = np.abs((cosine + 1) * 50 - np.round((cosine + 1) * 50)) < 1e-3
    np.testing.assert_array_equal(found[0][~near_edge], expected[~near_edge])


# No size is the product of two others, so that a shape tells which axes it has.
B, C, L, H, HEAD, N, VECTOR = 2, 31, 37, 2, 19, 23, 29
D = H * HEAD
# A tensor that joins two branches may be twice as wide as the events.
LARGEST = B * C * max(H * L, H * (N + 1), 2 * D)


def graph_tensors(graph: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of every tensor of a graph, which must call no functions: those are not walked."""
    assert not graph.as_graph_def().library.function, "the graph calls functions that are not walked"
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            assert tensor.shape.is_fully_defined(), f"{tensor.name} has no static shape: {tensor.shape}"
            yield f"{operation.type} {tensor.name}", tuple(tensor.shape.as_list())


def too_large(name_and_shape: tuple[str, tuple[int, ...]]) -> bool:
    _, shape = name_and_shape
    joins = C in shape and L in shape and any(size in shape for size in (D, HEAD, N, N + 1, VECTOR))
    return joins or np.prod(shape, dtype=int) > LARGEST


def graph_inputs() -> Any:
    return make_inputs(batch=B, candidates=C, length=L, width=D, vector=VECTOR)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("cls", [DecoupledTargetAttention, ComplementaryModality, LateFusionAttention])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_no_tensor_has_candidates_steps_and_width(cls: Any, soft: bool, gradient: bool) -> None:
    """Walk the graph of `attend`, alone or with its gradient. One-hot tensors would be found too."""
    import tensorflow as tf

    layer, inputs = build(cls, width=D, num_heads=H, bins=N, soft_buckets=soft), tensors(graph_inputs())
    state = {**layer.encode(inputs["sequence"]), "vectors/text": inputs["sequence"]["vectors/text"]}

    @tf.function(autograph=False)
    def attend(state: Any, candidate: Any) -> Any:
        if not gradient:
            return layer.attend(state, candidate, {}, training=False)
        sources = [state["key"], state["value"], candidate["target"]]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = tf.reduce_sum(layer.attend(state, candidate, {}, training=True))
        sources += [weight.value for weight in layer.trainable_weights]
        # The projections of keys and values belong to `encode` and have no gradient here.
        return [tf.convert_to_tensor(one) for one in tape.gradient(loss, sources) if one is not None]

    graph = attend.get_concrete_function(state, inputs["candidate"]).graph
    found = list(graph_tensors(graph))
    assert sum(C in shape and L in shape for _, shape in found) > 5, "the walk sees the attention"
    assert not list(filter(too_large, found))


@pytest.mark.tensorflow
def test_the_walk_finds_what_it_looks_for() -> None:
    import tensorflow as tf

    layer, inputs = build(width=D, num_heads=H, bins=N), tensors(graph_inputs())
    graph = tf.function(lambda fed: direct_dta(layer, fed)).get_concrete_function(inputs).graph
    names = {name.split()[0] for name, _ in filter(too_large, graph_tensors(graph))}
    assert "OneHot" in names
    assert {"Einsum", "AddV2"} & names
    early = build(EarlyFusionAttention, width=D, num_heads=H, bins=N)
    graph = tf.function(lambda fed: early(fed)).get_concrete_function(inputs).graph
    assert list(filter(too_large, graph_tensors(graph))), "early fusion is meant to build keys for every candidate"


def test_state_does_not_depend_on_bins_or_vectors() -> None:
    inputs = make_inputs()
    state = build(bins=5).encode(tensors(inputs["sequence"]))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "length": (3,),
        "rows/text": (3, 7),
        "key": (3, 4, 7, 2),
        "value": (3, 4, 7, 2),
    }
    changed = copy.deepcopy(inputs["sequence"])
    changed["vectors/text"] *= 0
    for name, value in build(bins=5).encode(tensors(changed)).items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": 0}, "`bins` must be a positive whole number"),
        ({"frozen": []}, "`frozen` must name one frozen table or a list"),
        ({"frozen": ["a", "a"]}, "`frozen` must name one frozen table or a list"),
        ({"enrich_values": "no"}, "`enrich_values` must be true or false"),
        ({"soft_buckets": 1}, "`soft_buckets` must be true or false"),
        ({"activation": "tanh"}, "`activation` must be one of softmax, sigmoid, relu"),
        ({"num_heads": 0}, "`num_heads` must be a positive whole number"),
        ({"attention_dim": 10}, "`attention_dim` must be a multiple of `num_heads`, 4"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoupledTargetAttention(**{"frozen": "text", **arguments})


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="`num_heads` must divide the width of the events"):
        build(num_heads=3)
