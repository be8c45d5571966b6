"""Elementwise chains that are one pass over memory, also in a graph that XLA does not compile as a whole."""

from collections.abc import Callable
from typing import Any

import keras


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors by XLA on TensorFlow, where each of its operations would be a pass of its own.

    In a step that is compiled as a whole, and on other backends, it changes nothing. It is for what only training
    computes: TensorFlow Serving does not compile.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)  # type: ignore[no-any-return]
