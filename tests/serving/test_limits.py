"""Limits and deadlines of the server."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.server import Server, rest
from serving.server.admission import Limits
from serving.server.metrics import PATH
from tests.serving.conftest import NAME, PATIENCE, Caller, eventually, predict_request, refused, serve
from tests.serving.model import HISTORY
from tests.serving.process_resources import process_resources
from tests.serving.test_process import Process

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}


@contextmanager
def _occupied(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """All runs wait in the model until the block ends. The list has an entry for each run that has begun."""
    held = server._models.managers[NAME]._latest
    assert held is not None
    assert held.model is not None
    session = held.model.session
    run, release, begun = session.run, threading.Event(), []

    def wait(*arguments: Any) -> Any:
        begun.append(1)
        release.wait(PATIENCE)
        return run(*arguments)

    monkeypatch.setattr(session, "run", wait)
    try:
        yield begun
    finally:
        release.set()


def test_more_requests_than_may_wait_are_refused_at_once(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(base_path, limits=Limits(threads=1, max_queued=2)) as (server, caller), ThreadPoolExecutor(8) as pool:
        with _occupied(server, monkeypatch) as begun:
            asked = [pool.submit(caller.run, "user_tower", USER, timeout=PATIENCE) for _ in range(8)]
            eventually(lambda: sum(one.done() for one in asked) == 5, "five of eight are refused")
            refused = [one.exception() for one in asked if one.done()]
            assert {error.code() for error in refused} == {Code.RESOURCE_EXHAUSTED}
            assert len(begun) == 1
        answered = [one.result() for one in asked if one.exception() is None]
        assert len(answered) == 3
        # The server recovers.
        assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1


def test_l3_a_request_that_expired_while_it_waited_does_not_run(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(base_path, limits=Limits(threads=1)) as (server, caller), ThreadPoolExecutor(1) as pool:
        with _occupied(server, monkeypatch) as begun:
            first = pool.submit(caller.run, "user_tower", USER, timeout=PATIENCE)
            eventually(lambda: len(begun) == 1, "the first runs")
            assert refused(lambda: caller.run("user_tower", USER, timeout=0.2))[0] is Code.DEADLINE_EXCEEDED
        assert first.result()["model_tag"][0] == 1
        caller.run("user_tower", USER)
        # Only the first and the last request ran.
        assert len(begun) == 2


@pytest.mark.e2e
def test_l2_three_requests_arrive_for_each_that_ends(base_path: Path) -> None:
    """Clients send requests faster than the server can answer; its queue and the waiting time stay bounded.

    Measured: while a request waited, at most 8 others were answered, and the memory grew by 16 MB. Without the limit,
    it was 206 answers and 61 MB.
    """
    count, limit = 300, 1 + 8
    options = ("--threads", "1", "--max-queued", "8", "--max-rows", "40000", "--port", "0", "--rest-port", "0")
    process = Process("--model-base-path", str(base_path), "--model-name", NAME, *options)
    try:
        ready = process.wait_for(r"on grpc://(\S+), http://(\S+)$")
        caller = Caller(ready[1])
        # The model uses only the first number. The others make each request a quarter of a megabyte large.
        inputs = [{"steps": np.full(2**15, steps)} for steps in (1000, 1400, 1800)]
        right = [caller.run("slow", one)["total"] for one in inputs]
        requests = [predict_request("slow", one) for one in inputs]
        before = process_resources(process.popen.pid).megabytes
        most = before
        arrivals = threading.Semaphore(3 * limit)
        answers: list[tuple[int, np.ndarray, int]] = []
        codes: Counter[grpc.StatusCode] = Counter()

        def ended(future: Any, number: int, answered_before: int) -> None:
            if future.code() is Code.OK:
                total = tf.make_ndarray(future.result().outputs["total"])
                answers.append((number, total, len(answers) - answered_before))
            codes[future.code()] += 1
            if future.code() in (Code.OK, Code.DEADLINE_EXCEEDED):
                arrivals.release(3)

        for number in range(count):
            assert arrivals.acquire(timeout=PATIENCE)
            seconds = 0.02 if number % 5 == 4 else PATIENCE
            future = caller.prediction.Predict.future(requests[number % 3], timeout=seconds)
            future.add_done_callback(partial(ended, number=number, answered_before=len(answers)))
            most = max(most, process_resources(process.popen.pid).megabytes)
        eventually(lambda: codes.total() == count, "every request ends")

        assert codes.keys() <= {Code.OK, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}, codes
        assert codes[Code.RESOURCE_EXHAUSTED] > count / 3
        for number, total, _ in answers:
            np.testing.assert_array_equal(total, right[number % 3])
        # A request waits for at most a full queue. Others can be answered while the request is still arriving.
        assert max(behind for _, _, behind in answers) <= 2 * limit
        assert most - before < 40

        def counted(status: str = "") -> int:
            page = urllib.request.urlopen(f"http://{ready[2]}{PATH}", timeout=20).read().decode()
            line = rf"^:tensorflow:serving:request_count\{{.*{status}.*\}} (\d+)$"
            return sum(map(int, re.findall(line, page, re.MULTILINE)))

        # Every request is counted, also those that were refused.
        eventually(lambda: counted() == count + len(right), "all requests are counted")
        # The caller of a refused one can have given up before.
        assert counted("RESOURCE_EXHAUSTED") >= codes[Code.RESOURCE_EXHAUSTED]
        for one, total in zip(inputs, right, strict=True):
            np.testing.assert_array_equal(caller.run("slow", one)["total"], total)
    finally:
        process.popen.kill()
        process.popen.wait()


def test_message_limit(base_path: Path) -> None:
    with serve(base_path, limits=Limits(max_message_bytes=10_000)) as (_, caller):
        big = {"user_id": np.arange(200), "history": np.zeros((200, HISTORY), np.int64)}
        code, text = refused(lambda: caller.run("user_tower", big))
        assert code is Code.RESOURCE_EXHAUSTED
        assert "larger than max" in text
        assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1


def _ask(server: Server) -> int:
    body = json.dumps({"signature_name": "user_tower", "inputs": {name: one.tolist() for name, one in USER.items()}})
    connection = http.client.HTTPConnection(f"127.0.0.1:{server.rest_port}", timeout=PATIENCE)
    connection.request("POST", f"/v1/models/{NAME}:predict", body)
    return connection.getresponse().status


def test_rest_is_busy_rather_than_slow(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serve(base_path, limits=Limits(threads=1, max_queued=0), rest_port=0) as (server, _),
        ThreadPoolExecutor(1) as pool,
    ):
        with _occupied(server, monkeypatch) as begun:
            first = pool.submit(_ask, server)
            eventually(lambda: len(begun) == 1, "the first runs")
            assert _ask(server) == 429
        assert first.result() == 200
        # The server counts a request as concurrent until its answer is sent, so a client can be faster than the count.
        eventually(lambda: _ask(server) == 200, "the server recovers")


def test_rest_requests_under_way_finish_when_the_server_stops(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(base_path, rest_port=0) as (server, _), ThreadPoolExecutor(2) as pool:
        with _occupied(server, monkeypatch) as begun:
            first = pool.submit(_ask, server)
            eventually(lambda: len(begun) == 1, "the first runs")
            stopping = pool.submit(server.stop, PATIENCE)
            with pytest.raises(TimeoutError):
                stopping.result(timeout=0.5)
        stopping.result(timeout=PATIENCE)
        assert first.result() == 200


def test_bytes_are_counted_until_the_run_of_a_caller_that_left_ends(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"signature_name": "user_tower", "inputs": {name: one.tolist() for name, one in USER.items()}})
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serve(base_path, rest_port=0) as (server, _):
        with _occupied(server, monkeypatch) as begun:
            with socket.create_connection(("127.0.0.1", server.rest_port)) as one:
                one.sendall((head + body).encode())
                eventually(lambda: len(begun) == 1, "it runs")
            eventually(lambda: 'status="CANCELLED"' in server._metrics.page(), "the caller left")
            assert server._admission.bytes_in_flight == len(body)
        eventually(lambda: server._admission.bytes_in_flight == 0, "the bytes are given back")


@pytest.mark.parametrize("kind", ["gRPC", "REST"])
def test_l7_clients_that_say_nothing_disturb_nobody(
    base_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "MAX_CONNECTIONS", 8)
    limits = Limits(threads=2, max_receiving=8, receive_seconds=PATIENCE)
    with serve(base_path, limits=limits, rest_port=0) as (server, caller):
        port = server.port if kind == "gRPC" else server.rest_port
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for one in idle[::2]:
            with suppress(OSError):  # its place was taken
                one.sendall(b"POST /v1/models/small:predict HTTP/1.1\r\n")
        assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1
        assert _ask(server) == 200
        for one in idle:
            one.close()
