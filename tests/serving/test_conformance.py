"""The server answers as TensorFlow Serving does.

A number such as C02 stands for the same case in all files of these tests.
"""

from __future__ import annotations

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
    regression_pb2,
)

from tests.serving.conftest import NAME, Caller, predict_request
from tests.serving.model import HISTORY, WIDTH
from tests.serving.requests import ECHO, EXAMPLES, SCORE, STATE, USER, examples_request, tensor

Code = grpc.StatusCode
FLOAT = types_pb2.DT_FLOAT


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
    """The server does not check shapes. Exported models do, this one does not."""
    items = np.array([[5, 6, 7], [8, 9, 10]])
    both = {"user_vector": np.repeat(STATE["user_vector"], 2, axis=0), "model_tag": np.array([1, 1])}
    expected = caller.run("score", {**both, "item_id": items})["probabilities"]
    got = caller.run("score", {**both, "model_tag": np.array([1]), "item_id": items})["probabilities"]
    np.testing.assert_array_equal(got, expected)


def test_c45_classify_and_regress(caller: Caller) -> None:
    expected = caller.run("", EXAMPLES)["probabilities"]
    request = examples_request(regression_pb2.RegressionRequest, "regress")
    response = caller.prediction.Regress(request, timeout=20)
    np.testing.assert_array_equal(np.float32([one.value for one in response.result.regressions]), expected)
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("regress", 7)
    labelled = caller.prediction.Classify(
        examples_request(classification_pb2.ClassificationRequest, "classify"), timeout=20
    )
    rows = [{one.label: one.score for one in row.classes} for row in labelled.result.classifications]
    np.testing.assert_array_equal(np.float32([row["click"] for row in rows]), expected)
    assert {label for row in rows for label in row} == {"no", "click"}


def test_c19_nan_goes_through(caller: Caller) -> None:
    vector = np.full((1, WIDTH), np.nan, np.float32)
    assert np.isnan(caller.run("score", {**SCORE, "user_vector": vector})["probabilities"]).all()


@pytest.mark.parametrize(
    "proto",
    [
        tensor(FLOAT, [1, WIDTH], tensor_content=np.full(WIDTH, 0.25, np.float32).tobytes()),
        tensor(FLOAT, [1, WIDTH], float_val=[0.25] * WIDTH),
        tensor(FLOAT, [1, WIDTH], float_val=[0.25]),
        tensor(FLOAT, [1, WIDTH], float_val=[0.25, 0.25, 0.25]),
        tensor(FLOAT, [1, WIDTH], float_val=[0.25] * (WIDTH + 3)),
    ],
    ids=["content", "field", "one value fills up", "last value fills up", "more values than elements"],
)
def test_c20_forms_of_a_tensor(caller: Caller, proto: tensor_pb2.TensorProto) -> None:
    expected = caller.run("score", {**SCORE, "user_vector": np.full((1, WIDTH), 0.25, np.float32)})
    outputs = caller.run("score", {**SCORE, "user_vector": proto})
    np.testing.assert_array_equal(outputs["probabilities"], expected["probabilities"])


def test_c20_no_value_is_zero(caller: Caller) -> None:
    expected = caller.run("score", {**SCORE, "user_vector": np.zeros((1, WIDTH), np.float32)})
    outputs = caller.run("score", {**SCORE, "user_vector": tensor(FLOAT, [1, WIDTH])})
    np.testing.assert_array_equal(outputs["probabilities"], expected["probabilities"])


@pytest.mark.parametrize(
    "form",
    [
        {"int32": tensor(types_pb2.DT_INT32, [1, 2], int_val=[1, -2])},
        {"half": tensor(types_pb2.DT_HALF, [1, 2], half_val=ECHO["half"].view(np.uint16).ravel().tolist())},
        {"bfloat16": tensor(types_pb2.DT_BFLOAT16, [1, 2], half_val=ECHO["bfloat16"].view(np.uint16).ravel().tolist())},
        {"bfloat16": tensor(types_pb2.DT_BFLOAT16, [1, 2], tensor_content=ECHO["bfloat16"].tobytes())},
        {"text": tensor(types_pb2.DT_STRING, [1, 2], string_val=[b"\xff\x00", b"caf\xc3\xa9"])},
        {"flag": tensor(types_pb2.DT_BOOL, [1, 2], bool_val=[True, False])},
    ],
    ids=lambda form: next(iter(form)),
)
def test_c21_types(caller: Caller, form: dict[str, tensor_pb2.TensorProto]) -> None:
    outputs = caller.run("echo", {**ECHO, **form})
    for name, proto in form.items():
        np.testing.assert_array_equal(outputs[name], ECHO[name])
        np.testing.assert_array_equal(outputs[name], tf.make_ndarray(proto))


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


def test_c42_five_megabytes_both_ways(caller: Caller) -> None:
    text = np.array([[b"x" * 5_000_000]], object)
    assert caller.run("echo", {**ECHO, "text": text})["text"][0, 0] == text[0, 0]


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("service", [b"", b"\x0a\x11PredictionService", b"\x0a\x0cModelService"])
def test_c47_health(caller: Caller, service: bytes) -> None:
    assert caller.channel.unary_unary("/grpc.health.v1.Health/Check")(service, timeout=20) == b"\x08\x01"


@pytest.mark.usefixtures("embedded")
def test_c47_health_of_an_unknown_service(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x01x", timeout=20)
    assert caught.value.code() is Code.NOT_FOUND


def test_c20_strings_as_tensorflow_writes_them(caller: Caller) -> None:
    text = np.array([[b"", b"\xff\x00" + b"x" * 300]], object)
    content = b"\x00" + b"\xae\x02" + b"".join(text[0])
    outputs = caller.run("echo", {**ECHO, "text": tensor(types_pb2.DT_STRING, [1, 2], tensor_content=content)})
    np.testing.assert_array_equal(outputs["text"], text)
    for broken in (content[:-1], content + b"x", b"\x80", b"\xff" * 9):
        proto = tensor(types_pb2.DT_STRING, [1, 2], tensor_content=broken)
        with pytest.raises(grpc.RpcError, match="tensor parsing error: text") as caught:
            caller.run("echo", {**ECHO, "text": proto})
        assert caught.value.code() is Code.INVALID_ARGUMENT
