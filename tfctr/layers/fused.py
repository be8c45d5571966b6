"""Elementwise chains that are one pass over memory, also in a graph that XLA does not compile as a whole."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors by XLA on TensorFlow, where each of its operations would be a pass of its own.

    In a step that is compiled as a whole, and on other backends, it changes nothing. It is for what only training
    computes: TensorFlow Serving does not compile.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)  # type: ignore[no-any-return]


@ops.custom_gradient  # type: ignore[untyped-decorator]
def keep_gradient(tokens: Any) -> tuple[Any, Callable[..., Any]]:
    """Tokens `[..., N, d]` as they are, whose gradient is computed once and kept.

    Along residuals a gradient is one elementwise chain through all layers. Whatever reads it, at any layer, XLA fuses
    with the whole chain above, which it thus computes again each time. It fuses nothing across a product of matrices:
    here with the identity, which changes no number (where products are of TF32 it rounds, as all of them do).
    """

    def gradient(*values: Any, upstream: Any = None) -> Any:
        # Keras gives it by name on PyTorch, after the inputs, and alone on the other backends.
        above = values[0] if upstream is None else upstream
        return ops.matmul(above, ops.eye(tokens.shape[-1], dtype=tokens.dtype))

    return tokens, gradient
