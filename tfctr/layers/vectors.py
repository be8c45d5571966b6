"""What is done to a vector as a whole."""

from typing import Any

from keras import ops


def length(x: Any) -> Any:
    """Float `[...]`, the Euclidean length of each vector `[..., d]`; its gradient at zero is zero."""
    # The floor is under the root: the gradient of a norm at zero is not finite.
    return ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1), 1e-24))


def unit_length(x: Any) -> Any:
    """Float `[..., d]`, each vector brought to length 1; zeros stay zeros, with a gradient of zero."""
    return x / length(x)[..., None]
