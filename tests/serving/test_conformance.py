"""TensorFlow Serving's replies, request by request. The numbers are those of the contract's list of cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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
from tests.serving.model import HISTORY, ITEMS, WIDTH

Code = grpc.StatusCode
USER = {"user_id": np.array([3, 4]), "history": np.arange(2 * HISTORY).reshape(2, HISTORY)}
STATE = {"user_vector": np.linspace(-1, 1, WIDTH, dtype=np.float32)[None], "model_tag": np.array([1])}
SCORE = {**STATE, "item_id": np.array([[5, 6, 7]])}
EXAMPLES = {
    "examples": np.array(
        [
            tf.train.Example(
                features=tf.train.Features(
                    feature={
                        key: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                        for key, value in (("user_id", user), ("item_id", item))
                    }
                )
            ).SerializeToString()
            for user, item in ((1, 2), (3, 4))
        ],
        object,
    )
}
ECHO = {
    "int32": np.array([[1, -2]], np.int32),
    "half": np.array([[0.5, -65504.0]], np.float16),
    "bfloat16": np.array([[0.5, -1e30]]).astype(tf.bfloat16.as_numpy_dtype),
    "text": np.array([[b"\xff\x00", b"caf\xc3\xa9"]], object),
    "flag": np.array([[True, False]]),
}


def _spec(**keywords: Any) -> predict_pb2.PredictRequest:
    """A valid score request under another ModelSpec."""
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


def _proto(dtype: int, shape: list[int], **content: Any) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **content)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@dataclass(frozen=True)
class Refused:
    """A request that is answered with an error."""

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


def _examples(kind: Any, signature: str, count: int = 2) -> Any:
    request = kind()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    for serialized in EXAMPLES["examples"][:count]:
        request.input.example_list.examples.add().ParseFromString(serialized)
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
            ("content too short", _proto(FLOAT, [1, WIDTH], tensor_content=b"\0" * (4 * WIDTH - 1))),
            ("content too long", _proto(FLOAT, [1, WIDTH], tensor_content=b"\0" * (4 * WIDTH + 4))),
            ("no type", _proto(types_pb2.DT_INVALID, [1, WIDTH], float_val=[0.0])),
            ("a type that holds no data", _proto(types_pb2.DT_RESOURCE, [1, WIDTH])),
            ("negative dimension", _proto(FLOAT, [-1, WIDTH], float_val=[0.0])),
            ("huge shape, one value", _proto(FLOAT, [2**20, 2**20], float_val=[0.0])),
            ("shape that overflows 64 bits", _proto(FLOAT, [2**40, 2**40], float_val=[0.0])),
            ("rank 300", _proto(FLOAT, [1] * 300, float_val=[0.0])),
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
        lambda: _examples(classification_pb2.ClassificationRequest, "score"),
        INVALID,
        ("Expected one input Tensor.",),
        "Classify",
    ),
    Refused(
        "C45 classify by a signature without labels",
        lambda: _examples(classification_pb2.ClassificationRequest, "regress"),
        Code.FAILED_PRECONDITION,
        ('at least one of "classes" or "scores"',),
        "Classify",
    ),
    Refused(
        "C45 classify by an unknown signature",
        lambda: _examples(classification_pb2.ClassificationRequest, "s"),
        INVALID,
        ("No signature was found with the name: s",),
        "Classify",
    ),
    Refused(
        "C45 classify nothing",
        lambda: _examples(classification_pb2.ClassificationRequest, "classify", 0),
        INVALID,
        ("Input is empty",),
        "Classify",
    ),
    Refused(
        "C45 regress by a predict signature",
        lambda: _examples(regression_pb2.RegressionRequest, "score"),
        INVALID,
        ("Expected one input Tensor.",),
        "Regress",
    ),
    Refused(
        "C45 regress by an unknown signature",
        lambda: _examples(regression_pb2.RegressionRequest, "s"),
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


def test_c01_signature_unset(caller: Caller) -> None:
    request = predict_request("", EXAMPLES)
    response = caller.prediction.Predict(request, timeout=20)
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (NAME, "serving_default", 7)
    assert tf.make_ndarray(response.outputs["probabilities"]).shape == (2,)


@pytest.mark.parametrize(
    ("signature", "inputs"), [("serving_default", EXAMPLES), ("user_tower", USER), ("score", SCORE), ("echo", ECHO)]
)
def test_c02_equals_the_saved_model(
    caller: Caller, saved_models: dict[int, Path], signature: str, inputs: dict[str, Any]
) -> None:
    loaded = tf.saved_model.load(str(saved_models[1]))
    expected = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    outputs = caller.run(signature, inputs)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value.numpy())
        assert outputs[name].dtype == value.numpy().dtype


def test_c02_split_equals_the_whole(caller: Caller) -> None:
    state = caller.run("user_tower", {"user_id": np.array([1]), "history": np.full((1, HISTORY), 2)})
    score = caller.run("score", {**state, "item_id": np.array([[2, 9]])})["probabilities"]
    whole = caller.run("serving_default", EXAMPLES)["probabilities"]
    np.testing.assert_allclose(score[0, 0], whole[0], atol=1e-6)


def test_c03_output_filter(caller: Caller) -> None:
    assert list(caller.predict("user_tower", USER, output_filter=("model_tag",)).outputs) == ["model_tag"]


@pytest.mark.parametrize(
    ("signature", "inputs", "name", "shape"),
    [
        ("score", {**SCORE, "item_id": np.zeros((1, 0), np.int64)}, "probabilities", (1, 0)),
        (
            "score",
            {
                "user_vector": np.zeros((0, WIDTH), "f4"),
                "model_tag": np.zeros(0, "i8"),
                "item_id": np.zeros((0, 4), "i8"),
            },
            "probabilities",
            (0, 4),
        ),
        (
            "user_tower",
            {"user_id": np.zeros(0, np.int64), "history": np.zeros((0, HISTORY), np.int64)},
            "user_vector",
            (0, WIDTH),
        ),
    ],
)
def test_c18_nothing_to_score(
    caller: Caller, signature: str, inputs: dict[str, Any], name: str, shape: tuple[int, ...]
) -> None:
    assert caller.run(signature, inputs)[name].shape == shape


def test_c16_what_broadcasts_is_not_refused_by_the_server(caller: Caller) -> None:
    """Shapes are the graph's own business: exported models check them, this one does not."""
    items = np.array([[5, 6, 7], [8, 9, 10]])
    both = {"user_vector": np.repeat(STATE["user_vector"], 2, axis=0), "model_tag": np.array([1, 1])}
    expected = caller.run("score", {**both, "item_id": items})["probabilities"]
    got = caller.run("score", {**both, "model_tag": np.array([1]), "item_id": items})["probabilities"]
    np.testing.assert_array_equal(got, expected)


