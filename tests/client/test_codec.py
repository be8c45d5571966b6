import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2

from tfctr.client import CodecError
from tfctr.client.codec import DTYPES, decode, encode
from tfctr.client.protos import wire_pb2 as wire

NUMBERS = [dtype for enum, (dtype, _) in DTYPES.items() if enum != wire.DT_STRING]
shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
numbers = st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype, shapes))
words = st.lists(st.binary(max_size=200), max_size=12)


def official(proto: wire.TensorProto) -> np.ndarray:
    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))


def ours(proto: tensor_pb2.TensorProto) -> wire.TensorProto:
    return wire.TensorProto.FromString(proto.SerializeToString())


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(numbers)
@settings(deadline=None, max_examples=200)
def test_tensorflow_reads_what_we_write_and_so_do_we(array: np.ndarray) -> None:
    proto = encode(array)
    assert same(decode(proto), array)
    assert same(official(proto), array)


@given(numbers)
@settings(deadline=None, max_examples=200)
def test_we_read_both_forms_tensorflow_writes(array: np.ndarray) -> None:
    content = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(array).numpy())
    assert same(decode(ours(content)), array)
    values = tensor_pb2.TensorProto(dtype=content.dtype, tensor_shape=content.tensor_shape)
    flat = array.view(np.uint16) if array.dtype == np.float16 else array
    getattr(values, DTYPES[content.dtype][1]).extend(flat.ravel().tolist())
    assert same(decode(ours(values)), array)


@given(words)
@settings(deadline=None)
def test_strings_in_both_forms(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    assert decode(encode(array)).tolist() == values
    assert official(encode(array)).tolist() == values
    assert decode(_string_content(values)).tolist() == values


def _string_content(values: list[bytes]) -> wire.TensorProto:
    """Strings as sent with the server's --enable_serialization_as_tensor_content: varint lengths, then all bytes."""

    def varint(n: int) -> bytes:
        return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])

    proto = wire.TensorProto(dtype=wire.DT_STRING)
    proto.tensor_shape.dim.add(size=len(values))
    proto.tensor_content = b"".join([*(varint(len(v)) for v in values), *values])
    return proto


def test_tensorflow_agrees_on_the_content_form_of_strings() -> None:
    values = [b"a", b"", b"b" * 300]
    proto = tensor_pb2.TensorProto.FromString(_string_content(values).SerializeToString())
    assert tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy().tolist() == values


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("given_values", [0, 1, 2])
def test_splat_form(dtype: np.dtype, given_values: int) -> None:
    """Missing values at the end equal the last given value, or zero if none is given. TensorFlow reads the same."""
    enum = next(e for e, (d, _) in DTYPES.items() if d == dtype)
    proto = wire.TensorProto(dtype=enum)
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    values = np.ones(given_values, dtype)
    getattr(proto, DTYPES[enum][1]).extend((values.view(np.uint16) if dtype == np.float16 else values).tolist())
    expected = np.full((2, 2), 1 if given_values else 0, dtype)
    assert same(decode(proto), expected)
    assert same(tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype)).numpy(), expected)


def test_splat_of_strings_and_scalars() -> None:
    proto = wire.TensorProto(dtype=wire.DT_STRING, string_val=[b"a", b"b"])
    proto.tensor_shape.dim.add(size=4)
    assert decode(proto).tolist() == [b"a", b"b", b"b", b"b"]
    assert decode(wire.TensorProto(dtype=wire.DT_FLOAT, float_val=[2.5])) == 2.5


def test_not_contiguous_and_big_endian_arrays() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    assert same(decode(encode(array)), np.ascontiguousarray(array))
    assert decode(encode(np.array([1, 2], ">i8"))).tolist() == [1, 2]
    assert decode(encode(np.array([b"ab", b"c"]))).tolist() == [b"ab", b"c"]


def _tensor(dtype: int, *shape: int, **fields: object) -> wire.TensorProto:
    proto = wire.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (_tensor(wire.DT_FLOAT, 2, tensor_content=b"123"), "must have 8 bytes. Received: 3 bytes"),
        (_tensor(wire.DT_FLOAT, -1), r"may be negative. Received: \[-1\]"),
        (_tensor(wire.DT_FLOAT, 1 << 40), "at most 268435456 elements"),
        (_tensor(wire.DT_FLOAT, 1 << 20, 1 << 20, float_val=[1]), "at most 268435456 elements"),
        (_tensor(wire.DT_FLOAT, *[1] * 65), "rank 64"),
        (_tensor(wire.DT_FLOAT, 1, float_val=[1, 2]), r"shape \[1\] has 1 elements. Received: 2 values"),
        (_tensor(20, 1), "must be one of .*Received: DataType 20"),
        (_tensor(wire.DT_INVALID, 1), "Received: DataType 0"),
        (_tensor(wire.DT_BFLOAT16, 1), "Received: DataType 14"),
        (_tensor(wire.DT_HALF, 1, half_val=[1 << 20]), "16-bit integers. Received: 1048576"),
        (_tensor(wire.DT_INT8, 1, int_val=[300]), "must fit int8"),
        (_tensor(wire.DT_BOOL, 1, tensor_content=b"\x07"), "must be 0 or 1. Received: 7"),
        (_tensor(wire.DT_STRING, 2, tensor_content=b"\x05"), "must hold 2 lengths. Received: 1"),
        (
            _tensor(wire.DT_STRING, 1, tensor_content=b"\x05ab"),
            "add up to 6 bytes of tensor_content. Received: 3 bytes",
        ),
        (_tensor(wire.DT_STRING, 1, tensor_content=b"\xff" * 9), "must hold 1 lengths. Received: 0"),
        (
            wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=wire.TensorShapeProto(unknown_rank=True)),
            "must have a shape",
        ),
    ],
)
def test_malformed_tensors_are_refused(proto: wire.TensorProto, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(proto, "x")


def test_arrays_that_cannot_be_sent() -> None:
    with pytest.raises(CodecError, match="complex"):
        encode(np.zeros(1, np.complex64))
    with pytest.raises(CodecError, match="bytes only"):
        encode(np.array([1, 2], object))


@given(st.binary(max_size=120))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_a_tensor_or_a_codec_error(payload: bytes) -> None:
    try:
        proto = wire.TensorProto.FromString(payload)
    except Exception:  # protobuf refuses the bytes
        return
    try:
        decode(proto)
    except CodecError:
        return
