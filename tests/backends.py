"""Gradients and compiled functions on the backend of Keras, for tests of code that runs on every backend.

TensorFlow differentiates operations that have just run, and JAX differentiates pure functions. A function that is
differentiated here therefore takes its tensors as arguments, and its Keras variables are listed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf
else:
    import jax


def tensors(structure: Any) -> Any:
    """NumPy arrays as tensors of the backend, with their own dtypes."""
    return tree.map_structure(lambda array: ops.convert_to_tensor(array, dtype=str(array.dtype)), structure)


def arrays(structure: Any) -> Any:
    """Tensors as NumPy arrays."""
    return tree.map_structure(ops.convert_to_numpy, structure)


def gradients(
    function: Callable[[Any], Any], inputs: Any = None, variables: Sequence[Any] = ()
) -> tuple[Any, list[Any], list[Any]]:
    """Run a function and differentiate it.

    Args:
        function: takes `inputs` and returns a scalar or `(scalar, more)`. Its variables must exist already.
        inputs: tensors in any structure.
        variables: Keras variables to differentiate with respect to.

    Returns:
        The function's result; the gradients with respect to the tensors of `tree.flatten(inputs)`, None for integers;
        and those with respect to the variables. Where the scalar does not depend on a tensor, TensorFlow gives None
        and JAX gives zeros.
    """
    flat = tree.flatten(inputs) if inputs is not None else []
    floating = [i for i, tensor in enumerate(flat) if "float" in keras.backend.standardize_dtype(tensor.dtype)]
    differentiate = _by_tape if BACKEND == "tensorflow" else _by_transformation
    result, by_floats, by_variables = differentiate(function, inputs, flat, floating, list(variables))
    by_inputs: list[Any] = [None] * len(flat)
    for i, gradient in zip(floating, by_floats, strict=True):
        by_inputs[i] = gradient
    return result, by_inputs, by_variables


def _scalar(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _by_tape(function: Any, inputs: Any, flat: Any, floating: Any, variables: Any) -> tuple[Any, list[Any], list[Any]]:
    sources = [flat[i] for i in floating]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        result = function(inputs)
    found = tape.gradient(_scalar(result), [*sources, *(variable.value for variable in variables)])
    # The gradient of a gathered table comes as IndexedSlices.
    found = [one if one is None else tf.convert_to_tensor(one) for one in found]
    return result, found[: len(sources)], found[len(sources) :]


def _by_transformation(
    function: Any, inputs: Any, flat: Any, floating: Any, variables: Any
) -> tuple[Any, list[Any], list[Any]]:
    updated: dict[int, Any] = {}

    class Scope(keras.StatelessScope):
        """Remembers which variables are updated (moving statistics, seeds), not only their values."""

        def add_update(self, update: tuple[Any, Any]) -> None:
            updated[id(update[0])] = update[0]
            super().add_update(update)

    def pure(sources: list[Any], values: list[Any]) -> Any:
        fed = list(flat)
        for i, source in zip(floating, sources, strict=True):
            fed[i] = source
        with Scope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            result = function(tree.pack_sequence_as(inputs, fed) if flat else inputs)
        return _scalar(result), (result, [scope.get_current_value(variable) for variable in updated.values()])

    differentiated = jax.value_and_grad(pure, argnums=(0, 1), has_aux=True)
    arguments = [flat[i] for i in floating], [variable.value for variable in variables]
    try:
        # This compiles once, and not once for every operation and shape.
        (_, (result, values)), found = jax.jit(differentiated)(*arguments)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # The function reads values, as a test with assertions inside does, so it cannot be compiled.
        updated.clear()
        (_, (result, values)), found = differentiated(*arguments)
    for variable, value in zip(updated.values(), values, strict=True):
        variable.assign(value)
    return result, *found


def run(function: Callable[..., Any]) -> Callable[..., Any]:
    """The form in which tests run a function: unchanged on TensorFlow, compiled on JAX."""
    return function if BACKEND == "tensorflow" else compiled(function)


def forget_compiled() -> None:
    """Frees compiled functions. JAX keeps all of them, which takes gigabytes over a test session."""
    if BACKEND == "jax":
        jax.clear_caches()


def compiled(function: Callable[..., Any], jit: bool = False) -> Callable[..., Any]:
    """A function in compiled form: `tf.function`, with XLA if `jit`; on JAX `jax.jit`, without updates of variables."""
    if BACKEND == "tensorflow":
        return tf.function(function, jit_compile=jit)

    def stateless(*arguments: Any) -> Any:
        with keras.StatelessScope():
            return function(*arguments)

    return jax.jit(stateless)
