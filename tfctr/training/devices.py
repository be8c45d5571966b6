"""The devices of one machine, each of which trains on its part of every batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfctr.errors import UserError
from tfctr.models.model import RankingModel
from tfctr.training.experiment import Training

_WHY = ("training.devices", "TF_CONFIG")
"""What makes a step one for several devices: the file, or that there are several workers."""


def check_devices(training: Training, workers: int = 1) -> int:
    """How many devices a training asks for, on each of some workers.

    Raises:
        UserError: for more than there are, for XLA on several, and where the caller has spread the training by Keras.
    """
    if keras.distribution.distribution() is not None:
        raise UserError(
            "keras.distribution: it does nothing in a training on TensorFlow; take keras.distribution.set_distribution "
            "out of the program and set training.devices, which trains on several devices of a machine"
        )
    if training.devices == workers == 1:
        return 1
    found = _found()
    count = len(found) if training.devices == "all" else training.devices
    if count > len(found):
        kind = "GPU" if "GPU" in found[0] else "logical CPU, and no GPU that TensorFlow can use"
        raise UserError(
            f"training.devices: {count} are asked for, and there are: {len(found)} {kind}; "
            f"set it to at most {len(found)}, or to `all`"
        )
    if training.jit_compile and count * workers > 1:
        raise UserError(
            f"training.jit_compile: XLA compiles a step for one device, and {_WHY[workers > 1]} makes it one for "
            f"{count * workers}; leave jit_compile out, or train on one device"
        )
    return count


def strategy_of(training: Training) -> Any:
    """TensorFlow's strategy for the devices of a training, in whose scope the model must be built.

    The devices are GPUs, or logical CPUs where there is no GPU. For one device it is the default, which changes
    nothing.

    Raises:
        UserError: as `check_devices`, and in the scope of another strategy.
    """
    if tf.distribute.has_strategy():
        raise UserError(
            "a training can't run in the scope of a tf.distribute strategy; leave the scope and set training.devices, "
            "which trains on several devices of a machine"
        )
    count = check_devices(training)
    if count == 1:
        return tf.distribute.get_strategy()
    # A strategy numbers its sums over devices from this. In a second training of a process they would have the numbers
    # of the first one's, and fail where their shapes differ. TensorFlow's own tests raise it in this way.
    tf.distribute.MirroredStrategy._collective_key_base += 100_000
    return tf.distribute.MirroredStrategy(_found()[:count])


def on_several(model: RankingModel) -> bool:
    """Whether a model was built for several devices."""
    return bool(model.distribute_strategy.num_replicas_in_sync > 1)


def check_built_for(model: RankingModel, wanted: int) -> None:
    """Raises a ValueError if a model was not built for a number of devices."""
    built = model.distribute_strategy.num_replicas_in_sync
    if built != wanted:
        raise ValueError(
            "`model` must be built in the scope of `strategy_of(training)`. "
            f"Received: a model for {built}, and a training for {wanted}"
        )


def fit_for_several(model: RankingModel) -> None:
    """Replace what Keras does wrong in a compiled model for several devices."""
    # It would build the model, which is built, with the mean of the devices' parts, which may have different lengths.
    model._maybe_symbolic_build = lambda **_: None
    # It would give all rows to score to each device, and return the scores of all of them.
    model.predict_function = tf.function(lambda batches: model.predict_step(batches[0]), reduce_retracing=True)


def _found() -> list[str]:
    return [one.name for one in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
