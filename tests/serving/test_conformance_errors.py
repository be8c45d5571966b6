"""The server has the error codes and messages of TensorFlow Serving.

A number such as C03 stands for the same case in all files of these tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.conftest import NAME, Caller, predict_request
from tests.serving.model import ITEMS, WIDTH
from tests.serving.requests import SCORE, examples_request, tensor

Code = grpc.StatusCode


def _spec(**keywords: Any) -> predict_pb2.PredictRequest:
    """A score request with valid inputs and another ModelSpec."""
    request = predict_request("score", SCORE)
    request.model_spec.Clear()
    for name, value in keywords.items():
        if name == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, name, value)
    return request


def _without_spec() -> predict_pb2.PredictRequest:
    request = predict_request("score", SCORE)
    request.ClearField("model_spec")
    return request


def _score(**changes: Any) -> predict_pb2.PredictRequest:
    inputs = {**SCORE, **changes}
    return predict_request("score", {name: value for name, value in inputs.items() if value is not None})


@dataclass(frozen=True)
class Refused:
    """A request whose answer is an error."""

    case: str
    request: Callable[[], Any]
    code: grpc.StatusCode
    texts: tuple[str, ...] = field(default=())
    method: str = "Predict"


def _metadata(*fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = NAME
    return request


def _status(name: str, version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


INVALID = Code.INVALID_ARGUMENT
FLOAT = types_pb2.DT_FLOAT
REFUSED = [
    Refused(
        "C03 unknown output",
        lambda: predict_request("score", SCORE, output_filter=("nothing",)),
        INVALID,
        ("output tensor alias not found in signature: nothing",),
    ),
    Refused(
        "C03 output twice",
        lambda: predict_request("score", SCORE, output_filter=("probabilities", "probabilities")),
        INVALID,
        ("duplicate output tensor alias: probabilities",),
    ),
    Refused("C04 no ModelSpec", _without_spec, INVALID, ("Missing ModelSpec",)),
    Refused("C05 no name", lambda: _spec(signature_name="score"), INVALID, ("ModelSpec has no name specified.",)),
    Refused(
        "C06 unknown model",
        lambda: _spec(name="x"),
        Code.NOT_FOUND,
        ("Servable not found for request: Latest(x)",),
    ),
    Refused(
        "C06 unknown model and version",
        lambda: _spec(name="x", version=3),
        Code.NOT_FOUND,
        ("Servable not found for request: Specific(x, 3)",),
    ),
    Refused(
        "C07 unknown version",
        lambda: _spec(name=NAME, version=99),
        Code.NOT_FOUND,
        (f"Servable not found for request: Specific({NAME}, 99)",),
    ),
    Refused(
        "C08 unknown label",
        lambda: _spec(name=NAME, version_label="stable"),
        INVALID,
        ("Unrecognized servable version label: stable",),
    ),
    Refused(
        "C09 unknown signature",
        lambda: predict_request("s", SCORE),
        Code.FAILED_PRECONDITION,
        ('Serving signature key "s" not found.',),
    ),
    Refused(
        "C10 input missing",
        lambda: _score(item_id=None),
        INVALID,
        (
            "input size does not match signature: 2!=3 len({model_tag,user_vector}) != "
            "len({item_id,model_tag,user_vector}). Sent extra: {}. Missing but required: {item_id}.",
        ),
    ),
    Refused(
        "C11 input too many",
        lambda: _score(other=[1.0]),
        INVALID,
        ("input size does not match signature: 4!=3", "Sent extra: {other}. Missing but required: {}."),
    ),
    Refused(
        "C12 input misnamed",
        lambda: _score(item_id=None, item=[[1]]),
        INVALID,
        ("Signature input alias: item_id(feed name: score_item_id:0) not found in request and no default value",),
    ),
    *(
        Refused(
            f"C13 {what}",
            lambda proto=proto: _score(user_vector=proto),
            INVALID,
            ("tensor parsing error: user_vector",),
        )
        for what, proto in (
            ("content too short", tensor(FLOAT, [1, WIDTH], tensor_content=b"\0" * (4 * WIDTH - 1))),
            ("content too long", tensor(FLOAT, [1, WIDTH], tensor_content=b"\0" * (4 * WIDTH + 4))),
            ("no type", tensor(types_pb2.DT_INVALID, [1, WIDTH], float_val=[0.0])),
            ("a type that holds no data", tensor(types_pb2.DT_RESOURCE, [1, WIDTH])),
            ("negative dimension", tensor(FLOAT, [-1, WIDTH], float_val=[0.0])),
            ("huge shape, one value", tensor(FLOAT, [2**20, 2**20], float_val=[0.0])),
            ("shape that overflows 64 bits", tensor(FLOAT, [2**40, 2**40], float_val=[0.0])),
            ("rank 300", tensor(FLOAT, [1] * 300, float_val=[0.0])),
            (
                "unknown rank",
                tensor_pb2.TensorProto(dtype=FLOAT, tensor_shape={"unknown_rank": True}, float_val=[0.0]),
            ),
        )
    ),
    Refused(
        "C14 float64 for float32",
        lambda: _score(user_vector=np.zeros((1, WIDTH))),
        INVALID,
        ("to be float but double is provided",),
    ),
    Refused(
        "C14 int32 for int64",
        lambda: _score(item_id=np.array([[1]], np.int32)),
        INVALID,
        ("to be int64 but int32 is provided",),
    ),
    Refused(
        "C14 string for int64",
        lambda: _score(item_id=np.array([[b"1"]], object)),
        INVALID,
        ("to be int64 but string is provided",),
    ),
    Refused("C15 inner dimension", lambda: _score(user_vector=np.zeros((1, WIDTH - 1), np.float32)), INVALID, ("7",)),
    Refused(
        "C17 id out of range",
        lambda: predict_request("lookup", {"row": np.array([ITEMS])}),
        INVALID,
        (f"indices[0] = {ITEMS} is not in [0, {ITEMS})",),
    ),
    Refused(
        "C45 classify by a predict signature",
        lambda: examples_request(classification_pb2.ClassificationRequest, "score"),
        INVALID,
        ("Expected one input Tensor.",),
        "Classify",
    ),
    Refused(
        "C45 classify by a signature without labels",
        lambda: examples_request(classification_pb2.ClassificationRequest, "regress"),
        Code.FAILED_PRECONDITION,
        ('at least one of "classes" or "scores"',),
        "Classify",
    ),
    Refused(
        "C45 classify by a signature whose labels are numbers",
        lambda: examples_request(classification_pb2.ClassificationRequest, "classify_wrong"),
        INVALID,
        ("Expected classes Tensor of DT_STRING. Was: ",),
        "Classify",
    ),
    Refused(
        "C45 classify by an unknown signature",
        lambda: examples_request(classification_pb2.ClassificationRequest, "s"),
        INVALID,
        ("No signature was found with the name: s",),
        "Classify",
    ),
    Refused(
        "C45 classify nothing",
        lambda: examples_request(classification_pb2.ClassificationRequest, "classify", 0),
        INVALID,
        ("Input is empty",),
        "Classify",
    ),
    Refused(
        "C45 regress by a predict signature",
        lambda: examples_request(regression_pb2.RegressionRequest, "score"),
        INVALID,
        ("Expected one input Tensor.",),
        "Regress",
    ),
    Refused(
        "C45 regress by an unknown signature",
        lambda: examples_request(regression_pb2.RegressionRequest, "s"),
        INVALID,
        ("No signature was found with the name: s",),
        "Regress",
    ),
    Refused(
        "C22 long message",
        lambda: predict_request("fail", {"length": np.array([5000])}),
        INVALID,
        ("assertion failed", "xxxx...TRUNCATED"),
    ),
    Refused(
        "C23 deadline shorter than the run",
        lambda: predict_request("slow", {"steps": np.array([10**7])}),
        Code.DEADLINE_EXCEEDED,
    ),
    Refused(
        "C24 unknown model",
        lambda: _status("x"),
        Code.NOT_FOUND,
        ("Could not find any versions of model x",),
        "GetModelStatus",
    ),
    Refused(
        "C24 unknown version",
        lambda: _status(NAME, 9),
        Code.NOT_FOUND,
        (f"Could not find version 9 of model {NAME}",),
        "GetModelStatus",
    ),
    Refused(
        "C25 no metadata field",
        lambda: _metadata(),
        INVALID,
        ("GetModelMetadataRequest must specify at least one metadata_field",),
        "GetModelMetadata",
    ),
    Refused(
        "C25 other metadata field",
        lambda: _metadata("f"),
        INVALID,
        ("Metadata field f is not supported",),
        "GetModelMetadata",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.case)
def test_refused(caller: Caller, case: Refused) -> None:
    stub = caller.models if case.method == "GetModelStatus" else caller.prediction
    timeout = 0.3 if case.case.startswith("C23") else 20.0
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, case.method)(case.request(), timeout=timeout)
    details = caught.value.details()
    assert (caught.value.code(), details) == (case.code, details)
    for text in case.texts:
        assert text in details
    assert len(details) <= 1024 + len("...TRUNCATED")


def test_c23_the_run_itself_stops(caller: Caller, server: Any) -> None:
    """At the deadline, the server stops the run and reports it, so that not only the client gives up."""
    model = server._models.managers[NAME]._latest.model
    started = time.monotonic()
    steps = {"steps": tf.make_tensor_proto(np.array([10**8]))}
    with pytest.raises(tf.errors.DeadlineExceededError, match="Timed out waiting for notification"):
        model.predict("slow", steps, [], timeout_ms=200)
    # The whole run takes minutes.
    assert time.monotonic() - started < 60


def test_c40_garbage(caller: Caller) -> None:
    call = caller.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xffgarbage", timeout=20)
    assert caught.value.code() is Code.INTERNAL


@pytest.mark.parametrize("path", ["/tensorflow.serving.PredictionService/Nothing", "/no.Service/Predict"])
def test_c41_unknown_method(caller: Caller, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary(path)(b"", timeout=20)
    assert caught.value.code() is Code.UNIMPLEMENTED


def test_c43_a_bug_is_internal_and_named(caller: Caller, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(server._models.managers[NAME]._latest.model, "predict", broken)
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict("score", SCORE)
    assert caught.value.code() is Code.INTERNAL
    assert "a bug" in caught.value.details()
