"""NumPy arrays to and from TensorFlow's TensorProto, without TensorFlow.

Written: raw little-endian `tensor_content`, the cheapest form; strings, which have no raw form in numpy, as
`string_val`. Read: both forms, since a server sends repeated fields unless it is told otherwise
(`--enable_serialization_as_tensor_content`), half precision as `half_val`, and the splat form in which the last value
given stands for all that follow.
"""

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfctr.client.errors import CodecError
from tfctr.client.protos import wire_pb2 as wire

Array = NDArray[Any]

#: DataType -> (numpy type, the repeated field that holds its values).
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

#: A reply may name any shape in a few bytes; more elements than this (1 GiB of float32) are refused before allocation.
MAX_ELEMENTS = 1 << 28

if sys.byteorder != "little":
    raise ImportError("tfctr.client needs a little-endian machine: tensor_content on the wire is little-endian")


def dtype_name(enum: int) -> str:
    """Name of a wire DataType for messages: `int64`, `string`, `DT_RESOURCE (20)`."""
    if enum == wire.DT_STRING:
        return "string"
    if enum in DTYPES:
        return str(DTYPES[enum][0])
    return f"DataType {enum}"


def dtype_enum(dtype: np.dtype[Any]) -> int:
    """DataType number of a numpy type.

    Raises:
        CodecError: it has no counterpart on the wire.
    """
    dtype = np.dtype(np.object_) if dtype.kind == "S" else dtype.newbyteorder("=")
    if dtype not in _ENUMS:
        raise CodecError(f"cannot send an array of {dtype}. Allowed: {_allowed()}.")
    return _ENUMS[dtype]


def encode(array: Array, out: wire.TensorProto | None = None) -> wire.TensorProto:
    """Writes an array as a TensorProto.

    Args:
        array: any of the types of `DTYPES`; strings as an object array of bytes (`S` arrays are taken too).
        out: message to fill (an entry of a request's map); a new one by default.

    Raises:
        CodecError: the type has no counterpart on the wire, or a string element is not bytes.
    """
    proto = wire.TensorProto() if out is None else out
    enum = dtype_enum(array.dtype)
    proto.dtype = enum  # type: ignore[assignment]  # the stub wants the enum's name, the runtime takes numbers
    dims = proto.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    if enum == wire.DT_STRING:
        try:
            proto.string_val.extend(array.ravel().tolist())
        except TypeError as error:
            raise CodecError(f"a string tensor must hold bytes only: {error}") from error
    else:
        proto.tensor_content = np.asarray(array, DTYPES[enum][0]).tobytes()
    return proto


def decode(proto: wire.TensorProto, name: str = "tensor") -> Array:
    """Reads a TensorProto into an array (read-only when it shares the message's bytes).

    Args:
        proto: either form: `tensor_content`, or repeated values, where the last one fills what is not given.
        name: what to call the tensor in an error.

    Raises:
        CodecError: unsupported type, bad shape, or bytes that do not match the shape.
    """
    if proto.dtype not in DTYPES:
        raise CodecError(f"{name}: {dtype_name(proto.dtype)} is not supported. Allowed: {_allowed()}.")
    dtype, field = DTYPES[proto.dtype]
    shape = _shape(proto, name)
    size = math.prod(shape)
    if proto.tensor_content:
        if proto.dtype == wire.DT_STRING:
            return _object_array(_string_list(proto.tensor_content, size, name), shape)
        if len(proto.tensor_content) != size * dtype.itemsize:
            raise CodecError(
                f"{name}: {len(proto.tensor_content)} bytes of content for shape {list(shape)} of {dtype} "
                f"({size * dtype.itemsize} bytes)."
            )
        content = np.frombuffer(proto.tensor_content, dtype)
        if dtype == np.bool_ and content.view(np.uint8).max(initial=0) > 1:
            raise CodecError(f"{name}: a bool that is neither 0 nor 1.")
        return content.reshape(shape)
    values = getattr(proto, field)
    if len(values) > size:
        raise CodecError(f"{name}: {len(values)} values for shape {list(shape)}.")
    if proto.dtype == wire.DT_STRING:
        given = list(values)
        return _object_array(given + [given[-1] if given else b""] * (size - len(given)), shape)
    return _fill(_numbers(values, dtype, name), shape, size)


def _numbers(values: Any, dtype: np.dtype[Any], name: str) -> Array:
    """The repeated field as an array of `dtype`; halves come as the int32 of their bits."""
    if dtype == np.float16:
        bits = np.array(values, np.int64)
        if bits.size and (bits.min() < 0 or bits.max() > 0xFFFF):
            raise CodecError(f"{name}: half_val holds a number that is not 16 bits.")
        return bits.astype(np.uint16).view(np.float16)
    try:
        return np.array(values, dtype)
    except OverflowError as error:
        raise CodecError(f"{name}: a value does not fit {dtype}: {error}") from error


def _fill(given: Array, shape: tuple[int, ...], size: int) -> Array:
    if given.size == size:
        return given.reshape(shape)
    full = np.empty(size, given.dtype)
    full[: given.size] = given
    full[given.size :] = given[-1] if given.size else 0
    return full.reshape(shape)


def _shape(proto: wire.TensorProto, name: str) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise CodecError(f"{name}: a tensor without a shape.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise CodecError(f"{name}: shape {list(shape)} has a negative size.")
    if len(shape) > 64 or math.prod(shape) > MAX_ELEMENTS:
        raise CodecError(f"{name}: shape {list(shape)} is past the limit of {MAX_ELEMENTS} elements and rank 64.")
    return shape


def _object_array(values: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _string_list(content: bytes, size: int, name: str) -> list[bytes]:
    """Strings in `tensor_content`: all lengths as varints, then all the bytes."""
    lengths = []
    at = 0
    for _ in range(size):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise CodecError(f"{name}: string content is cut short.")
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise CodecError(f"{name}: string content of {len(content)} bytes, {at + sum(lengths)} announced.")
    values = []
    for length in lengths:
        values.append(content[at : at + length])
        at += length
    return values


def _allowed() -> str:
    return ", ".join(dtype_name(enum) for enum in DTYPES)