def test_c45_classify_and_regress(caller: Caller) -> None:
    expected = caller.run("", EXAMPLES)["probabilities"]
    request = _examples(regression_pb2.RegressionRequest, "regress")
    response = caller.prediction.Regress(request, timeout=20)
    np.testing.assert_array_equal(np.float32([one.value for one in response.result.regressions]), expected)
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("regress", 7)
    labelled = caller.prediction.Classify(_examples(classification_pb2.ClassificationRequest, "classify"), timeout=20)
    rows = [{one.label: one.score for one in row.classes} for row in labelled.result.classifications]
    np.testing.assert_array_equal(np.float32([row["click"] for row in rows]), expected)
    assert {label for row in rows for label in row} == {"no", "click"}


def test_c19_nan_goes_through(caller: Caller) -> None:
    vector = np.full((1, WIDTH), np.nan, np.float32)
    assert np.isnan(caller.run("score", {**SCORE, "user_vector": vector})["probabilities"]).all()


@pytest.mark.parametrize(
    "proto",
    [
        _proto(FLOAT, [1, WIDTH], tensor_content=np.full(WIDTH, 0.25, np.float32).tobytes()),
        _proto(FLOAT, [1, WIDTH], float_val=[0.25] * WIDTH),
        _proto(FLOAT, [1, WIDTH], float_val=[0.25]),
        _proto(FLOAT, [1, WIDTH], float_val=[0.25, 0.25, 0.25]),
        _proto(FLOAT, [1, WIDTH], float_val=[0.25] * (WIDTH + 3)),
    ],
    ids=["content", "field", "one value fills up", "last value fills up", "more values than elements"],
)
def test_c20_forms_of_a_tensor(caller: Caller, proto: tensor_pb2.TensorProto) -> None:
    expected = caller.run("score", {**SCORE, "user_vector": np.full((1, WIDTH), 0.25, np.float32)})
    outputs = caller.run("score", {**SCORE, "user_vector": proto})
    np.testing.assert_array_equal(outputs["probabilities"], expected["probabilities"])


