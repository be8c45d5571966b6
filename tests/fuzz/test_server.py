"""Requests that are nearly right, to a server with little memory: refused as the caller's fault, or answered rightly.

The answers are compared with those of the model itself, whose inputs TensorFlow decodes.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.fuzz.mutations import VALUES, mutated_bytes, mutated_tree
from tests.serving.conftest import NAME, predict_request
from tests.serving.model import save_model
from tests.serving.process_resources import process_resources
from tests.serving.requests import EXAMPLES, SCORE, USER, examples_request
from tests.serving.test_process import Process

pytestmark = pytest.mark.e2e

MEMORY_BYTES, GROWTH_MEGABYTES, SECONDS = 4 * 2**30, 300, 60.0
SERVICE = "/tensorflow.serving.PredictionService/"
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""What tells a caller that the request is at fault. INTERNAL, UNKNOWN, UNAVAILABLE and DEADLINE_EXCEEDED do not."""


def check_refusal(error: Any) -> None:
    # gRPC itself answers so what is no protocol buffer.
    no_message = error.code() is grpc.StatusCode.INTERNAL and error.details().startswith("the message is no ")
    assert no_message or error.code() in REFUSED, f"{error.code()}: {error.details()}"


@dataclass
class Target:
    """A server in a process of its own, and the model that it serves.

    Attributes:
        process: The process.
        channel: A channel to it.
        rest: The address of its REST API.
        model: The model, loaded here.
        megabytes: The memory of the process after its first answers.
    """

    process: Process
    channel: grpc.Channel
    rest: str
    model: Any
    megabytes: float = 0.0

    def call(self, method: str, request: bytes) -> bytes:
        answer: bytes = self.channel.unary_unary(method)(request, timeout=SECONDS)
        return answer

    def still_right(self) -> None:
        """A right request gets its right answer."""
        request = predict_request("score", SCORE)
        answer = predict_pb2.PredictResponse.FromString(self.call(SERVICE + "Predict", request.SerializeToString()))
        expected = self.model.signatures["score"](**{name: tf.constant(value) for name, value in SCORE.items()})
        np.testing.assert_allclose(
            tf.make_ndarray(answer.outputs["probabilities"]), expected["probabilities"], atol=1e-6
        )

    def ended(self) -> bool:
        return self.process.popen.poll() is not None


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    base = tmp_path_factory.mktemp("fuzz") / NAME
    directory = save_model(base / "1", 1)
    process = Process(
        *("--model-base-path", str(base), "--model-name", NAME, "--port", "0", "--rest-port", "0"),
        within=("prlimit", f"--data={MEMORY_BYTES}"),
    )
    try:
        found = process.wait_for(
            rf"^ready: {NAME} \(versions 1\) on grpc://(\S+?)(?:,| and) .*?http://(\S+?)(?:[/,]|$)"
        )
        with grpc.insecure_channel(found[1]) as channel:
            target = Target(process, channel, found[2].strip(), tf.saved_model.load(str(directory)))
            target.still_right()
            target.megabytes = process_resources(process.popen.pid).megabytes
            yield target
            assert not target.ended()
            target.still_right()
            grown = process_resources(process.popen.pid).megabytes - target.megabytes
            print(f"the server grew by {grown:.0f} MB")
            assert grown < GROWTH_MEGABYTES
            said = " ".join(process.lines)
            assert "Traceback" not in said
    finally:
        process.popen.terminate()
        process.popen.wait(timeout=SECONDS)


PREDICT = [predict_request(name, inputs) for name, inputs in (("serving_default", EXAMPLES), ("user_tower", USER))]
PREDICT.append(predict_request("score", SCORE))
RAW = {
    "Predict": [request.SerializeToString() for request in PREDICT],
    "Classify": [examples_request(classification_pb2.ClassificationRequest, "classify").SerializeToString()],
    "Regress": [examples_request(regression_pb2.RegressionRequest, "regress").SerializeToString()],
    "GetModelMetadata": [
        get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec={"name": NAME}, metadata_field=["signature_def"]
        ).SerializeToString()
    ],
}
STATUS = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": NAME}).SerializeToString()
SIZES = [0, 1, 2, 3, 5, 100, 16384, 16385, 100_000, 2**31, 2**40, 2**62, 2**63 - 1, -1, -(2**63)]


