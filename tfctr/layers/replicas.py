"""Parts of a batch on several devices: how many there are, which one is under way, and sums over all of them.

Each device has a replica of the model and runs the same step on its part of the batch. Outside such a step, and on
other backends than TensorFlow, there is one replica, whose part is the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def _context() -> Any:
    """What TensorFlow knows of the replica under way, or None where there is only one."""
    if keras.backend.backend() != "tensorflow":
        return None
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def replicas() -> int:
    """How many replicas there are."""
    context = _context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def replica() -> int:
    """The number of the replica under way, from 0."""
    context = _context()
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def local(variable: Any) -> Any:
    """The copy of a backend's variable that this replica reads; that of the first outside a step."""
    if keras.backend.backend() == "tensorflow" and isinstance(variable, tf.distribute.DistributedValues):
        # A worker holds the copies of its own devices only.
        return variable.values[replica() % len(variable.values)]
    return variable


def beside(variable: Any, other: Any) -> Any:
    """The copy of a backend's variable that is on the device of another variable."""
    if keras.backend.backend() == "tensorflow" and isinstance(variable, tf.distribute.DistributedValues):
        return next(copy for copy in variable.values if copy.device == other.device)
    return variable


def share(weights: Any) -> Any:
    """The part of the whole batch's weight that is in this replica's rows; 1 where there is only one replica.

    Args:
        weights: the weights `[n]` of this replica's rows.
    """
    context = _context()
    if context is None:
        return 1.0
    own = ops.sum(weights)
    total = whole_sum(own)
    return own / ops.where(total > 0, total, 1.0)


def whole_sum(values: Any) -> Any:
    """The sum over all replicas of a tensor each, with its gradient."""
    context = _context()
    return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def summed(gradients: Sequence[Any]) -> list[Any]:
    """The sums over all replicas of gradients, of which some may be None and some of single rows."""
    context = _context()
    if context is None:
        return list(gradients)
    found = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, [one for one in gradients if one is not None]))
    return [None if one is None else next(found) for one in gradients]
