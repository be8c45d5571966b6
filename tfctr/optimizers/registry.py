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
