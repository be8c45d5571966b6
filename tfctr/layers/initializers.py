"""Initial values as the published models draw them."""

import math

import keras


def xavier_normal(fans: tuple[int, int] | None = None, gain: float = 1.0) -> keras.initializers.Initializer:
    """Xavier-normal initial values that are not truncated: N(0, gain^2 * 2 / (fan_in + fan_out)).

    The Keras initializer of this name cuts the draw at two standard deviations, which the reference code does not.

    Args:
        fans: `(fan_in, fan_out)` of one matrix, for a weight that stacks several (`[heads, in, out]`); by default they
            are read from the shape of a `[in, out]` kernel.
        gain: factor of the standard deviation.

    Returns:
        A fresh initializer with a seed of its own.
    """
    if fans is None:
        return keras.initializers.VarianceScaling(gain**2, mode="fan_avg", distribution="untruncated_normal")
    return keras.initializers.RandomNormal(stddev=gain * math.sqrt(2.0 / sum(fans)))
