"""The tests that every interest must pass."""

import copy
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.backends import compiled, gradients
from tests.interests.helpers import CONFIGS, WIDTH, Inputs, make_inputs, randomize, tensors
from tests.layer_checks import check_layer
from tfctr.interests import INTERESTS, Interest, create_interest

pytestmark = pytest.mark.slow

# Weights that a loss of the output does not move: only another loss trains them, or they cancel out.
UNMOVED = {
    "din_relu_softmax": ["dense_1/bias"],
    "sim_soft": ["search_query", "search_key", "search_head"],
    "make": ["projection_text", "unit_text", "hidden_", "logit"],
    "make_joint": ["logit"],
}
# Frozen vectors as wide as those of `make_inputs`.
VECTORS = {"vectors/text": (None, None, 6), "vectors/image": (None, None, 9)}
# Interests that depend on the order of the events, if only to choose between equal ones.
ORDERED = {"sasrec", "sim_hard", "eta", "hstu", "hstu_last"}
# Interests that add the history's part to the target, so that an empty history gives the target.
RESIDUAL = {"asta"}
# Interests that count the steps without an event, so that an empty history says something too.
COUNTING = {"simtier_released"}

every_interest = pytest.mark.parametrize("name", list(CONFIGS))


def build(name: str, **kwargs: Any) -> Interest:
    layer = create_interest(CONFIGS[name], **kwargs)
    layer.build({"sequence": {"events": (None, None, WIDTH), **VECTORS}})
    return randomize(layer)


def run(layer: Interest, inputs: Inputs, **kwargs: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(layer(tensors(inputs), **kwargs), "float32"))


def test_every_interest_is_tested() -> None:
    assert {config["type"] for config in CONFIGS.values()} == set(INTERESTS)


@pytest.mark.any_backend
@every_interest
def test_layer_checks(name: str) -> None:
    keras.utils.set_random_seed(0)
    layer, inputs = create_interest(CONFIGS[name]), make_inputs()
    output = check_layer(layer, inputs, output_shape=[3, 5, WIDTH], unmoved=UNMOVED.get(name, ()))
    if name in RESIDUAL:
        output = output - inputs["candidate"]["target"]
    assert name in COUNTING or not output[1].any(), "an empty history must give zeros, or the target where it is added"
    assert output[0].any()
    assert output[2].any()


@every_interest
def test_the_width_of_the_output_is_known_before_it_is_built(name: str) -> None:
    assert create_interest(CONFIGS[name]).output_width(WIDTH) == run(build(name), make_inputs()).shape[-1] == WIDTH


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"type": "target_attention", "attention_dim": 12, "output_projection": False}, 12),
        ({"type": "dta", "frozen": "text", "attention_dim": 12, "output_projection": False}, 12),
        ({"type": "linear_attention", "attention_dim": 12, "output_projection": False}, 12),
        ({"type": "simtier", "frozen": "text", "units": 5}, 5),
        ({"type": "make", "frozen": "text", "units": 5}, 5),
        ({"type": "simtier_released", "frozen": ["text", "image"], "max_length": 7, "units": 2}, 88),
    ],
)
def test_the_width_of_an_output_that_is_not_that_of_the_events(config: dict[str, Any], width: int) -> None:
    layer = create_interest(config)
    assert layer.output_width(WIDTH) == run(layer, make_inputs()).shape[-1] == width


@every_interest
def test_encode_then_attend_is_call(name: str) -> None:
    layer, inputs = build(name), tensors(make_inputs())
    state = layer.encode(inputs["sequence"])
    assert not any("vectors" in key for key in state)
    assert {tensor.shape[0] for tensor in state.values()} == {3}
    vectors = {key: value for key, value in inputs["sequence"].items() if key.startswith("vectors/")}
    output = layer.attend({**state, **vectors}, inputs["candidate"], inputs["context"])
    if layer.auxiliary:
        output, logits = output
        assert {key: tuple(value.shape) for key, value in logits.items()} == dict.fromkeys(layer.auxiliary, (3, 5))
    np.testing.assert_array_equal(output, layer(inputs))


@every_interest
def test_state_reads_nothing_of_the_candidate(name: str) -> None:
    """`encode` is not given the candidate; what is left to test is that nothing of it stays in the layer."""
    layer, inputs = build(name), make_inputs()
    before = layer.encode(tensors(inputs["sequence"]))
    poisoned = {key: np.full_like(value, 7) for key, value in inputs["candidate"].items()}
    layer({**tensors(inputs), "candidate": tensors(poisoned)})
    after = layer.encode(tensors(inputs["sequence"]))
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


