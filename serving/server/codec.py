"""Conversion between TensorProto and NumPy, without a copy where possible.

Both forms of a tensor are read: raw bytes (`tensor_content`) and repeated fields (`float_val` and so on), in which
values at the end that repeat the last one may be left out. `tf.make_ndarray` does the same and is ten times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

Array = NDArray[Any]
# No tensor can be larger than a protobuf message, but a small message can declare a huge shape.
MAX_TENSOR_BYTES = 2**31 - 1
MAX_RANK = 254
_OBJECT = np.dtype(object)
_BFLOAT16 = np.dtype(tf.bfloat16.as_numpy_dtype)


def _bits(dtype: Any) -> Callable[[Any], Array]:
    return lambda values: np.fromiter(values, np.int32, len(values)).astype(np.uint16).view(dtype)


def _values(dtype: Any) -> Callable[[Any], Array]:
    return lambda values: np.fromiter(values, dtype, len(values))


def _small(dtype: Any) -> Callable[[Any], Array]:
    # int_val is int32. Values that do not fit are truncated to the low bits, as in C++.
    return lambda values: np.fromiter(values, np.int32, len(values)).astype(dtype)


def _complex(dtype: Any) -> Callable[[Any], Array]:
    return lambda values: np.fromiter(values, dtype().real.dtype, len(values)).view(dtype)


def string_array(values: Any) -> Array:
    """Byte strings as a one-dimensional object array."""
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


# DataType -> NumPy type, repeated field, function that converts its values. half_val holds the bits as integers.
_TYPES: dict[int, tuple[np.dtype[Any], str, Callable[[Any], Array]]] = {
    types_pb2.DT_FLOAT: (np.dtype(np.float32), "float_val", _values(np.float32)),
    types_pb2.DT_DOUBLE: (np.dtype(np.float64), "double_val", _values(np.float64)),
    types_pb2.DT_HALF: (np.dtype(np.float16), "half_val", _bits(np.float16)),
    types_pb2.DT_BFLOAT16: (_BFLOAT16, "half_val", _bits(_BFLOAT16)),
    types_pb2.DT_INT64: (np.dtype(np.int64), "int64_val", _values(np.int64)),
    types_pb2.DT_INT32: (np.dtype(np.int32), "int_val", _values(np.int32)),
    types_pb2.DT_INT16: (np.dtype(np.int16), "int_val", _small(np.int16)),
    types_pb2.DT_INT8: (np.dtype(np.int8), "int_val", _small(np.int8)),
    types_pb2.DT_UINT8: (np.dtype(np.uint8), "int_val", _small(np.uint8)),
    types_pb2.DT_UINT16: (np.dtype(np.uint16), "int_val", _small(np.uint16)),
    types_pb2.DT_UINT32: (np.dtype(np.uint32), "uint32_val", _values(np.uint32)),
    types_pb2.DT_UINT64: (np.dtype(np.uint64), "uint64_val", _values(np.uint64)),
    types_pb2.DT_BOOL: (np.dtype(np.bool_), "bool_val", _values(np.bool_)),
    types_pb2.DT_COMPLEX64: (np.dtype(np.complex64), "scomplex_val", _complex(np.complex64)),
    types_pb2.DT_COMPLEX128: (np.dtype(np.complex128), "dcomplex_val", _complex(np.complex128)),
    types_pb2.DT_STRING: (_OBJECT, "string_val", string_array),
}
_ENUMS: dict[np.dtype[Any], int] = {dtype: enum for enum, (dtype, _, _) in _TYPES.items()}


def listed(proto: Any) -> int:
    """How many values the repeated field of a TensorProto has."""
    return len(getattr(proto, _TYPES[proto.dtype][1])) if proto.dtype in _TYPES else 0


def string_bytes(proto: Any, count: int) -> int:
    """How many bytes the strings of a TensorProto have, when the last of them stands for those that are left out."""
    if proto.dtype != types_pb2.DT_STRING:
        return 0
    if proto.tensor_content:
        return len(proto.tensor_content)
    values = proto.string_val
    repeated = max(0, count - len(values)) * len(values[-1]) if len(values) else 0
    return sum(map(len, values)) + repeated


def decode(proto: Any) -> Array:
    """The array of a TensorProto.

    Args:
        proto: A `TensorProto` from a request.

    Raises:
        ValueError: The content does not fit the shape and type, or the type is not supported.
    """
    if proto.dtype not in _TYPES:
        raise ValueError(f"the type is not supported. Received: {types_pb2.DataType.Name(proto.dtype)}")
    dtype, field, convert = _TYPES[proto.dtype]
    if proto.tensor_shape.unknown_rank:
        raise ValueError("the tensor must have a shape. Received: unknown rank")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise ValueError(f"a shape has sizes of 0 or more and at most {MAX_RANK} of them. Received: {shape[:9]}")
    count = math.prod(shape)
    if count * dtype.itemsize > MAX_TENSOR_BYTES:
        raise ValueError(f"a tensor may have at most {MAX_TENSOR_BYTES} bytes. Received: shape {shape}")
    content = proto.tensor_content
    if content and dtype == _OBJECT:
        return string_array(_split(content, count)).reshape(shape)
    if content:
        if len(content) != count * dtype.itemsize:
            raise ValueError(f"shape {shape} needs {count * dtype.itemsize} bytes. Received: {len(content)}")
        return np.frombuffer(content, dtype).reshape(shape)
    values = convert(getattr(proto, field))
    if len(values) < count:
        padded = np.empty(count, dtype)
        padded[: len(values)] = values
        padded[len(values) :] = values[-1] if len(values) else (b"" if dtype == _OBJECT else 0)
        values = padded
    return values[:count].reshape(shape)


def _split(content: bytes, count: int) -> list[bytes]:
    """The strings of a `tensor_content`. TensorFlow writes the lengths of all as varints, and then their bytes."""
    lengths, position = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if position == len(content) or shift > 28:
                raise ValueError(f"the content does not have the lengths of {count} strings")
            byte = content[position]
            length |= (byte & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(content) - position:
        raise ValueError(f"{count} strings need {sum(lengths)} bytes. Received: {len(content) - position}")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def encode(array: Array | bytes, proto: Any, as_content: bool = True) -> None:
    """Writes an array into an empty TensorProto.

    Args:
        array: An output of TensorFlow, which returns a scalar string as bytes.
        proto: The `TensorProto` to fill.
        as_content: Write raw bytes. If False, write repeated fields, like TensorFlow Serving does unless it is started
            with `--enable_serialization_as_tensor_content`.
    """
    if isinstance(array, bytes):
        array = np.array(array, object)
    proto.dtype = _ENUMS[array.dtype]
    dims = proto.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    if array.dtype == _OBJECT:
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = array.tobytes()
    else:
        _encode_field(array, proto)


def _encode_field(array: Array, proto: tensor_pb2.TensorProto) -> None:
    flat = array.ravel()
    field = _TYPES[proto.dtype][1]
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif np.iscomplexobj(flat):
        flat = flat.view(flat.real.dtype)
    getattr(proto, field).extend(flat.tolist())
