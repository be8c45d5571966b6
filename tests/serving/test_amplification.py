"""Small messages that stand for much memory or time, and answers that nobody takes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import model_management_pb2, predict_pb2

from serving.server import Server
from serving.server.admission import Limits
from serving.server.wire import MAX_PARTS, check_parts
from tests.serving.conftest import NAME, Caller, eventually, predict_request, refused, serve
from tests.serving.process_resources import process_resources
from tests.serving.requests import ECHO, SCORE, tensor

pytestmark = pytest.mark.slow

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def served(base_path: Path) -> Iterator[tuple[Server, Caller]]:
    with serve(base_path) as both:
        yield both


def megabytes_of(call: Any) -> float:
    """The memory that a refused call took; the server runs in this process."""
    before = process_resources().megabytes
    call()
    return process_resources().megabytes - before


def test_a_string_that_stands_for_many(served: tuple[Server, Caller]) -> None:
    inputs = {"examples": tensor(types_pb2.DT_STRING, [4096], string_val=[b"x" * 40_000])}
    code, message = refused(lambda: served[1].predict("serving_default", inputs))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the strings of a request may have 16777216 bytes (--max-string-bytes). Received: 163840000" in message


@pytest.mark.parametrize("sizes", [[1] * 33, [1, *[2**62 - 1] * 60_000]], ids=["a size too many", "very many"])
def test_a_shape_of_very_many_sizes(served: tuple[Server, Caller], sizes: list[int]) -> None:
    inputs = {**SCORE, "item_id": tensor(types_pb2.DT_INT64, sizes, int64_val=[1])}
    code, message = refused(lambda: served[1].predict("score", inputs))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"a shape has at most 32 sizes. Received: {len(sizes)}" in message


def test_strings_of_very_many_sizes(served: tuple[Server, Caller]) -> None:
    """TensorFlow's conversion of such an array ended the process."""
    inputs = {"examples": tensor(types_pb2.DT_STRING, [1] * 33, string_val=[b"\x0a\x00"])}
    assert "at most 32 sizes" in refused(lambda: served[1].predict("serving_default", inputs))[1]
    inputs = {"examples": tensor(types_pb2.DT_STRING, [1] * 32, string_val=[b"\x0a\x00"])}
    assert "scalar or vector" in refused(lambda: served[1].predict("serving_default", inputs))[1]


@pytest.mark.parametrize("field", ["resource_handle_val", "variant_val"])
def test_a_message_of_very_many_messages(served: tuple[Server, Caller], field: str) -> None:
    request = predict_request("score", SCORE)
    number = request.inputs["item_id"].DESCRIPTOR.fields_by_name[field].number
    empty = bytes([number << 3 | 2, 0]) * 4_000_000
    entry = _field(1, b"item_id") + _field(2, empty)
    message = request.SerializeToString() + _field(2, entry)
    call = served[1].channel.unary_unary(PREDICT)

    def ask() -> None:
        code, text = refused(lambda: call(message, timeout=60))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"a message may have {MAX_PARTS} fields" in text

    assert megabytes_of(ask) < 200


def test_fields_are_counted_where_they_are_messages() -> None:
    request = predict_request("score", {**SCORE, "item_id": np.arange(2 * MAX_PARTS)[None]})
    check_parts(predict_pb2.PredictRequest, request.SerializeToString())  # one field of many bytes
    check_parts(predict_pb2.PredictRequest, b"\xff" * 100_000)  # no message, which the parser says


def test_a_reload_that_is_not_allowed_is_not_read(served: tuple[Server, Caller]) -> None:
    method = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    call = served[1].channel.unary_unary(method)

    def ask() -> None:
        assert refused(lambda: call(b"\x0a\x00" * 8_000_000, timeout=60))[0] is grpc.StatusCode.PERMISSION_DENIED

    assert megabytes_of(ask) < 200
    assert model_management_pb2.ReloadConfigRequest.FromString(b"\x0a\x00" * 3)


def test_what_needs_no_place_has_a_short_message(served: tuple[Server, Caller]) -> None:
    call = served[1].channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
    code, message = refused(lambda: call(b"\x0a\x00" * 200_000, timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "a message of GetModelStatus may have 262144 bytes. Received: 400000" in message


def test_an_answer_that_nobody_takes_is_given_up(base_path: Path) -> None:
    limits = Limits(request_seconds=2.0, max_bytes_in_flight=20 * 2**20)
    with serve(base_path, limits=limits) as (server, caller), _Deaf(server.port) as (connection, ask):
        ask(predict_request("echo", {**ECHO, "int32": tensor(types_pb2.DT_INT32, [1000, 1000], int_val=[5])}))
        admission = server._admission
        eventually(lambda: admission.bytes_in_flight > 3_000_000, "the answer is counted")
        eventually(lambda: admission.bytes_in_flight == 0, "it is given up")
        caller.run("score", SCORE)
        assert connection.fileno() > 0


class _Deaf:
    """A connection of HTTP/2 that lets nobody send it anything."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))

    def __enter__(self) -> tuple[socket.socket, Any]:
        window = struct.pack(">HI", 4, 0)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, window) + _frame(4, 1, 0, b""))
        return self._socket, self._ask

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _ask(self, request: Any) -> None:
        pairs = {
            ":method": "POST",
            ":scheme": "http",
            ":path": PREDICT,
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        headers = b"".join(
            b"\x00" + bytes([len(part)]) + part.encode() if first else bytes([len(part)]) + part.encode()
            for pair in pairs.items()
            for first, part in ((True, pair[0]), (False, pair[1]))
        )
        message = request.SerializeToString()
        body = b"\x00" + struct.pack(">I", len(message)) + message
        self._socket.sendall(_frame(1, 4, 1, headers) + _frame(0, 1, 1, body))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _field(number: int, content: bytes) -> bytes:
    size, left = b"", len(content)
    while left >= 0x80:
        size, left = size + bytes([left & 0x7F | 0x80]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + content


def test_the_names_of_models_are_counted_for_every_method(served: tuple[Server, Caller]) -> None:
    server, caller = served
    caller.status()
    caller.metadata("signature_def")
    page = server._metrics.page()
    for method in ("GetModelStatus", "GetModelMetadata"):
        assert any(method in line and f'model_name="{NAME}"' in line for line in page.splitlines())
