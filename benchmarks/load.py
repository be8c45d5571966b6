"""Clients of benchmarks/serving.py: processes that send requests at planned times and record their latencies.

The load is an open loop: requests are planned as a Poisson process that does not wait for answers. A latency starts at
the planned time, so that it shows when the server falls behind.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.served_models import ServedModel

THREADS = 16
USERS = 32


@dataclass(frozen=True)
class Mode:
    """A way to request a ranking.

    Attributes:
        kind: "warm" (score with a cached state), "cold" (user_tower, then score), "one call" (both in one graph) or
            "tiled" (serving_default with the user in every example).
        candidates: number of candidates of a request.
    """

    kind: str
    candidates: int


class Requests:
    """Sends requests of one mode. Parts that a client would not build for each request are prepared in advance.

    Args:
        address: address of the server.
        served: the served model.
        mode: how to request a ranking.
    """

    def __init__(self, address: str, served: ServedModel, mode: Mode):
        import grpc

        from tfctr.client import RankingClient, codec
        from tfctr.client.protos import wire_pb2 as wire
        from tfctr.client.transport import CHANNEL_OPTIONS

        self._mode = mode
        self._served = served
        self._codec = codec
        self._client: Any = None
        self._channel: Any = None
        if mode.kind in ("warm", "cold"):
            self._client = RankingClient(address, "model", timeout_seconds=30.0, chunk_size=2000)
            self._users = [served.user(seed) for seed in range(USERS)]
            self._candidates = [served.candidates(mode.candidates, seed) for seed in range(USERS)]
            self._context = served.context()
            if mode.kind == "warm":
                for number in range(USERS):
                    self(number)
            return
        self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self._predict = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=wire.PredictRequest.SerializeToString,
            response_deserializer=wire.PredictResponse.FromString,
        )
        self._prepared = []
        for seed in range(4 if mode.kind == "tiled" else USERS):
            if mode.kind == "tiled":
                signature = "serving_default"
                inputs = {"examples": np.array(served.examples(mode.candidates, seed), object)}
            else:
                signature = "rank"
                user = {**served.user(seed), "history_length": np.int64(served.history)}
                raw = {**user, **served.candidates(mode.candidates, seed), **served.context()}
                inputs = {name: np.asarray(value)[None] for name, value in raw.items()}
            request = wire.PredictRequest(model_spec=wire.ModelSpec(name="model", signature_name=signature))
            for name, array in inputs.items():
                codec.encode(array, request.inputs[name])
            self._prepared.append(request)

    def __call__(self, number: int) -> Any:
        """Sends one request and reads the probabilities."""
        if self._channel is not None:
            reply = self._predict(self._prepared[number % len(self._prepared)], timeout=30.0)
            return self._codec.decode(reply.outputs["probabilities"], "probabilities")
        chosen = number % USERS
        # A new history version makes a new cache key, so the state must be computed.
        version = 0 if self._mode.kind == "warm" else number
        return self._client.rank(
            self._users[chosen],
            self._candidates[chosen],
            self._context,
            k=10,
            user_key=chosen,
            history_version=version,
        )

    def close(self) -> None:
        (self._client or self._channel).close()


def sequential(send: Callable[[int], Any], seconds: float, at_least: int = 7) -> list[float]:
    """Seconds of each request, sent one after the other."""
    for number in range(3):
        send(number)
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < at_least or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        send(3 + len(taken))
        taken.append(time.perf_counter() - before)
    return taken


@dataclass(frozen=True)
class Outcome:
    """The result of an open loop: latencies in seconds, failures, and answers per second."""

    latencies: list[float]
    failures: int
    answered: float


def open_loop(address: str, served: ServedModel, mode: Mode, rate: float, seconds: float, processes: int) -> Outcome:
    """Sends `rate` requests per second from several processes that start together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    served = replace(served, cost=None)  # importing its class would load TensorFlow in all clients
    workers = [
        context.Process(
            target=_client, args=(address, served, mode, rate / processes, seconds, seed, barrier, results), daemon=True
        )
        for seed in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    latencies = [latency for one in found for latency in one[0]]
    return Outcome(latencies, sum(one[1] for one in found), len(latencies) / max(one[2] for one in found))


def _client(
    address: str, served: ServedModel, mode: Mode, rate: float, seconds: float, seed: int, barrier: Any, results: Any
) -> None:
    import grpc

    from tfctr.client import ClientError

    send = Requests(address, served, mode)
    sequential(send, 0.0)
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, max(1, round(rate * seconds))))
    latencies: list[float] = []
    failures = []

    def one(number: int, planned: float) -> None:
        try:
            send((seed + 1) * 1_000_000 + number)
        except (ClientError, grpc.RpcError) as error:
            failures.append(error)
        else:
            latencies.append(time.perf_counter() - planned)

    barrier.wait()
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for number, arrival in enumerate(arrivals):
            planned = started + arrival
            time.sleep(max(0.0, planned - time.perf_counter()))
            pool.submit(one, number, planned)
    results.put((latencies, len(failures), time.perf_counter() - started))
    send.close()


def cpu_seconds(process: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loopback_bytes() -> int:
    """Total bytes on the loopback interface so far."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise OSError("/proc/net/dev names no loopback interface.")
