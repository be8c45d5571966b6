"""Speed of the interests: one `encode` for each request, and one `attend` for all its candidates.

    python -m benchmarks.interests [--candidates 500] [--lengths 50,200,1000] [--width 64] [--users 1] [--train]

Prints medians over `--rounds` calls of the compiled functions, after warm-up, on the device of the Keras backend;
KERAS_BACKEND=jax measures with JAX. Two rows are for comparison: `dta (direct)` has the same outputs but computes K
and V for each pair of candidate and step, and `din (joined)` is DIN with the concatenation [t, x, t-x, t*x]. With
`--train`, the forward and backward pass of a training step with one candidate per row is measured.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tests.backends import arrays, compiled, gradients, tensors
from tests.interests.direct import direct_dta
from tfctr.interests import DecoupledTargetAttention, Din, Interest, create_interest

CONFIGS: dict[str, dict[str, Any]] = {
    "mean": {"type": "mean"},
    "din": {"type": "din"},
    "target_attention": {"type": "target_attention"},
    "ta_early": {"type": "ta_early", "frozen": "text"},
    "dta": {"type": "dta", "frozen": "text"},
    "simtier": {"type": "simtier", "frozen": "text"},
    "cmm": {"type": "cmm", "frozen": "text"},
    "dmqn": {"type": "dmqn"},
}


class JoinedDin(Din):
    """DIN as usually implemented, with the concatenation of four vectors for each pair."""

    def scores(self, target: Any, events: Any, counted: Any, training: bool | None) -> Any:
        shape = (*ops.shape(target)[:2], *ops.shape(events)[1:])
        t, x = ops.broadcast_to(target[:, :, None], shape), ops.broadcast_to(events[:, None], shape)
        y = ops.matmul(ops.concatenate([t, x, t - x, t * x], axis=-1), self.kernel) + self.bias
        for activation, dense in zip(self.activations, self.dense, strict=True):
            y = dense(activation(y, mask=counted, training=training))
        return ops.squeeze(y, axis=-1)


class DirectDta(DecoupledTargetAttention):
    """DTA with K and V computed for each pair."""

    def call(self, inputs: dict[str, dict[str, Any]], training: bool | None = None) -> Any:
        return direct_dta(self, inputs)


def make_inputs(batch: int, candidates: int, length: int, width: int, vector: int) -> dict[str, dict[str, Any]]:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return generator.normal(size=shape).astype("float32")

    def unit(*shape: int) -> Any:
        vectors = normal(*shape)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def rows(*shape: int) -> Any:
        return generator.integers(0, 50, shape).astype("int32")

    sequence = {
        "events": normal(batch, length, width),
        "length": np.full(batch, length, "int32"),
        "rows/text": rows(batch, length),
        "vectors/text": unit(batch, length, vector),
    }
    candidate = {
        "target": normal(batch, candidates, width),
        "rows/text": rows(batch, candidates),
        "vectors/text": unit(batch, candidates, vector),
    }
    return {"sequence": tensors(sequence), "candidate": tensors(candidate), "context": {}}


def median_ms(function: Callable[[], Any], rounds: int) -> float:
    for _ in range(3):
        arrays(function())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        arrays(function())
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def serve_times(layer: Interest, inputs: dict[str, dict[str, Any]], rounds: int) -> tuple[float, float]:
    layer(inputs)
    encode = compiled(lambda sequence: layer.encode(sequence, training=False))
    attend = compiled(lambda state, candidate: layer.attend(state, candidate, {}, training=False))
    sequence = inputs["sequence"]
    state = dict(encode(sequence))
    # The model gathers the frozen vectors, so that is not part of this time.
    state.update({name: value for name, value in sequence.items() if name.startswith("vectors/")})
    return median_ms(lambda: encode(sequence), rounds), median_ms(lambda: attend(state, inputs["candidate"]), rounds)


def train_time(layer: Interest, inputs: dict[str, dict[str, Any]], rounds: int) -> float:
    layer(inputs)

    def step(fed: dict[str, dict[str, Any]]) -> Any:
        loss, by_inputs, by_variables = gradients(
            lambda one: ops.mean(ops.square(layer(one, training=True))), fed, layer.trainable_variables
        )
        return [loss, *(gradient for gradient in (*by_inputs, *by_variables) if gradient is not None)]

    function = compiled(step)
    return median_ms(lambda: function(inputs), rounds)


def call_time(layer: Interest, inputs: dict[str, dict[str, Any]], rounds: int) -> float:
    layer(inputs)
    call = compiled(lambda fed: layer(fed, training=False))
    return median_ms(lambda: call(inputs), rounds)


def devices() -> str:
    if keras.backend.backend() == "jax":
        import jax

        return f"{[device.device_kind for device in jax.devices()]}, JAX {jax.__version__}"
    import tensorflow as tf

    return f"{[device.name for device in tf.config.list_physical_devices()]}, TensorFlow {tf.__version__}"


def layers(only: list[str]) -> dict[str, Interest]:
    made: dict[str, Interest] = {}
    for name, config in CONFIGS.items():
        made[name] = create_interest(config)
        if name == "dta":
            made["dta (direct)"] = DirectDta("text")
        if name == "din":
            made["din (joined)"] = JoinedDin()
    return {name: layer for name, layer in made.items() if not only or name in only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--lengths", default="50,200,1000")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vector", type=int, default=64, help="width of the frozen vectors")
    parser.add_argument("--users", type=int, default=1, help="requests in a serving call")
    parser.add_argument("--batch", type=int, default=1024, help="rows of a training step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="comma-separated names; default: all")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {devices()}")
    lengths = [int(length) for length in arguments.lengths.split(",")]
    what = "forward + backward" if arguments.train else "encode / attend"
    size = f"B={arguments.batch}, C=1" if arguments.train else f"B={arguments.users}, C={arguments.candidates}"
    print(f"{what} in ms, {size}, d={arguments.width}, median of {arguments.rounds}\n")
    print("| interest | " + " | ".join(f"L={length}" for length in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for name, layer in layers([one for one in arguments.only.split(",") if one]).items():
        cells = []
        for length in lengths:
            batch, candidates = (arguments.batch, 1) if arguments.train else (arguments.users, arguments.candidates)
            inputs = make_inputs(batch, candidates, length, arguments.width, arguments.vector)
            if arguments.train:
                cells.append(f"{train_time(layer, inputs, arguments.rounds):.1f}")
            elif isinstance(layer, DirectDta):
                cells.append(f"{call_time(layer, inputs, arguments.rounds):.1f} (whole)")
            else:
                cells.append("{:.2f} / {:.2f}".format(*serve_times(layer, inputs, arguments.rounds)))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
