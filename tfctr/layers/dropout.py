"""Dropout whose random numbers cost little."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_rate
from tfctr.layers.configured import SameShapeLayer
from tfctr.layers.export import tfctr_export
from tfctr.layers.fused import fused
from tfctr.layers.replicas import replica


@tfctr_export
class Dropout(SameShapeLayer):
    """Dropout: in training, each element is 0 with probability `rate` and else divided by 1 - rate.

    It is the Keras layer of this name with other random numbers. Those of Keras come from Philox or Threefry, whose
    wide products XLA does not vectorise on CPU: they took more than half of a training step. Here an element's number
    is a hash of its place, under two keys that are hashes of the seed and of the count of draws:

        u = mix(mix(place * 2654435769 + key_0) + key_1),    kept where u >= rate * 2^32

    with `mix` the 32-bit finalizer `lowbias32`. That is a handful of operations of 32 bits, in one pass with what is
    around it.

    Args:
        rate: the probability of a zero, at least 0 and less than 1.
        seed: the seed of the random numbers; None draws one.

    Call arguments:
        inputs: float, any shape.
        training: whether to drop out.

    Output shape: that of `inputs`.

    Example:
        >>> dropped = Dropout(0.75, seed=1)(ops.ones((1000, 100)), training=True)
        >>> float(ops.max(dropped)), round(float(ops.mean(ops.cast(dropped == 0, "float32"))), 2)
        (4.0, 0.75)

    References:
        Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting (2014). The constants of
        `mix`: Wellons, Prospecting for Hash Functions (2018).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = check_rate("rate", rate)
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    @override
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or not self.rate:
            return inputs
        seed = ops.cast(self.seed_generator.next(), "uint32")
        if number := replica():
            # The states of the seed are alike on all devices, whose rows must not be dropped alike.
            seed = seed + np.array([number, 0], "uint32")
        kept = _random_bits(inputs, seed) >= np.uint32(self.rate * 2**32)
        return ops.where(kept, inputs * (1.0 / (1.0 - self.rate)), 0.0)


@fused
def _random_bits(like: Any, seed: Any) -> Any:
    """A uint32 of each element of a tensor."""
    shape = ops.shape(like)
    place = ops.cast(ops.reshape(ops.arange(math.prod(shape), dtype="int32"), shape), "uint32")
    key = _mix(seed[0] + _mix(seed[1]))
    return _mix(_mix(place * np.uint32(2654435769) + key) + _mix(key + np.uint32(1)))


def _mix(x: Any) -> Any:
    """A bijection of 32 bits, each bit of which depends on all bits of its argument: `lowbias32`."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ ops.right_shift(x, np.uint32(shift))) * np.uint32(factor)
    return x ^ ops.right_shift(x, np.uint32(16))
