"""The devices of one machine, each of which trains on its part of every batch."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfctr.errors import UserError
from tfctr.models.model import RankingModel
from tfctr.training.experiment import Training


def strategy_of(devices: int | Literal["all"]) -> Any:
    """TensorFlow's strategy for a number of devices, in whose scope the model must be built.

    The devices are GPUs, or logical CPUs where there is no GPU. For one device it is the default, which changes
    nothing.

    Args:
        devices: See `Training.devices`.

    Raises:
        UserError: for more devices than there are, and where the caller has spread the training in another way.
    """
    if keras.distribution.distribution() is not None:
        raise UserError(
            "keras.distribution: it does nothing in a training on TensorFlow; take keras.distribution.set_distribution "
            "out of the program and set training.devices, which trains on several devices of a machine"
        )
    if tf.distribute.has_strategy():
        raise UserError(
            "a training can't run in the scope of a tf.distribute strategy; leave the scope and set training.devices, "
            "which trains on several devices of a machine"
        )
    count = _count(devices)
    if count == 1:
        return tf.distribute.get_strategy()
    # A strategy numbers its sums over devices from this. In a second training of a process they would have the numbers
    # of the first one's, and fail where their shapes differ. TensorFlow's own tests raise it in this way.
    tf.distribute.MirroredStrategy._collective_key_base += 100_000
    return tf.distribute.MirroredStrategy(_found()[:count])


def on_several(model: RankingModel) -> bool:
    """Whether a model was built for several devices."""
    return bool(model.distribute_strategy.num_replicas_in_sync > 1)


def check_built_for(model: RankingModel, training: Training) -> None:
    """Check that a model was built for the devices of a training, and that it can be trained on them.

    Raises:
        UserError: for XLA on several devices.
        ValueError: if the model was not built in the scope of `strategy_of`.
    """
    built, wanted = model.distribute_strategy.num_replicas_in_sync, _count(training.devices)
    if built != wanted:
        raise ValueError(
            "`model` must be built in the scope of `strategy_of(training.devices)`. "
            f"Received: a model for {built}, and training.devices for {wanted}"
        )
    if training.jit_compile and on_several(model):
        raise UserError(
            f"training.jit_compile: XLA compiles a step for one device, and training.devices makes it one for {built}; "
            "leave jit_compile out, or set devices to 1"
        )


def fit_for_several(model: RankingModel) -> None:
    """Replace what Keras does wrong in a compiled model for several devices."""
    # It would build the model, which is built, with the mean of the devices' parts, which may have different lengths.
    model._maybe_symbolic_build = lambda **_: None
    # It would give all rows to score to each device, and return the scores of all of them.
    model.predict_function = tf.function(lambda batches: model.predict_step(batches[0]), reduce_retracing=True)


def _found() -> list[str]:
    return [one.name for one in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]


def _count(devices: int | Literal["all"]) -> int:
    if devices == 1:
        return 1
    found = _found()
    if devices == "all":
        return len(found)
    if devices > len(found):
        kind = "GPU" if "GPU" in found[0] else "logical CPU, and no GPU that TensorFlow can use"
        raise UserError(
            f"training.devices: {devices} are asked for, and there are: {len(found)} {kind}; "
            f"set it to at most {len(found)}, or to `all`"
        )
    return devices
