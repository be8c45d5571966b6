"""Microseconds that the client takes to encode and decode messages: `python -m benchmarks.client_codec [--json FILE]`.

Times are medians of many repetitions in one process, without gRPC and the network. "official" is TensorFlow's
`make_tensor_proto` and `make_ndarray`, if TensorFlow is installed.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.client import StateKey, UserState, codec
from tfctr.client.metadata import ServedModel, Signature, TensorSpec
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.record import from_bytes, to_bytes
from tfctr.client.requests import RequestBuilder

CANDIDATES = 500
HISTORY = 200


def microseconds(run: Callable[[], Any], repeats: int = 200) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(times)


def measure() -> dict[str, float]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 10_000, (1, CANDIDATES))
    genres = np.array([b"Action|Comedy"] * CANDIDATES, object)[None]
    events = rng.normal(size=(1, HISTORY, 64)).astype(np.float32)
    scores = rng.random((1, CANDIDATES), np.float32)

    def fields() -> wire.TensorProto:
        proto = wire.TensorProto(dtype=wire.DT_FLOAT)
        proto.tensor_shape.CopyFrom(codec.encode(scores).tensor_shape)
        proto.float_val.extend(scores.ravel())
        return proto

    def wired(proto: Any) -> bytes:
        payload: bytes = proto.SerializeToString()
        return payload

    rows = [{"item_id": int(i), "genres": "Action|Comedy", "year": 1990, "price": 0.5} for i in ids[0]]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = {name: np.array(values) for name, values in columns.items()} | {"genres": columns["genres"]}
    builder = RequestBuilder(_model())
    user = {"user_id": 1, "gender": "F", "history_item_id": list(range(HISTORY)), "history_genres": ["A|B"] * HISTORY}
    key = StateKey("ranking", 1, "f", "user", "1")
    state = UserState("ranking", 1, "f", {"history/events": events, "model_tag": np.array([1])})
    payload = to_bytes(key, state)
    content, repeated = wired(codec.encode(scores)), wired(fields())
    state_bytes = wired(codec.encode(events))
    return {
        f"encode {CANDIDATES} int64 ids": microseconds(lambda: wired(codec.encode(ids))),
        f"encode {CANDIDATES} strings": microseconds(lambda: wired(codec.encode(genres))),
        f"encode state {events.nbytes} B": microseconds(lambda: wired(codec.encode(events))),
        f"decode state {events.nbytes} B": microseconds(lambda: codec.decode(wire.TensorProto.FromString(state_bytes))),
        f"decode {CANDIDATES} scores, content": microseconds(
            lambda: codec.decode(wire.TensorProto.FromString(content))
        ),
        f"decode {CANDIDATES} scores, float_val": microseconds(
            lambda: codec.decode(wire.TensorProto.FromString(repeated))
        ),
        f"build {CANDIDATES} candidates x 4, rows": microseconds(lambda: builder.candidates(rows)),
        f"build {CANDIDATES} candidates x 4, lists": microseconds(lambda: builder.candidates(columns)),
        f"build {CANDIDATES} candidates x 4, arrays": microseconds(lambda: builder.candidates(arrays)),
        f"build a user with {HISTORY} events x 2": microseconds(lambda: builder.user(user)),
        f"cache payload of {events.nbytes} B, write": microseconds(lambda: to_bytes(key, state)),
        f"cache payload of {events.nbytes} B, read": microseconds(lambda: from_bytes(key, payload)),
        **_official(ids, events, scores),
    }


def _official(ids: Any, events: Any, scores: Any) -> dict[str, float]:
    try:
        import tensorflow as tf
    except ImportError:
        return {}
    proto = tf.make_tensor_proto(scores)
    return {
        f"official: encode {CANDIDATES} int64 ids": microseconds(lambda: tf.make_tensor_proto(ids).SerializeToString()),
        f"official: encode state {events.nbytes} B": microseconds(
            lambda: tf.make_tensor_proto(events).SerializeToString()
        ),
        f"official: decode {CANDIDATES} scores": microseconds(lambda: tf.make_ndarray(proto)),
    }


def _model() -> ServedModel:
    def specs(shape: tuple[int, ...], **dtypes: int) -> dict[str, TensorSpec]:
        return {name: TensorSpec(name, dtype, shape) for name, dtype in dtypes.items()}

    user = specs((-1,), user_id=wire.DT_INT64, gender=wire.DT_STRING, history_length=wire.DT_INT64)
    user |= specs((-1, HISTORY), history_item_id=wire.DT_INT64, history_genres=wire.DT_STRING)
    candidate = specs((-1, -1), item_id=wire.DT_INT64, genres=wire.DT_STRING, year=wire.DT_INT64, price=wire.DT_FLOAT)
    state = specs((-1, HISTORY, 64), events=wire.DT_FLOAT)
    probabilities = specs((-1, -1), probabilities=wire.DT_FLOAT)
    return ServedModel(
        "ranking", 1, {"user_tower": Signature(user, state), "score": Signature(state | candidate, probabilities)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = measure()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}; median microseconds")
    for name, value in figures.items():
        print(f"{name:44s} {value:9.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
