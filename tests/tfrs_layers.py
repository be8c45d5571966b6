"""What layers of TensorFlow Recommenders answer: `TF_USE_LEGACY_KERAS=1 python -m tests.tfrs_layers IN.npz OUT.npz`.

TensorFlow Recommenders needs Keras 2, so it runs in a process of its own; `answers` starts one. In `IN.npz` are fields
`x` [B, F, E], the weights of cross layers on their concatenation, and the cotangents of both results.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]


def answers(**arrays: Any) -> dict[str, Any]:
    """The results for some arrays, by name."""
    with tempfile.TemporaryDirectory() as directory:
        given, found = Path(directory) / "in.npz", Path(directory) / "out.npz"
        np.savez(given, **arrays)
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
        command = [sys.executable, "-m", "tests.tfrs_layers", given, found]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(np.load(found))


def main(given: str, found: str) -> None:
    """Runs the layers."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    arrays = dict(np.load(given))
    fields = tf.constant(arrays["x"])
    x = tf.reshape(fields, [len(fields), -1])
    crosses = [tfrs.layers.dcn.Cross() for _ in arrays["kernels"]]
    for cross, kernel, bias in zip(crosses, arrays["kernels"], arrays["biases"], strict=True):
        cross(x)
        cross.set_weights([kernel, bias])
    dot = tfrs.layers.feature_interaction.DotInteraction()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        tape.watch(fields)
        crossed = x
        for cross in crosses:
            crossed = cross(x, crossed)
        dots = dot(tf.unstack(fields, axis=1))
        products = [tf.reduce_sum(crossed * arrays["crossed_by"]), tf.reduce_sum(dots * arrays["dots_by"])]
    by_weights = [tape.gradient(products[0], cross.trainable_weights) for cross in crosses]
    np.savez(
        found,
        crossed=crossed,
        crossed_by_x=tape.gradient(products[0], x),
        crossed_by_kernels=[kernel for kernel, _ in by_weights],
        crossed_by_biases=[bias for _, bias in by_weights],
        dots=dots,
        dots_by_x=tape.gradient(products[1], fields),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