@st.composite
def changed_requests(draw: st.DrawFn) -> predict_pb2.PredictRequest:
    """A valid request with shapes, types, values and names that are others."""
    request = predict_pb2.PredictRequest()
    request.CopyFrom(draw(st.sampled_from(PREDICT)))
    for _ in range(draw(st.integers(1, 3))):
        names = sorted(request.inputs)
        if not names:
            break
        name = draw(st.sampled_from(names))
        proto = request.inputs[name]
        match draw(st.sampled_from(["size", "rank", "type", "content", "values", "name", "lose", "version", "filter"])):
            case "size" if proto.tensor_shape.dim:
                at = draw(st.integers(0, len(proto.tensor_shape.dim) - 1))
                proto.tensor_shape.dim[at].size = draw(st.sampled_from(SIZES))
            case "rank":
                for _ in range(draw(st.sampled_from([1, 2, 300]))):
                    proto.tensor_shape.dim.add(size=draw(st.sampled_from(SIZES)))
            case "type":
                proto.dtype = draw(st.sampled_from(types_pb2.DataType.values()))
            case "content":
                proto.tensor_content = draw(st.one_of(st.binary(max_size=64), mutated_bytes([proto.tensor_content])))
            case "values":
                proto.tensor_content = b""
                proto.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)))
                proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
                proto.string_val.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
            case "name":
                request.inputs[draw(st.sampled_from(["", "x", "é", *names]))].CopyFrom(proto)
            case "lose":
                del request.inputs[name]
            case "version":
                request.model_spec.version.value = draw(st.sampled_from(SIZES))
            case "filter":
                request.output_filter.append(draw(st.sampled_from(["probabilities", "x", ""])))
    return request


def check_answer(target: Target, request: predict_pb2.PredictRequest, answer: bytes) -> None:
    """An answer with status OK is what the model itself says of the inputs, as TensorFlow's C++ decodes them."""
    response = predict_pb2.PredictResponse.FromString(answer)
    signature = target.model.signatures[request.model_spec.signature_name or "serving_default"]
    inputs = {name: tf.io.parse_tensor(one.SerializeToString(), one.dtype) for name, one in request.inputs.items()}
    expected = signature(**inputs)
    for name, proto in response.outputs.items():
        np.testing.assert_allclose(tf.make_ndarray(proto), expected[name].numpy(), atol=1e-6)
    if not request.output_filter:
        assert response.outputs.keys() == expected.keys()


@given(request=changed_requests())
def test_a_request_with_other_tensors(request: predict_pb2.PredictRequest, target: Target) -> None:
    try:
        answer = target.call(SERVICE + "Predict", request.SerializeToString())
    except grpc.RpcError as error:
        check_refusal(error)
        return
    check_answer(target, request, answer)


@pytest.mark.parametrize("method", RAW)
@given(data=st.data())
def test_bytes_that_are_hardly_a_request(method: str, data: st.DataObject, target: Target) -> None:
    request = data.draw(mutated_bytes(RAW[method]))
    try:
        answer = target.call(SERVICE + method, request)
    except grpc.RpcError as error:
        check_refusal(error)
        return
    if method == "Predict":
        check_answer(target, predict_pb2.PredictRequest.FromString(request), answer)


@given(request=mutated_bytes([STATUS]))
def test_bytes_that_hardly_ask_for_the_status(request: bytes, target: Target) -> None:
    try:
        target.call("/tensorflow.serving.ModelService/GetModelStatus", request)
    except grpc.RpcError as error:
        check_refusal(error)


