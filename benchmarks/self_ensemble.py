"""Time of a training step with the Self-Ensemble loss: passes that share their beginning, calls, or a doubled batch.

    python -m benchmarks.self_ensemble [--widths 112,320,624] [--batch 1024] [--rounds 20] [--no-xla]

The step is forward, backward and Adam of QNN-alpha with batch normalization on given embeddings:

- `calls`: the backbone is called once for each pass;
- `shared`: the first layer's projection is computed once for all passes (`pass_logits`), as the model does;
- `doubled`: one call with the batch twice. The normalization uses the statistics of both passes together, which differs
  from the published step;
- `doubled, apart`: one call with [2, B, D], the statistics of each pass and two updates of the moving averages, which
  is the published step.

The forms run in turn, so that load on the machine slows down all of them. The table has the shortest time of each
form in ms, the shortest processor time of all threads together, which load changes less, and the median over all turns
of its time relative to `calls` in the same turn. Before that, the
differences of loss, gradients and moving averages to those of `calls` are printed, for a step without dropout.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfctr.interactions import QnnAlpha
from tfctr.layers.normalization import BatchNormalization
from tfctr.losses import SelfEnsemble

FORMS = ("calls", "shared", "doubled", "doubled, apart")


class PassesApart(BatchNormalization):
    """Batch normalization of [passes, B, ...] with the statistics of each pass, and one moving update for each pass."""

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        axes = list(range(1, len(inputs.shape) - 1))
        rows = inputs.shape[1]
        mean = ops.mean(inputs, axis=axes, keepdims=True)
        variance = ops.mean(ops.square(inputs - mean), axis=axes, keepdims=True)
        for i in range(inputs.shape[0]):
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance * rows / (rows - 1))):
                moving.assign(moving + (1.0 - self.momentum) * (ops.reshape(value[i], (-1,)) - moving))
        return (inputs - mean) * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta


def make_backbone(form: str, width: int, layers: int, rows: int, dropout: float) -> QnnAlpha:
    keras.utils.set_random_seed(0)
    norm = PassesApart if form == "doubled, apart" else BatchNormalization
    with mock.patch("tfctr.interactions.qnn_alpha.BatchNormalization", norm):
        backbone = QnnAlpha(layers=layers, rows=rows, batch_norm=True, dropout=dropout)
        backbone.build((None, width))
    return backbone


def make_logits(form: str, backbone: QnnAlpha, x: Any) -> Any:
    if form == "calls":
        return ops.stack([backbone(x, training=True) for _ in range(2)])
    if form == "shared":
        return backbone.pass_logits(x, 2, training=True)
    if form == "doubled":
        return ops.reshape(backbone(ops.concatenate([x, x]), training=True), (2, -1))
    return backbone(ops.stack([x, x]), training=True)


def make_step(form: str, backbone: QnnAlpha, xla: bool = True) -> Callable[[Any, Any], list[Any]]:
    loss, optimizer = SelfEnsemble(), keras.optimizers.Adam(1e-3)
    optimizer.build(backbone.trainable_variables)

    @tf.function(autograph=False, jit_compile=xla)
    def step(x: Any, labels: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, make_logits(form, backbone, x), ops.ones_like(labels))
        gradients = tape.gradient(value, [x, *(one.value for one in backbone.trainable_variables)])
        optimizer.apply(gradients[1:], backbone.trainable_variables)
        return [value, *gradients]

    return step


def make_inputs(batch: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(batch, width)).astype("float32"))
    return x, tf.constant(generator.integers(0, 2, batch).astype("float32"))


def differences(width: int, batch: int, layers: int, rows: int) -> dict[str, float]:
    """The largest relative differences of loss, gradients and moving statistics after a step to those of `calls`."""
    found: dict[str, list[Any]] = {}
    for form in FORMS:
        backbone = make_backbone(form, width, layers, rows, dropout=0.0)
        found[form] = [one.numpy() for one in make_step(form, backbone)(*make_inputs(batch, width))]
        found[form] += [ops.convert_to_numpy(one) for one in backbone.non_trainable_weights if "moving" in one.path]
    # The gradient of a bias before a normalization is zero, apart from rounding.
    kept = [i for i, one in enumerate(found["calls"]) if np.max(np.abs(one)) > 1e-6]
    return {
        form: max(np.max(np.abs(values[i] - found["calls"][i])) / np.max(np.abs(found["calls"][i])) for i in kept)
        for form, values in found.items()
    }


def step_times(
    width: int, batch: int, layers: int, rows: int, rounds: int, xla: bool
) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each round and its processor time, by form."""
    steps = {form: make_step(form, make_backbone(form, width, layers, rows, dropout=0.1), xla) for form in FORMS}
    inputs = make_inputs(batch, width)
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for i in range(rounds + 2):
        for form, step in steps.items():
            start, used = time.perf_counter(), time.process_time()
            step(*inputs)[0].numpy()
            if i >= 2:
                times[form].append(((time.perf_counter() - start) * 1e3, (time.process_time() - used) * 1e3))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="112,320,624", help="comma-separated values of D")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--xla", action=argparse.BooleanOptionalAction, default=True, help="compile the step by XLA")
    arguments = parser.parse_args()
    size = {"batch": arguments.batch, "layers": arguments.layers, "rows": arguments.rows}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {[one.name for one in tf.config.list_physical_devices()]}"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}, TensorFlow {tf.__version__}")
    print(f"{size}, XLA {arguments.xla}, {arguments.rounds} rounds\n")
    for form, difference in differences(64, **{**size, "batch": 64}).items():
        print(f"{form}: differs from `calls` by {difference:.1e}")
    print("\n| D | " + " | ".join(FORMS) + " |\n" + "|---" * (len(FORMS) + 1) + "|")
    for width in (int(one) for one in arguments.widths.split(",")):
        times = step_times(width, **size, rounds=arguments.rounds, xla=arguments.xla)
        cells = []
        for form in FORMS:
            ratio = statistics.median(a / b for (a, _), (b, _) in zip(times[form], times["calls"], strict=True))
            wall, used = (min(one) for one in zip(*times[form], strict=True))
            cells.append(f"{wall:.1f}, {used:.1f} ({ratio:.2f})")
        print(f"| {width} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