@every_interest
@pytest.mark.parametrize("poison", [1e6, np.nan, np.inf])
@pytest.mark.parametrize("training", [False, True])
def test_padding_content_changes_nothing(name: str, poison: float, training: bool) -> None:
    inputs = make_inputs()
    changed = copy.deepcopy(inputs)
    sequence = changed["sequence"]
    padded = np.arange(7) >= sequence["length"][:, None]
    sequence["events"][padded] = poison
    for key in ("ages", "ids/genres", "ids/brand"):
        sequence[key][padded] = 3
    layer, twin = build(name), build(name)
    for table in ("text", "image"):
        sequence[f"rows/{table}"][padded] = 19
    plain_state, poisoned_state = (layer.encode(tensors(one["sequence"])) for one in (inputs, changed))
    for key, value in plain_state.items():
        np.testing.assert_array_equal(value, poisoned_state[key])
    # The vectors are gathered by the rows of the state, so those of padded steps are those of row 0; any others must
    # not matter either.
    for table in ("text", "image"):
        sequence[f"vectors/{table}"][padded] = poison
    plain, poisoned = run(layer, inputs, training=training), run(twin, changed, training=training)
    np.testing.assert_array_equal(plain, poisoned)
    for one, other in zip(layer.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@every_interest
def test_padding_content_changes_no_gradient(name: str) -> None:
    inputs = make_inputs()
    changed = copy.deepcopy(inputs)
    changed["sequence"]["events"][np.arange(7) >= inputs["sequence"]["length"][:, None]] = np.nan
    found = []
    for one in (inputs, changed):
        layer, fed = build(name), tensors(one)

        def loss(sources: Inputs, layer: Interest = layer, fed: Inputs = fed) -> Any:
            merged = {side: {**fed[side], **sources.get(side, {})} for side in fed}
            return ops.sum(ops.square(layer(merged, training=True)))

        sources = {side: {key: fed[side][key]} for side, key in (("candidate", "target"), ("sequence", "events"))}
        _, by_inputs, by_weights = gradients(loss, sources, layer.trainable_weights)
        found.append([*by_inputs, *by_weights])
    for plain, poisoned in zip(*found, strict=True):
        assert (plain is None) == (poisoned is None)
        if plain is not None:
            np.testing.assert_array_equal(plain, poisoned)
            assert np.isfinite(plain).all()


@every_interest
@pytest.mark.parametrize(
    ("candidates", "length"), [pytest.param(0, 7, marks=pytest.mark.any_backend), (1, 1), (500, 7)]
)
def test_sizes(name: str, candidates: int, length: int) -> None:
    layer = build(name)
    inputs = tensors(make_inputs(candidates=candidates, length=length))
    for training in (True, False):
        output = layer(inputs, training=training)
        assert tuple(output.shape) == (3, candidates, WIDTH)
        assert np.isfinite(output).all()
    np.testing.assert_allclose(compiled(layer)(inputs), output, rtol=1e-4, atol=1e-5)


@every_interest
@pytest.mark.tensorflow
def test_dynamic_shapes_in_one_graph(name: str) -> None:
    """One trace for every batch size, candidate count and history length."""
    import tensorflow as tf

    layer = build(name)
    small, large = make_inputs(), make_inputs(batch=4, candidates=9, length=11, seed=1)
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec(
            [None, *([None] if array.ndim > 1 else []), *array.shape[2:]], tf.as_dtype(array.dtype)
        ),
        small,
    )
    graph = tf.function(lambda fed: layer(fed), input_signature=[signature])
    for inputs in (small, large):
        np.testing.assert_allclose(graph(tensors(inputs)), layer(tensors(inputs)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ORDERED])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_order_of_the_history_does_not_matter(name: str, data: st.DataObject) -> None:
    """The interests that know an order have tests of their own."""
    inputs = make_inputs(lengths=[7, 4, 1], seed=data.draw(st.integers(0, 10)))
    order = np.tile(np.arange(7), (3, 1))
    for row, length in enumerate([7, 4, 1]):
        order[row, :length] = data.draw(st.permutations(range(length)))
    shuffled = copy.deepcopy(inputs)
    for key, value in inputs["sequence"].items():
        if key != "length":
            shuffled["sequence"][key] = np.stack([one[index] for one, index in zip(value, order, strict=True)])
    layer = build(name)
    np.testing.assert_allclose(run(layer, shuffled), run(layer, inputs), rtol=1e-4, atol=1e-5)


