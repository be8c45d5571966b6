import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.apis import status_pb2 as serving_status_pb2

from tfctr.client import codec
from tfctr.client.drivers import BlockingDriver
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.protos.generate import generate

OFFICIAL = {
    "TensorProto": tensor_pb2.TensorProto,
    "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
    "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "StatusProto": serving_status_pb2.StatusProto,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
}


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """Compares descriptors, not text: the text depends on the version of protoc."""
    generate(tmp_path)
    compiled = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "wire.pb").read_bytes()).file[0]
    committed = descriptor_pb2.FileDescriptorProto()
    wire.DESCRIPTOR.CopyToProto(committed)
    for proto in (compiled, committed):
        for message in proto.message_type:
            _clear_json_names(message)
    assert committed == compiled, "run tfctr/client/protos/generate.py"


def _clear_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    """Removes the JSON names of the fields, which only the descriptors that protoc writes have."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _clear_json_names(nested)


def test_generated_code_runs_with_the_oldest_protobuf_allowed() -> None:
    assert wire.__file__ is not None
    made_for = re.search(r"Protobuf Python Version: (\d+)\.(\d+)", Path(wire.__file__).read_text())
    assert made_for is not None
    assert tuple(map(int, made_for.groups())) <= (6, 30), "see tfctr/client/protos/generate.py"


def test_every_message_is_checked_against_the_official_one() -> None:
    assert set(wire.DESCRIPTOR.message_types_by_name) == set(OFFICIAL)


@pytest.mark.parametrize("name", OFFICIAL)
def test_fields_are_the_official_ones(name: str) -> None:
    _compare(wire.DESCRIPTOR.message_types_by_name[name], OFFICIAL[name].DESCRIPTOR)


def _compare(ours: Descriptor, official: Descriptor) -> None:
    for field in ours.fields:
        other = official.fields_by_number[field.number]
        assert field.name == other.name
        kinds = {field.type, other.type}
        enum_as_int = {field.TYPE_ENUM, field.TYPE_INT32}
        assert len(kinds) == 1 or kinds == enum_as_int
        assert (field.is_repeated, field.is_packed) == (other.is_repeated, other.is_packed)
        assert (field.containing_oneof is None) == (other.containing_oneof is None)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            assert other.message_type.GetOptions().map_entry
            _compare(field.message_type, other.message_type)
        if field.enum_type is not None and other.enum_type is not None:
            official_values = dict(other.enum_type.values_by_name)
            for value in field.enum_type.values:
                assert official_values[value.name].number == value.number


def test_data_types_are_the_official_ones() -> None:
    for name, number in wire.DataType.items():
        assert types_pb2.DataType.Value(name) == number


class PathRecorder:
    """A fake channel that records the paths of methods."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def unary_unary(self, path: str, *_: object, **__: object) -> None:
        self.paths.add(path)


def test_method_paths_are_the_official_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    official, ours = PathRecorder(), PathRecorder()
    prediction_service_pb2_grpc.PredictionServiceStub(official)
    model_service_pb2_grpc.ModelServiceStub(official)
    monkeypatch.setattr("grpc.insecure_channel", lambda *_: ours)
    BlockingDriver("localhost:1")
    assert len(ours.paths) == 3
    assert ours.paths <= official.paths


def test_bytes_of_a_predict_request_are_the_official_ones() -> None:
    arrays = {
        "ids": np.array([[1, -(2**63), 2**63 - 1]]),
        "prices": np.array([[0.5, np.nan]], np.float32),
        "half": np.array([1.5, -2], np.float16),
        "words": np.array([[b"Action|War", b"", b"\xff\x00"]], object),
        "empty": np.empty((0, 3), np.float32),
    }
    ours, official = wire.PredictRequest(), predict_pb2.PredictRequest()
    for request in (ours, official):
        request.model_spec.name = "ranking"
        request.model_spec.signature_name = "score"
        request.model_spec.version.value = 1700000000
        request.output_filter.append("probabilities")
    for name, array in arrays.items():
        codec.encode(array, ours.inputs[name])
        official.inputs[name].CopyFrom(_with_content(array))
    assert _bytes(ours) == _bytes(official)
    assert _bytes(wire.PredictRequest.FromString(_bytes(official))) == _bytes(official)
    assert _bytes(predict_pb2.PredictRequest.FromString(_bytes(ours))) == _bytes(ours)


def test_bytes_of_replies_are_the_official_ones() -> None:
    reply = predict_pb2.PredictResponse()
    reply.model_spec.name = "ranking"
    reply.model_spec.version.value = 3
    reply.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(np.array([[0.25, 0.5]], np.float32)))
    assert _bytes(wire.PredictResponse.FromString(_bytes(reply))) == _bytes(reply)
    status = get_model_status_pb2.GetModelStatusResponse()
    entry = status.model_version_status.add(version=3, state="LOADING")
    entry.status.error_code = 8
    entry.status.error_message = "no memory"
    ours = wire.GetModelStatusResponse.FromString(_bytes(status))
    assert ours.model_version_status[0].status.error_code == 8
    assert _bytes(ours) == _bytes(status)


def _with_content(array: np.ndarray) -> tensor_pb2.TensorProto:
    """The official TensorProto, with numbers as raw content. TensorFlow itself writes that only for large tensors."""
    proto = tf.make_tensor_proto(array)
    if array.dtype == object:
        return proto
    raw = tensor_pb2.TensorProto(dtype=proto.dtype, tensor_shape=proto.tensor_shape)
    raw.tensor_content = array.tobytes()
    return raw


def _bytes(message: Message) -> bytes:
    payload: bytes = message.SerializeToString(deterministic=True)
    return payload