BODIES: list[Any] = [
    {"signature_name": "user_tower", "inputs": {name: value.tolist() for name, value in USER.items()}},
    {"signature_name": "score", "inputs": {name: value.tolist() for name, value in SCORE.items()}},
    {
        "signature_name": "user_tower",
        "instances": [{"user_id": 3, "history": [0, 1, 2, 3, 4, 5]}, {"user_id": 4, "history": [0, 1, 2, 3, 4, 5]}],
    },
    {"instances": [{"b64": "CgA="}]},
]
PATHS = [f"/v1/models/{NAME}:predict", f"/v1/models/{NAME}/versions/1:predict", f"/v1/models/{NAME}:classify"]
HEADERS = ["Content-Type", "Content-Encoding", "Expect", "Transfer-Encoding", "X-Request-Id", "Accept-Encoding"]


def ask(target: Target, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(target.rest, timeout=SECONDS)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def check_refused_or_finite(status: int, body: bytes) -> None:
    assert status < 500 or status == 501, f"{status}: {body[:300]!r}"
    if status == 200:
        found = json.loads(body)
        assert found
        return
    assert len(body) < 20_000


@given(body=mutated_tree(BODIES), path=st.sampled_from(PATHS))
def test_a_body_with_other_values(body: Any, path: str, target: Target) -> None:
    text = json.dumps(body).encode()
    status, answer = ask(target, "POST", path, text, {"Content-Type": "application/json"})
    check_refused_or_finite(status, answer)
    if status == 200 and isinstance(body, dict) and body.get("signature_name") == "score" and "inputs" in body:
        check_scores(target, body["inputs"], json.loads(answer)["outputs"])


def check_scores(target: Target, inputs: Any, outputs: Any) -> None:
    """What was answered is what the model says of the numbers in the body."""
    wanted = {"user_vector": np.float32, "model_tag": np.int64, "item_id": np.int64}
    arrays = {name: np.array(inputs[name], dtype) for name, dtype in wanted.items()}
    expected = target.model.signatures["score"](**{name: tf.constant(value) for name, value in arrays.items()})
    if not expected["probabilities"].shape.num_elements():  # JSON has no shape of nothing
        assert not any(outputs)
        return
    found = np.array([[math.nan if value == "NaN" else value for value in row] for row in outputs], np.float32)
    np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)


@given(
    body=mutated_bytes([json.dumps(body).encode() for body in BODIES]),
    path=st.one_of(st.sampled_from(PATHS), mutated_bytes([path.encode() for path in PATHS])),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD"]),
    headers=st.dictionaries(
        st.sampled_from(HEADERS),
        st.sampled_from(["application/json", "gzip", "identity", "deflate", "100-continue", "a" * 300, "", "é"]),
        max_size=2,
    ),
)
def test_a_request_that_is_hardly_http(
    body: bytes, path: str | bytes, method: str, headers: dict[str, str], target: Target
) -> None:
    text = path if isinstance(path, str) else "/" + path.decode("latin-1")
    clean = "".join(letter for letter in text if "!" <= letter <= "~")
    given_headers = {
        name: value.encode("latin-1").decode("latin-1")
        for name, value in headers.items()
        if name not in ("Transfer-Encoding", "Expect") or value == "identity"
    }
    try:
        status, answer = ask(target, method, clean, body, given_headers)
    except (http.client.HTTPException, ConnectionError):
        assert not target.ended()  # it hung up, as on what is no HTTP
        return
    check_refused_or_finite(status, answer)


@given(value=st.sampled_from(VALUES), name=st.sampled_from(["user_id", "history", "user_vector", "item_id"]))
def test_a_value_that_is_none(value: Any, name: str, target: Target) -> None:
    signature = "user_tower" if name in USER else "score"
    inputs = {key: found.tolist() for key, found in (USER if name in USER else SCORE).items()}
    inputs[name] = [value] if name == "user_id" else [[value]]
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    check_refused_or_finite(*ask(target, "POST", PATHS[0], body, {}))
