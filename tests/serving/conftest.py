"""A shared server for requests that do not change it, and helpers with the official messages and real channels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server import Server
from tests.serving.model import save_model

NAME = "small"
# How many seconds a test waits for something that must happen. Only a failing test waits that long, so the number can
# be large enough for a busy machine.
PATIENCE = 300.0
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Caller:
    """The official gRPC stubs, with a channel of their own."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=UNLIMITED)
        else:
            self.channel = grpc.secure_channel(address, credentials, options=UNLIMITED)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(
        self,
        signature: str,
        inputs: dict[str, Any],
        *,
        version: int | None = None,
        output_filter: tuple[str, ...] = (),
        timeout: float | None = PATIENCE,
    ) -> predict_pb2.PredictResponse:
        request = predict_request(signature, inputs, version=version, output_filter=output_filter)
        return self.prediction.Predict(request, timeout=timeout)

    def run(self, signature: str, inputs: dict[str, Any], **keywords: Any) -> dict[str, np.ndarray]:
        outputs = self.predict(signature, inputs, **keywords).outputs
        return {name: tf.make_ndarray(proto) for name, proto in outputs.items()}

    def status(self, name: str = NAME, version: int | None = None) -> dict[int, Any]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        statuses = self.models.GetModelStatus(request, timeout=PATIENCE).model_version_status
        return {status.version: status for status in statuses}

    def metadata(self, *fields: str) -> get_model_metadata_pb2.GetModelMetadataResponse:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        request.model_spec.name = NAME
        return self.prediction.GetModelMetadata(request, timeout=PATIENCE)


@contextmanager
def serve(base_path: Path, **options: Any) -> Iterator[tuple[Server, Caller]]:
    """A server with options of its own, and a caller of it."""
    with Server(base_path, NAME, **options) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the message with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def predict_request(
    signature: str, inputs: dict[str, Any], *, version: int | None = None, output_filter: tuple[str, ...] = ()
) -> predict_pb2.PredictRequest:
    """A predict request. An input is a TensorProto, or a value for `tf.make_tensor_proto`."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        request.inputs[name].CopyFrom(proto)
    return request


def eventually(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Waits until the condition is true. Fails with the message `what` if it never is."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--target", help="host:port of a running server, which the conformance tests ask instead")
    parser.addoption("--rest-target", help="host:port of its REST API")


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """SavedModels of the small model with different weights, by tag. Tests copy or link them as versions."""
    base = tmp_path_factory.mktemp("saved_models")
    return {tag: save_model(base / f"model-{tag}", tag) for tag in (1, 2, 3)}


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory, saved_models: dict[int, Path]) -> Path:
    base = tmp_path_factory.mktemp(NAME)
    (base / "7").symlink_to(saved_models[1])
    return base


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> str | None:
    """The server of `--target`, or None if the tests start the embedded one."""
    return request.config.getoption("--target", default=None)


@pytest.fixture(scope="session")
def server(base_path: Path, target: str | None) -> Iterator[Server]:
    if target:
        pytest.skip("needs control of the server, which --target does not give")
    with Server(base_path, NAME, poll_seconds=0.1, rest_port=0) as running:
        yield running


@pytest.fixture(scope="session")
def caller(request: pytest.FixtureRequest, target: str | None) -> Iterator[Caller]:
    caller = Caller(target or request.getfixturevalue("server").address)
    yield caller
    caller.channel.close()


@pytest.fixture(scope="session")
def rest_address(request: pytest.FixtureRequest, target: str | None) -> str:
    address = request.config.getoption("--rest-target", default=None)
    if target and not address:
        pytest.skip("--target without --rest-target")
    return address or f"127.0.0.1:{request.getfixturevalue('server').rest_port}"


@pytest.fixture(autouse=True)
def _asks_only(request: pytest.FixtureRequest, target: str | None) -> None:
    used = set(request.fixturenames)
    if target and ("base_path" in used or not used & {"caller", "rest_address"}):
        pytest.skip("starts servers of its own: there is nothing to ask of --target")


@pytest.fixture
def embedded(target: str | None) -> None:
    """Skips with `--target`. For tests of intended differences from TensorFlow Serving (docs/server.md)."""
    if target:
        pytest.skip("the embedded server's own way, which no other needs to follow")
