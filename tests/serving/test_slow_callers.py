"""Callers that send slowly or nothing hold no place to run, and do not delay the end of the server."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aiohttp import ClientConnectionResetError, web

from serving.server import Server, fronts
from serving.server.admission import Admission, Limits
from serving.server.calls import Call
from serving.server.status import StatusError
from tests.serving.conftest import NAME, PATIENCE, Caller, eventually, predict_request
from tests.serving.model import HISTORY

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@contextmanager
def _serve(base_path: Path, **limits: Any) -> Iterator[tuple[Server, Caller]]:
    server = Server(base_path, NAME, rest_port=0, limits=Limits(**limits)).start()
    caller = Caller(server.address)
    try:
        yield server, caller
    finally:
        caller.channel.close()
        server.stop(0.0)


class Silent:
    """gRPC calls that send headers and no message."""

    def __init__(self, address: str, count: int) -> None:
        self._end = threading.Event()
        self.channel = grpc.insecure_channel(address)
        call = self.channel.stream_unary(PREDICT)
        self.calls = [call.future(self._nothing()) for _ in range(count)]

    def _nothing(self) -> Iterator[bytes]:
        self._end.wait(PATIENCE)
        yield from ()

    def close(self) -> None:
        self._end.set()
        self.channel.close()


@contextmanager
def _silent(server: Server, count: int) -> Iterator[Silent]:
    silent = Silent(server.address, count)
    eventually(lambda: server._admission.receiving >= count, "the calls have begun")
    yield silent
    silent.close()


def _dripping(server: Server, count: int) -> list[socket.socket]:
    """HTTP connections that send the first byte of a body."""
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
    sockets = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", server.rest_port or 0))
        one.sendall(head.encode())
        sockets.append(one)
    eventually(lambda: server._admission.receiving >= count, "the requests have begun")
    return sockets


def _answers(caller: Caller) -> bool:
    return int(caller.run("user_tower", USER)["model_tag"][0]) == 1


def test_calls_without_a_message_hold_no_place(base_path: Path) -> None:
    with _serve(base_path, threads=2, max_queued=0) as (server, caller), _silent(server, 8):
        assert _answers(caller)
        assert server._admission.running == 0


def test_callers_that_leave_are_no_error(base_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _serve(base_path) as (server, caller):
        with _silent(server, 3):
            pass
        for one in _dripping(server, 3):
            one.close()
        call = caller.channel.unary_unary(PREDICT).future(_slow(10**5))
        eventually(lambda: server._admission.running == 1, "it runs")
        call.cancel()
        eventually(lambda: server._admission.running + server._admission.receiving == 0, "all have ended")
        eventually(lambda: server._metrics.page().count('status="CANCELLED"') >= 2, "they are counted")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_bodies_that_never_end_hold_no_place(base_path: Path) -> None:
    with _serve(base_path, threads=2, max_queued=0) as (server, caller):
        sockets = _dripping(server, 100)
        assert _answers(caller)
        for one in sockets:
            one.close()
        eventually(lambda: server._admission.receiving == 0, "callers that left are forgotten")


def test_a_request_has_a_time_to_arrive(base_path: Path) -> None:
    with _serve(base_path, receive_seconds=0.3) as (server, caller):
        with _silent(server, 1) as silent:
            assert silent.calls[0].code() is Code.CANCELLED
        (one,) = _dripping(server, 1)
        one.settimeout(PATIENCE)
        assert b" 504 " in one.recv(4096).split(b"\r\n")[0]
        one.close()
        expired = [line for line in server._metrics.page().splitlines() if 'status="DEADLINE_EXCEEDED"' in line]
        assert any('entrypoint="GRPC"' in line for line in expired)
        assert any('entrypoint="REST"' in line for line in expired)
        assert _answers(caller)


def test_the_oldest_incomplete_request_makes_room(base_path: Path) -> None:
    with _serve(base_path, max_receiving=3, receive_seconds=PATIENCE) as (server, caller):
        with _silent(server, 3) as silent:
            assert _answers(caller)
            eventually(lambda: sum(call.done() for call in silent.calls) >= 1, "the oldest is refused")
            assert not all(call.done() for call in silent.calls)
        assert 'status="RESOURCE_EXHAUSTED"' in server._metrics.page()


def test_the_server_stops_without_them(base_path: Path) -> None:
    with _serve(base_path, receive_seconds=PATIENCE) as (server, _), _silent(server, 8):
        sockets = _dripping(server, 8)
        started = time.monotonic()
        server.stop(PATIENCE)
        assert time.monotonic() - started < 60
        for one in sockets:
            one.close()


def test_a_run_that_nobody_waits_for_is_stopped_with_the_server(base_path: Path) -> None:
    """The run takes minutes, and no deadline ends it."""
    with _serve(base_path, request_seconds=PATIENCE) as (server, caller):
        call = caller.channel.unary_unary(PREDICT).future(_slow(10**8))
        eventually(lambda: server._admission.running == 1, "it runs")
        started = time.monotonic()
        server.stop(0.5)
        eventually(lambda: server._admission.running == 0, "it is stopped")
        assert time.monotonic() - started < 60
        assert call.code() in (Code.UNAVAILABLE, Code.CANCELLED)


def _slow(steps: int) -> bytes:
    raw: bytes = predict_request("slow", {"steps": np.array([steps])}).SerializeToString()
    return raw


def test_a_request_without_a_deadline_has_that_of_the_server(base_path: Path) -> None:
    with _serve(base_path, request_seconds=0.3) as (server, caller):
        call = caller.channel.unary_unary(PREDICT).future(_slow(10**8))
        assert call.code() is Code.DEADLINE_EXCEEDED
        eventually(lambda: server._admission.running == 0, "it does not run on")


def test_what_a_caller_left_before_its_turn_does_not_run(base_path: Path) -> None:
    with _serve(base_path, threads=1, request_seconds=PATIENCE) as (server, caller):
        predict = caller.channel.unary_unary(PREDICT)
        first = predict.future(_slow(10**8))
        eventually(lambda: server._admission.running == 1, "the first runs")
        second = predict.future(_slow(1))
        body = json.dumps({"signature_name": "slow", "inputs": {"steps": [1]}})
        head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        third = socket.create_connection(("127.0.0.1", server.rest_port or 0))
        third.sendall((head + body).encode())
        eventually(lambda: server._admission.queued == 2, "two more wait")
        second.cancel()
        third.close()
        # Closing the sessions ends the first run, so that the turn of the others comes.
        model = server._models.managers[NAME]._latest
        assert model is not None
        assert model.model is not None
        runs: list[Any] = []
        model.model.session.run = lambda *arguments: runs.append(arguments)  # type: ignore[method-assign,assignment]
        model.model.session.close()
        eventually(lambda: server._admission.running == 0, "all have ended")
        assert first.code() is Code.CANCELLED
        assert runs == []


def test_a_caller_that_left_does_not_wait_in_the_line(base_path: Path) -> None:
    with _serve(base_path, threads=1, request_seconds=PATIENCE) as (server, caller):
        first = caller.channel.unary_unary(PREDICT).future(_slow(10**8))
        eventually(lambda: server._admission.running == 1, "the first runs")
        held = server._admission.bytes_in_flight
        body = b" " * 10_000
        head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        second = socket.create_connection(("127.0.0.1", server.rest_port or 0))
        second.sendall(head.encode() + body)
        eventually(lambda: server._admission.queued == 1, "one more waits")
        second.close()
        eventually(lambda: server._admission.queued == 0, "it left the line while the first runs", PATIENCE / 10)
        eventually(lambda: server._admission.bytes_in_flight == held, "its bytes are given back")
        assert not first.done()


def test_a_call_that_expires_on_its_way_into_the_line_is_not_left_there() -> None:
    admission = Admission(Limits(threads=1))
    with admission.place(Call("Predict", "REST", PATIENCE), lambda: True):
        with pytest.raises(StatusError, match="Deadline"), admission.place(Call("Predict", "REST", 0), lambda: True):
            pass
        assert admission.queued == 0
    assert admission.running == 0


def test_a_connection_has_a_time_for_its_first_request(base_path: Path) -> None:
    with _serve(base_path, receive_seconds=0.3) as (server, _):
        address = ("127.0.0.1", server.rest_port or 0)
        used = http.client.HTTPConnection(*address, timeout=PATIENCE)
        used.request("GET", f"/v1/models/{NAME}")
        assert used.getresponse().read()
        for first in (b"", b"POST / HTTP/1.1\r\nX: "):
            with socket.create_connection(address, timeout=PATIENCE / 10) as silent:
                silent.sendall(first)
                assert silent.recv(100) == b""
        # One that asked before may be silent for longer.
        used.request("GET", f"/v1/models/{NAME}")
        assert used.getresponse().status == 200
        used.close()


def test_an_idle_grpc_connection_ends_and_its_client_comes_again(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "_IDLE_MINUTES", 0.005)
    with _serve(base_path) as (server, caller):
        assert _answers(caller)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE / 10) as silent:
            silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            told = b""
            while b"connection idle" not in told:
                part = silent.recv(1000)
                assert part, told
                told += part
        assert _answers(caller)


def test_silent_grpc_connections_leave_files_for_others(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts.resource, "getrlimit", lambda _: (600, 600))
    with _serve(base_path) as (server, _):
        silent, begun = [], 0
        for _ in range(40):
            one = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE / 10)
            silent.append(one)
            with suppress(ConnectionError):
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                begun += bool(one.recv(100))
        for one in silent:
            one.close()
        assert begun == 16

        def answers() -> bool:
            with suppress(grpc.RpcError):
                return _answers(Caller(server.address))
            return False

        eventually(answers, "there is room again")


def test_an_answer_that_nobody_takes_is_no_error(
    base_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")

    with _serve(base_path) as (server, _):
        with monkeypatch.context() as patched:
            patched.setattr(web.Response, "prepare", gone)
            with socket.create_connection(("127.0.0.1", server.rest_port or 0), timeout=PATIENCE) as one:
                one.sendall(f"GET /v1/models/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert one.recv(100) == b""
        eventually(lambda: 'status="CANCELLED"' in server._metrics.page(), "it is counted", PATIENCE / 10)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_bytes_in_flight_are_limited_together(base_path: Path) -> None:
    limits = {"max_bytes_in_flight": 2000, "max_message_bytes": 10**6, "receive_seconds": PATIENCE}
    with _serve(base_path, **limits) as (server, caller):
        big = {"user_id": np.arange(50), "history": np.zeros((50, HISTORY), np.int64)}
        with pytest.raises(grpc.RpcError, match="all of them together may have 2000") as caught:
            caller.run("user_tower", big)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert _answers(caller)
        assert server._admission.bytes_in_flight == 0
        connection = socket.create_connection(("127.0.0.1", server.rest_port or 0))
        head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        connection.sendall(head.encode() + b" " * 3000)
        connection.settimeout(PATIENCE)
        assert b" 429 " in connection.recv(4096).split(b"\r\n")[0]
        connection.close()
        eventually(lambda: server._admission.bytes_in_flight == 0, "the bytes are given back")
