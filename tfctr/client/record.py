"""The form of a user's state in a shared cache: checked bytes, whole or in fewer bits.

A record is a header, an entry for each tensor and a CRC-32. Whatever is not exactly what was put there under this key
is no record. Numbers are little-endian, as on the wire.
"""

import math
import struct
import zlib
from enum import IntEnum
from typing import Any, Literal

import numpy as np

from tfctr.client import codec
from tfctr.client.codec import Array
from tfctr.client.errors import CodecError
from tfctr.client.state import StateKey, UserState

Precision = Literal["float32", "float16", "int8"]
"""How floats are kept: as they are, as halves, or as 8-bit integers with one scale a row (the last axis)."""

_MAGIC = b"tfctrST2"
_HEADER = struct.Struct("<8s16s16sqH")  # magic, digests of the key and of the history, version, number of tensors
_ENTRY = struct.Struct("<HBBB")  # bytes of the name, DataType, rank, form
_CRC = struct.Struct("<I")
_SCALE = np.dtype(np.float16)


class _Form(IntEnum):
    RAW = 0
    HALF = 1
    INT8 = 2


_FORMS: dict[str, _Form] = {"float32": _Form.RAW, "float16": _Form.HALF, "int8": _Form.INT8}


class GarbageError(Exception):
    """Bytes that are not a record of this key."""


def to_bytes(key: StateKey, state: UserState, precision: Precision = "float32") -> bytes:
    """The state as a record. Integers are always exact; so are floats that fewer bits cannot hold (NaN, overflow).

    Raises:
        CodecError: a tensor that has no raw form (strings).
    """
    parts = [_HEADER.pack(_MAGIC, key.digest, key.history_digest, state.version, len(state.tensors))]
    for name, tensor in state.tensors.items():
        if tensor.dtype == object:
            raise CodecError(f"state '{name}' is made of strings, which a shared cache cannot hold.")
        form, content = _pack(np.ascontiguousarray(tensor), _FORMS[precision])
        encoded = name.encode()
        parts.append(_ENTRY.pack(len(encoded), codec.dtype_enum(tensor.dtype), tensor.ndim, form))
        parts += [struct.pack(f"<{tensor.ndim}q", *tensor.shape), encoded, content]
    body = b"".join(parts)
    return body + _CRC.pack(zlib.crc32(body))


def from_bytes(key: StateKey, payload: bytes) -> UserState | None:
    """Reads what `to_bytes` wrote; `None` for a record of another history version of the user.

    Raises:
        GarbageError: anything else, such as a record of another key, or a cut or flipped byte.
    """
    body, tail = payload[: -_CRC.size], payload[-_CRC.size :]
    if len(body) < _HEADER.size or _CRC.unpack(tail)[0] != zlib.crc32(body):
        raise GarbageError("cut, or a byte is wrong")
    magic, digest, history, version, count = _HEADER.unpack_from(body)
    if magic != _MAGIC or digest != key.digest or version != key.version:
        raise GarbageError("of another key or release")
    if history != key.history_digest:
        return None
    tensors = {}
    at = _HEADER.size
    try:
        for _ in range(count):
            name_size, enum, rank, form = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            shape = struct.unpack_from(f"<{rank}q", body, at)
            at += 8 * rank
            name = body[at : at + name_size].decode()
            at += name_size
            tensors[name], at = _unpack(body, at, shape, codec.DTYPES[enum][0], _Form(form))
    except (struct.error, KeyError, ValueError) as error:
        raise GarbageError("of another release") from error  # the CRC holds
    if at != len(body):
        raise GarbageError("of another release")
    return UserState(key.model, version, key.fingerprint, tensors)


def _pack(tensor: Array, wanted: _Form) -> tuple[_Form, bytes]:
    if wanted is _Form.RAW or tensor.dtype.kind != "f" or tensor.ndim == 0:
        return _Form.RAW, tensor.tobytes()
    if wanted is _Form.HALF:
        with np.errstate(over="ignore"):
            half = tensor.astype(np.float16)
        return (_Form.HALF, half.tobytes()) if np.isfinite(half).all() else (_Form.RAW, tensor.tobytes())
    values = tensor.astype(np.float32)
    wanted_scales = np.abs(values).max(axis=-1, keepdims=True, initial=0) / np.float32(127)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = wanted_scales.astype(_SCALE)
        # Rounded up, so that the largest value of a row still has a code.
        scales = np.where(scales < wanted_scales, np.nextafter(scales, _SCALE.type(np.inf)), scales)
        codes = np.rint(np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)).astype(np.int8)
        if not np.isfinite(_from_codes(codes, scales, tensor.dtype)).all():
            return _Form.RAW, tensor.tobytes()
    return _Form.INT8, scales.tobytes() + codes.tobytes()


def _from_codes(codes: Array, scales: Array, dtype: np.dtype[Any]) -> Array:
    return (codes * scales.astype(np.float32)).astype(dtype)


def _unpack(body: bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any], form: _Form) -> tuple[Array, int]:
    """A tensor, and where the next entry begins."""
    size = math.prod(shape)
    if form is _Form.RAW:
        return np.frombuffer(body, dtype, size, at).reshape(shape), at + size * dtype.itemsize
    if form is _Form.HALF:
        half = np.frombuffer(body, np.float16, size, at)
        return half.reshape(shape).astype(dtype), at + 2 * size
    rows = math.prod(shape[:-1])
    scales = np.frombuffer(body, _SCALE, rows, at).reshape(*shape[:-1], 1)
    at += rows * _SCALE.itemsize
    codes = np.frombuffer(body, np.int8, size, at).reshape(shape)
    return _from_codes(codes, scales, dtype), at + size
