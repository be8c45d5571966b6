"""What the rows of a batch cost by themselves: they are read from a table of all rows and subtracted from it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.peers.turns import PRODUCT, Side, serve


def prepare(task: dict[str, Any]) -> Side:
    tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
    found = dict(np.load(task["batch"]))
    starts = np.cumsum([0, *(rows for _, rows in task["tables"])])
    # One table after another in one variable.
    ids = np.concatenate(
        [found[name] + start for (name, _), start in zip(task["tables"], starts, strict=False)], axis=1
    )
    batches = itertools.cycle([tf.constant(one) for one in ids])
    table = tf.Variable(tf.zeros([starts[-1], task["width"]]))

    @tf.function(autograph=False)
    def access(rows: Any) -> Any:
        read = tf.gather(table, rows)
        with tf.control_dependencies([table.scatter_sub(tf.IndexedSlices(read, rows))]):
            return read[0, 0]

    left, right = tf.random.normal([PRODUCT, PRODUCT]), tf.random.normal([PRODUCT, PRODUCT])
    return Side(lambda: access(next(batches)).numpy(), lambda: tf.linalg.matmul(left, right).numpy(), {})


if __name__ == "__main__":
    serve(prepare)