def test_c20_no_value_is_zero(caller: Caller) -> None:
    expected = caller.run("score", {**SCORE, "user_vector": np.zeros((1, WIDTH), np.float32)})
    outputs = caller.run("score", {**SCORE, "user_vector": _proto(FLOAT, [1, WIDTH])})
    np.testing.assert_array_equal(outputs["probabilities"], expected["probabilities"])


@pytest.mark.parametrize(
    "form",
    [
        {"int32": _proto(types_pb2.DT_INT32, [1, 2], int_val=[1, -2])},
        {"half": _proto(types_pb2.DT_HALF, [1, 2], half_val=ECHO["half"].view(np.uint16).ravel().tolist())},
        {"bfloat16": _proto(types_pb2.DT_BFLOAT16, [1, 2], half_val=ECHO["bfloat16"].view(np.uint16).ravel().tolist())},
        {"bfloat16": _proto(types_pb2.DT_BFLOAT16, [1, 2], tensor_content=ECHO["bfloat16"].tobytes())},
        {"text": _proto(types_pb2.DT_STRING, [1, 2], string_val=[b"\xff\x00", b"caf\xc3\xa9"])},
        {"flag": _proto(types_pb2.DT_BOOL, [1, 2], bool_val=[True, False])},
    ],
    ids=lambda form: next(iter(form)),
)
def test_c21_types(caller: Caller, form: dict[str, tensor_pb2.TensorProto]) -> None:
    outputs = caller.run("echo", {**ECHO, **form})
    for name, proto in form.items():
        np.testing.assert_array_equal(outputs[name], ECHO[name])
        np.testing.assert_array_equal(outputs[name], tf.make_ndarray(proto))


def test_c23_the_run_itself_stops(caller: Caller, server: Any) -> None:
    """The client would give up by itself: what is asked here is that the server stops, too, and says so in time."""
    model = server._models.managers[NAME]._latest.model
    started = time.monotonic()
    steps = {"steps": tf.make_tensor_proto(np.array([10**7]))}
    with pytest.raises(tf.errors.DeadlineExceededError, match="Timed out waiting for notification"):
        model.predict("slow", steps, [], timeout_ms=200)
    assert time.monotonic() - started < 5.0


def test_c24_status(caller: Caller) -> None:
    state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert {number: status.state for number, status in caller.status().items()} == {7: state}
    status = caller.status(version=7)[7].status
    assert (status.error_code, status.error_message) == (0, "")


def test_c26_metadata(caller: Caller, saved_models: dict[int, Path]) -> None:
    response = caller.metadata("signature_def")
    packed = response.metadata["signature_def"]
    assert packed.type_url.endswith("tensorflow.serving.SignatureDefMap")
    assert response.model_spec.version.value == 7
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert packed.Unpack(signatures)
    from tensorflow.python.tools import saved_model_utils

    expected = saved_model_utils.get_meta_graph_def(str(saved_models[1]), "serve").signature_def
    assert dict(signatures.signature_def) == dict(expected)
    assert "__saved_model_init_op" in signatures.signature_def


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


def test_c42_five_megabytes_both_ways(caller: Caller) -> None:
    text = np.array([[b"x" * 5_000_000]], object)
    assert caller.run("echo", {**ECHO, "text": text})["text"][0, 0] == text[0, 0]


def test_c43_a_bug_is_internal_and_named(caller: Caller, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(server._models.managers[NAME]._latest.model, "predict", broken)
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict("score", SCORE)
    assert caught.value.code() is Code.INTERNAL
    assert "a bug" in caught.value.details()


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("service", [b"", b"\x0a\x11PredictionService", b"\x0a\x0cModelService"])
def test_c47_health(caller: Caller, service: bytes) -> None:
    assert caller.channel.unary_unary("/grpc.health.v1.Health/Check")(service, timeout=20) == b"\x08\x01"


@pytest.mark.usefixtures("embedded")
def test_c47_health_of_an_unknown_service(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x01x", timeout=20)
    assert caught.value.code() is Code.NOT_FOUND
