"""The checks that every layer must pass, in one function."""

import inspect
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tests.backends import BACKEND, compiled, gradients, run, tensors


def check_layer(
    layer: Any,
    inputs: Any,
    *,
    call_arguments: Mapping[str, Any] | None = None,
    output_shape: Any = None,
    unmoved: Sequence[str] = (),
    rtol: float = 1e-5,
    xla: bool = True,
    mixed: bool = True,
) -> Any:
    """Check config round trip, shapes, compiled forms, saving, a training step and mixed precision.

    On JAX every form is compiled, because eager calls are too slow there.

    Args:
        layer: a layer, built or not. It is not changed, except that it is built.
        inputs: NumPy arrays in the structure of the layer's first call argument.
        call_arguments: further arguments of the call; arrays (`mask`) become model inputs, other values are constants.
        output_shape: the expected shape for `inputs`; a dict of shapes for a dict of outputs.
        unmoved: parts of names of trainable weights that a training step need not change, such as a bias before a
            normalization.
        rtol: the largest difference of the outputs of `tf.function`, XLA and the reloaded model from the eager ones,
            relative to the largest output.
        xla: whether to compile with `jit_compile`; ignored on JAX.
        mixed: whether to run under `mixed_bfloat16`.

    Returns:
        The outputs of an eager call in inference mode, as NumPy arrays.
    """
    arguments = dict(call_arguments or {})
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    constants = {name: value for name, value in arguments.items() if name not in arrays}
    feed = (inputs, arrays)
    fed = tensors(feed)

    def call(target: Any, fed: Any, **extra: Any) -> Any:
        first, rest = fed
        return target(first, **rest, **constants, **extra)

    if BACKEND != "tensorflow":
        # An eager build would compile every operation for every shape, so the layer is built with symbolic inputs.
        call(layer, _placeholders(fed))
    expected = tree.map_structure(ops.convert_to_numpy, run(lambda one: call(layer, one))(fed))
    tree.map_structure(lambda array: _assert(np.isfinite(array).all(), "an output is not finite"), expected)
    if output_shape is not None:
        shapes = tree.map_structure(lambda array: list(array.shape), expected)
        wanted = {name: list(shape) for name, shape in output_shape.items()} if isinstance(output_shape, dict) else None
        _assert(shapes == (wanted or list(output_shape)), f"shapes {shapes}, expected {output_shape}")

    _check_config(layer)
    if BACKEND == "tensorflow":
        for form, jit in {"tf.function": False, "XLA": True}.items():
            if xla or not jit:
                _assert_equal(compiled(lambda one: call(layer, one), jit)(fed), expected, rtol, form)
    _check_saved(layer, feed, call, expected, rtol)
    _check_training(layer, fed, call, unmoved)
    if mixed:
        _check_mixed(layer, fed, call)
    return expected


def check_padding(layer: Any, inputs: Any, mask: Any, **call_arguments: Any) -> None:
    """Check that what masked rows hold changes no bit: not the outputs of the others, and not what a step moves.

    Args:
        layer: a layer, built or not.
        inputs: float `[..., more]`, where `mask` has the leading axes.
        mask: bool, true for the rows that count.
        **call_arguments: further arguments of the call.
    """
    layer(inputs, **call_arguments)
    start = layer.get_weights()
    other = np.random.default_rng(9).normal(0.0, 1e6, inputs.shape)
    rows = mask.reshape(mask.shape + (1,) * (inputs.ndim - mask.ndim))
    outputs, moved = [], []
    for fed in (inputs, np.where(rows, inputs, other).astype(inputs.dtype)):
        layer.set_weights(start)
        outputs.append(ops.convert_to_numpy(layer(fed, mask=mask, training=True, **call_arguments))[mask])
        moved.append(layer.get_weights())
    np.testing.assert_array_equal(*outputs)
    for one, two in zip(*moved, strict=True):
        np.testing.assert_array_equal(one, two)


def check_gradients_at_zero_fields(layer: Any, fields: Any) -> None:
    """Check that gradients are finite where the last field is zero in every row, and the first row in every field.

    Args:
        layer: a built layer over fields.
        fields: float `[n, ..., F, E]`.
    """
    places = np.arange(fields.shape[-2])[:, None]
    fed = np.where(places < fields.shape[-2] - 1, fields, 0.0).astype(fields.dtype)
    fed[0] = 0.0
    total, found, by_weights = gradients(lambda one: ops.sum(layer(one)), tensors(fed), layer.trainable_weights)
    for tensor in (total, *found, *by_weights):
        assert np.isfinite(ops.convert_to_numpy(tensor)).all()


