"""Conversion between NumPy arrays and TensorFlow's TensorProto, without TensorFlow.

Numbers are written as raw little-endian `tensor_content`, the cheapest form. Strings have no raw form in NumPy and are
written as `string_val`. Both forms are read, because a server sends repeated fields unless it is started with
`--enable_serialization_as_tensor_content`. A repeated field may leave out values at the end that repeat the last one.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfctr.client.errors import CodecError
from tfctr.client.protos import wire_pb2 as wire

Array = NDArray[Any]

#: DataType -> (NumPy type, repeated field with the values).
DTYPES: dict[int, tuple[np.dtype[Any], str]] = {
    wire.DT_FLOAT: (np.dtype(np.float32), "float_val"),
    wire.DT_DOUBLE: (np.dtype(np.float64), "double_val"),
    wire.DT_HALF: (np.dtype(np.float16), "half_val"),
    wire.DT_INT64: (np.dtype(np.int64), "int64_val"),
    wire.DT_INT32: (np.dtype(np.int32), "int_val"),
    wire.DT_INT16: (np.dtype(np.int16), "int_val"),
    wire.DT_INT8: (np.dtype(np.int8), "int_val"),
    wire.DT_UINT8: (np.dtype(np.uint8), "int_val"),
    wire.DT_UINT16: (np.dtype(np.uint16), "int_val"),
    wire.DT_UINT32: (np.dtype(np.uint32), "uint32_val"),
    wire.DT_UINT64: (np.dtype(np.uint64), "uint64_val"),
    wire.DT_BOOL: (np.dtype(np.bool_), "bool_val"),
    wire.DT_STRING: (np.dtype(np.object_), "string_val"),
}
_ENUMS: dict[np.dtype[Any], int] = {dtype: enum for enum, (dtype, _) in DTYPES.items()}

#: A few bytes can declare any shape. More elements than this (1 GiB of float32) are refused before memory is allocated.
MAX_ELEMENTS = 1 << 28

if sys.byteorder != "little":
    raise ImportError("tfctr.client needs a little-endian machine: tensor_content on the wire is little-endian")


def dtype_name(enum: int) -> str:
    """Name of a DataType for messages: `int64`, `string`, or `DataType 20` if it is not supported."""
    if enum == wire.DT_STRING:
        return "string"
    if enum in DTYPES:
        return str(DTYPES[enum][0])
    return f"DataType {enum}"


def dtype_enum(dtype: np.dtype[Any]) -> int:
    """DataType number of a NumPy type.

    Raises:
        CodecError: the type is not supported.
    """
    dtype = np.dtype(np.object_) if dtype.kind == "S" else dtype.newbyteorder("=")
    if dtype not in _ENUMS:
        raise CodecError(f"an array must have one of the types {_allowed()}. Received: {dtype}")
    return _ENUMS[dtype]


def encode(array: Array, out: wire.TensorProto | None = None) -> wire.TensorProto:
    """Writes an array as a TensorProto.

    Args:
        array: an array of one of the types of `DTYPES`; strings are an object array of bytes, or an array of type `S`.
        out: the message to fill (an entry of a request's map); a new one by default.

    Raises:
        CodecError: the type is not supported, or a string element is not bytes.
    """
    proto = wire.TensorProto() if out is None else out
    enum = dtype_enum(array.dtype)
    proto.dtype = enum  # type: ignore[assignment]  # the type stub wants a name, the runtime takes numbers
    dims = proto.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    if enum == wire.DT_STRING:
        try:
            proto.string_val.extend(array.ravel().tolist())
        except TypeError as error:
            raise CodecError(f"a string tensor must hold bytes only. Received: {error}") from error
    else:
        proto.tensor_content = np.asarray(array, DTYPES[enum][0]).tobytes()
    return proto


def decode(proto: wire.TensorProto, name: str = "tensor") -> Array:
    """Reads a TensorProto into an array (read-only when it shares the message's bytes). Messages show its `name`.

    Raises:
        CodecError: the type is not supported, the shape is invalid, or the values do not fit the shape.
    """
    if proto.dtype not in DTYPES:
        raise CodecError(f"{name}: the type must be one of {_allowed()}. Received: {dtype_name(proto.dtype)}")
    dtype, field = DTYPES[proto.dtype]
    shape = _shape(proto, name)
    size = math.prod(shape)
    if proto.tensor_content:
        if proto.dtype == wire.DT_STRING:
            return string_array(_string_list(proto.tensor_content, size, name)).reshape(shape)
        if len(proto.tensor_content) != size * dtype.itemsize:
            raise CodecError(
                f"{name}: tensor_content of shape {list(shape)} of {dtype} must have {size * dtype.itemsize} bytes. "
                f"Received: {len(proto.tensor_content)} bytes"
            )
        content = np.frombuffer(proto.tensor_content, dtype)
        if dtype == np.bool_ and content.view(np.uint8).max(initial=0) > 1:
            raise CodecError(f"{name}: a bool must be 0 or 1. Received: {content.view(np.uint8).max()}")
        return content.reshape(shape)
    values = getattr(proto, field)
    if len(values) > size:
        raise CodecError(f"{name}: shape {list(shape)} has {size} elements. Received: {len(values)} values")
    given = string_array(list(values)) if proto.dtype == wire.DT_STRING else _numbers(values, dtype, name)
    if given.size < size:  # values that are not given equal the last one, or zero if none is given
        last = given[-1] if given.size else b"" if proto.dtype == wire.DT_STRING else 0
        given = np.append(given, np.full(size - given.size, last, dtype))
    return given.reshape(shape)


def _numbers(values: Any, dtype: np.dtype[Any], name: str) -> Array:
    """The repeated field as an array of `dtype`. The field of float16 holds the 16 bits of each value as an integer."""
    if dtype == np.float16:
        bits = np.array(values, np.int64)
        if bits.size and (bits.min() < 0 or bits.max() > 0xFFFF):
            raise CodecError(f"{name}: half_val must hold 16-bit integers. Received: {bits.min()} to {bits.max()}")
        return bits.astype(np.uint16).view(np.float16)
    try:
        return np.array(values, dtype)
    except OverflowError as error:
        raise CodecError(f"{name}: the values must fit {dtype}. Received: {error}") from error


def _shape(proto: wire.TensorProto, name: str) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise CodecError(f"{name}: the tensor must have a shape. Received: unknown rank")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise CodecError(f"{name}: no size of a shape may be negative. Received: {list(shape)}")
    if len(shape) > 64 or math.prod(shape) > MAX_ELEMENTS:
        raise CodecError(
            f"{name}: a shape may have at most {MAX_ELEMENTS} elements and rank 64. Received: {list(shape)}"
        )
    return shape


def string_array(values: Sequence[bytes]) -> Array:
    """Byte strings as a one-dimensional object array."""
    return np.fromiter(values, object, len(values))


def _string_list(content: bytes, size: int, name: str) -> list[bytes]:
    """Strings in `tensor_content`: the lengths of all strings as varints, then the bytes of all strings."""
    lengths: list[int] = []
    at = 0
    for _ in range(size):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise CodecError(f"{name}: tensor_content must hold {size} lengths. Received: {len(lengths)}")
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise CodecError(
            f"{name}: the lengths of the strings add up to {at + sum(lengths)} bytes of tensor_content. "
            f"Received: {len(content)} bytes"
        )
    values = []
    for length in lengths:
        values.append(content[at : at + length])
        at += length
    return values


def _allowed() -> str:
    return ", ".join(dtype_name(enum) for enum in DTYPES)
