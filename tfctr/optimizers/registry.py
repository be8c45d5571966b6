"""The optimizers by the name that a configuration uses: those of Keras, and those of this package."""

from __future__ import annotations

import keras

from tfctr.layers.registry import Registry

OPTIMIZERS: Registry[keras.optimizers.Optimizer] = Registry(
    adam=keras.optimizers.Adam,
    adamw=keras.optimizers.AdamW,
    nadam=keras.optimizers.Nadam,
    adamax=keras.optimizers.Adamax,
    lamb=keras.optimizers.Lamb,
    lion=keras.optimizers.Lion,
    adafactor=keras.optimizers.Adafactor,
    adagrad=keras.optimizers.Adagrad,
    adadelta=keras.optimizers.Adadelta,
    rmsprop=keras.optimizers.RMSprop,
    ftrl=keras.optimizers.Ftrl,
    sgd=keras.optimizers.SGD,
)
"""Those of Keras have the names by which `keras.optimizers.get` knows them."""
optimizer = OPTIMIZERS.register

_DIVIDING = (keras.optimizers.Ftrl,)
"""Optimizers of Keras that divide by their rate. One of this package says it itself, by `divides_by_rate`."""


def divides_by_rate(made: type[keras.optimizers.Optimizer]) -> bool:
    """Whether an optimizer makes no numbers where its rate is 0."""
    return getattr(made, "divides_by_rate", issubclass(made, _DIVIDING))