@every_interest
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_candidates_do_not_see_each_other(name: str, data: st.DataObject) -> None:
    inputs = make_inputs(seed=data.draw(st.integers(0, 10)))
    chosen = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    picked = copy.deepcopy(inputs)
    picked["candidate"] = {key: value[:, chosen] for key, value in inputs["candidate"].items()}
    layer = build(name)
    np.testing.assert_allclose(run(layer, picked), run(layer, inputs)[:, chosen], rtol=1e-4, atol=1e-5)


@every_interest
def test_mixed_precision_is_near_float32(name: str) -> None:
    inputs = make_inputs(candidates=20, length=30)
    plain = run(build(name), inputs)
    layer = build(name, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(tensors(inputs)).dtype) == "bfloat16"
    mixed = run(layer, inputs)
    assert np.isfinite(mixed).all()
    assert np.max(np.abs(mixed - plain)) <= 0.05 * np.max(np.abs(plain))


class Towers(keras.layers.Layer):
    """A small model that gathers the frozen vectors and calls `encode` and `attend` inside an autocasting layer."""

    def __init__(self, interest: Interest, table: dict[str, np.ndarray], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.interest = interest
        self.table = {
            name: self.add_weight(name=name, shape=values.shape, trainable=False, autocast=False)
            for name, values in table.items()
        }
        for name, values in table.items():
            self.table[name].assign(values)

    def call(self, inputs: Inputs) -> Any:
        state = dict(self.interest.encode(inputs["sequence"]))
        candidate = dict(inputs["candidate"])
        for name in self.interest.frozen_names:
            for side in (state, candidate):
                side[f"vectors/{name}"] = ops.take(self.table[name].value, side[f"rows/{name}"], axis=0)
        output = self.interest.attend(state, candidate, {})
        return output[0] if self.interest.auxiliary else output


@every_interest
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_inside_an_autocasting_layer(name: str, policy: str) -> None:
    inputs = make_inputs()
    generator = np.random.default_rng(3)
    table = {key[8:]: generator.normal(size=(20, shape[-1])).astype("float32") for key, shape in VECTORS.items()}
    for key, values in table.items():
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
        values[0] = 0.0
        for side in ("sequence", "candidate"):
            inputs[side][f"vectors/{key}"] = values[inputs[side][f"rows/{key}"]]
    layer = build(name, dtype=policy)
    if policy == "float32":
        expected = run(layer, inputs)
    else:
        # The outer layer casts events and targets to bfloat16 before the interest gets them.
        rounded = copy.deepcopy(inputs)
        for side, key in (("sequence", "events"), ("candidate", "target")):
            rounded[side][key] = ops.convert_to_numpy(ops.cast(ops.cast(inputs[side][key], "bfloat16"), "float32"))
        expected = run(layer, rounded)
    without = {side: {key: value for key, value in fed.items() if "vectors" not in key} for side, fed in inputs.items()}
    output = Towers(layer, table, dtype=policy)(tensors(without))
    np.testing.assert_array_equal(ops.cast(output, "float32"), expected)


@pytest.mark.parametrize("name", ["din", "target_attention", "dta", "cmm", "ta_early", "ta_late", "bfs_mf"])
def test_dropout_is_seeded_and_only_in_training(name: str) -> None:
    inputs = make_inputs(length=30, lengths=[30, 30, 30])
    config = {**CONFIGS[name], "dropout": 0.5}

    def outputs(seed: int) -> list[np.ndarray]:
        layer = create_interest({**config, "seed": seed})
        layer.build({"sequence": {"events": (None, None, WIDTH)}})
        randomize(layer)
        return [run(layer, inputs, training=True), run(layer, inputs, training=True), run(layer, inputs)]

    first, second, plain = outputs(1)
    again = outputs(1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])
    assert not np.array_equal(first, outputs(2)[0])
    if name != "din":  # in `din` the training calls have moved the statistics of Dice
        np.testing.assert_array_equal(plain, run(build(name), inputs))


def test_missing_tensors_are_named() -> None:
    inputs = make_inputs()
    del inputs["sequence"]["rows/text"]
    with pytest.raises(ValueError, match=r"`rows/text` must be given. Received only: ages, events"):
        create_interest(CONFIGS["dta"])(tensors(inputs))


def test_events_need_a_width() -> None:
    with pytest.raises(ValueError, match="`events` must have a known width"):
        create_interest(CONFIGS["mean"]).build({"sequence": {"events": (None, 5, None)}})
