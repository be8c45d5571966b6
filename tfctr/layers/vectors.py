"""What is done to a vector as a whole."""

from typing import Any

from keras import ops


def unit_length(x: Any) -> Any:
    """Float `[..., d]`, each vector brought to length 1; zeros stay zeros, with a gradient of zero."""
    # The floor is under the root: the gradient of a norm at zero is not finite.
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-24))
