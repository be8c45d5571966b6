"""Speed of the embedded server without and with batching: `python -m benchmarks.batching`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.serving.model import WIDTH, publish

CANDIDATES = 500
PARAMETERS = (
    "max_batch_size {{ value: 8 }} batch_timeout_micros {{ value: {micros} }} num_batch_threads {{ value: 2 }} "
    "max_enqueued_batches {{ value: 100 }}"
)


def request() -> predict_pb2.PredictRequest:
    """A request for one user and 500 candidates with the small model of the tests."""
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = "small", "score"
    arrays = {
        "user_vector": np.ones((1, WIDTH), np.float32),
        "model_tag": np.ones(1, np.int64),
        "item_id": np.arange(CANDIDATES)[None],
    }
    for name, array in arrays.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return made


def measure(address: str, callers: int, seconds: float) -> str:
    """p50 and p99 in milliseconds, and requests per second. Each caller waits for an answer before its next request."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, made = prediction_service_pb2_grpc.PredictionServiceStub(channel), request()
            while (started := time.monotonic()) < end:
                stub.Predict(made, timeout=20)
                taken.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return f"{p50:.1f} / {p99:.1f} ms, {len(taken) / seconds:.0f}/s"


def main() -> None:
    """Prints one line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        publish(base)
        for micros in (None, 0, 2000):
            arguments = [
                sys.executable,
                "-m",
                "serving.server",
                "--model-base-path",
                str(base / "small"),
                "--port",
                "0",
            ]
            if micros is not None:
                file = base / "batching.config"
                file.write_text(PARAMETERS.format(micros=micros))
                arguments += ["--enable-batching", "--batching-parameters-file", str(file)]
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                assert process.stdout is not None
                address = process.stdout.readline().rpartition("grpc://")[2].strip()
                measure(address, 4, 1.0)
                figures = [f"{callers} callers {measure(address, callers, seconds)}" for callers in (1, 8, 16)]
            finally:
                process.terminate()
                process.wait()
            print("off" if micros is None else f"on, {micros} us", *figures, sep="; ")


if __name__ == "__main__":
    main()