def _assert(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _assert_equal(actual: Any, expected: Any, rtol: float, label: str) -> None:
    tree.assert_same_structure(actual, expected)
    for one, other in zip(tree.flatten(actual), tree.flatten(expected), strict=True):
        value = ops.convert_to_numpy(one)
        _assert(value.shape == other.shape, f"{label}: shape {value.shape}, eager {other.shape}")
        error = np.max(np.abs(value.astype("float64") - other), initial=0.0)
        _assert(
            error <= rtol * max(np.max(np.abs(other), initial=0.0), 1e-6), f"{label}: differs from eager by {error}"
        )


def _check_config(layer: Any) -> None:
    config = layer.get_config()
    json.dumps(config)
    # The round trip below cannot show that an argument is lost if the test leaves it at its default.
    parameters = inspect.signature(type(layer)).parameters.values()
    lost = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD} - set(config)
    _assert(not lost, f"arguments that get_config leaves out: {sorted(lost)}")
    again = type(layer).from_config(config).get_config()
    _assert(again == config, f"the config changes in a round trip: {config} became {again}")


def _check_saved(layer: Any, feed: Any, call: Any, expected: Any, rtol: float) -> None:
    """A functional model with this layer, saved as `.keras` and reloaded without custom_objects."""
    placeholders = _placeholders(feed)
    symbolic = call(layer, placeholders)
    for spec, array in zip(tree.flatten(symbolic), tree.flatten(expected), strict=True):
        known = zip(spec.shape, array.shape, strict=True)
        _assert(all(a in (None, b) for a, b in known), f"symbolic shape {spec.shape}, real shape {array.shape}")
    model = keras.Model(tree.flatten(placeholders), symbolic)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    _assert_equal(run(loaded)(tree.flatten(tensors(feed))), expected, rtol, "reloaded")


def _placeholders(feed: Any) -> Any:
    counter = iter(range(1000))

    def placeholder(array: Any) -> Any:
        dtype = keras.backend.standardize_dtype(array.dtype)
        return keras.Input(shape=array.shape[1:], dtype=dtype, name=f"input_{next(counter)}")

    return tree.map_structure(placeholder, feed)


def _check_training(layer: Any, fed: Any, call: Any, unmoved: Sequence[str]) -> None:
    """A gradient step must move every trainable weight."""
    copy = type(layer).from_config(layer.get_config())
    call(copy, fed if BACKEND == "tensorflow" else _placeholders(fed))
    generator = np.random.default_rng(7)
    # Weights are moved, because embeddings and gates start at zero or one, where some gradients vanish.
    for weight in copy.trainable_weights:
        weight.assign(ops.convert_to_numpy(weight) + generator.normal(0.0, 0.1, weight.shape))
    accepts = "training" in inspect.signature(copy.call).parameters
    before = [ops.convert_to_numpy(weight).copy() for weight in copy.trainable_weights]

    def loss(_: Any) -> Any:
        outputs = tree.flatten(call(copy, fed, **({"training": True} if accepts else {})))
        factors = [np.random.default_rng(i).normal(size=output.shape) for i, output in enumerate(outputs)]
        return sum(ops.sum(out * ops.cast(factor, out.dtype)) for out, factor in zip(outputs, factors, strict=True))

    _, _, found = gradients(loss, variables=copy.trainable_weights)
    for weight, gradient, old in zip(copy.trainable_weights, found, before, strict=True):
        if any(part in weight.path for part in unmoved):
            continue
        _assert(gradient is not None, f"{weight.path}: no gradient")
        gradient = ops.convert_to_numpy(gradient)
        _assert(np.isfinite(gradient).all(), f"{weight.path}: gradient is not finite")
        weight.assign(old - 0.1 * gradient)
        _assert(not np.array_equal(ops.convert_to_numpy(weight), old), f"{weight.path}: a training step left it alone")


def _check_mixed(layer: Any, fed: Any, call: Any) -> None:
    """Under mixed bfloat16, outputs must be finite and variables float32."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        copy = type(layer).from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})
        accepts = "training" in inspect.signature(copy.call).parameters
        call(copy, _placeholders(fed))
        for training in (False, True) if accepts else (None,):
            extra = {"training": training} if accepts else {}
            outputs = run(lambda one, extra=extra: call(copy, one, **extra))(fed)
            for output in tree.flatten(outputs):
                array = ops.convert_to_numpy(ops.cast(output, "float32"))
                _assert(np.isfinite(array).all(), "not finite under mixed_bfloat16")
        halves = [weight.path for weight in copy.weights if weight.dtype in ("bfloat16", "float16")]
        _assert(not halves, f"half-precision weights: {halves}")
    finally:
        keras.config.set_dtype_policy(policy)
