"""The bytes of a user's state in a shared cache, with checksums and optionally in reduced precision.

A record is a header, an entry for each tensor and a CRC-32. Bytes that were not written under the same key, or that
have changed since, are rejected. Numbers are little-endian, as in tensor_content.
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
"""How floats are stored: unchanged, as float16, or as 8-bit integers with one scale for each row (the last axis)."""

FORMAT = 3
"""Number of the format. It is part of the name of a record, so that releases with different ones do not clash."""

_MAGIC = b"tfctrST%d" % FORMAT
_HEADER = struct.Struct("<8s16s16sqdH")  # magic, digests of key and history, version, time, number of tensors
_ENTRY = struct.Struct("<HBBB")  # bytes of the name, DataType, rank, encoding
_CRC = struct.Struct("<I")
_SCALE = np.dtype(np.float16)


class _Encoding(IntEnum):
    RAW = 0
    HALF = 1
    INT8 = 2


_ENCODINGS: dict[str, _Encoding] = {"float32": _Encoding.RAW, "float16": _Encoding.HALF, "int8": _Encoding.INT8}


class InvalidRecordError(Exception):
    """Bytes that are not a record of this key."""


def to_bytes(key: StateKey, state: UserState, precision: Precision = "float32") -> bytes:
    """The state as a record.

    Integers are always stored exactly, and so is a tensor with values that fewer bits cannot hold (NaN, overflow).

    Raises:
        CodecError: the state has strings, which have no raw form.
    """
    parts = [_HEADER.pack(_MAGIC, key.digest, key.history_digest, state.version, state.created, len(state.tensors))]
    for name, tensor in state.tensors.items():
        if tensor.dtype == object:
            raise CodecError(f"a state in a shared cache must have numbers only. Received: strings in '{name}'")
        encoding, content = _pack(np.ascontiguousarray(tensor), _ENCODINGS[precision])
        encoded = name.encode()
        parts.append(_ENTRY.pack(len(encoded), codec.dtype_enum(tensor.dtype), tensor.ndim, encoding))
        parts += [struct.pack(f"<{tensor.ndim}q", *tensor.shape), encoded, content]
    body = b"".join(parts)
    return body + _CRC.pack(zlib.crc32(body))


def from_bytes(key: StateKey, payload: bytes) -> UserState | None:
    """The state that `to_bytes` wrote, or `None` for a record of another history version of the user.

    Raises:
        InvalidRecordError: the record has another key, or some of its bytes are changed or missing.
    """
    body, tail = payload[: -_CRC.size], payload[-_CRC.size :]
    if len(body) < _HEADER.size or _CRC.unpack(tail)[0] != zlib.crc32(body):
        raise InvalidRecordError("bytes are changed or missing")
    magic, digest, history, version, created, count = _HEADER.unpack_from(body)
    if magic != _MAGIC or digest != key.digest or version != key.version:
        raise InvalidRecordError("written under another key or by another release")
    if history != key.history_digest:
        return None
    tensors = {}
    at = _HEADER.size
    try:
        for _ in range(count):
            name_size, enum, rank, encoding = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            shape = struct.unpack_from(f"<{rank}q", body, at)
            at += 8 * rank
            name = body[at : at + name_size].decode()
            at += name_size
            tensors[name], at = _unpack(body, at, shape, codec.DTYPES[enum][0], _Encoding(encoding))
    except (struct.error, KeyError, ValueError, OverflowError) as error:
        raise InvalidRecordError("written by another release") from error  # the bytes are intact: the CRC is right
    if at != len(body):
        raise InvalidRecordError("written by another release")
    return UserState(key.model, version, key.fingerprint, tensors, created)


def _pack(tensor: Array, wanted: _Encoding) -> tuple[_Encoding, bytes]:
    if wanted is _Encoding.RAW or tensor.dtype.kind != "f" or tensor.ndim == 0:
        return _Encoding.RAW, tensor.tobytes()
    if wanted is _Encoding.HALF:
        with np.errstate(over="ignore"):
            half = tensor.astype(np.float16)
        return (_Encoding.HALF, half.tobytes()) if np.isfinite(half).all() else (_Encoding.RAW, tensor.tobytes())
    values = tensor.astype(np.float32)
    wanted_scales = np.abs(values).max(axis=-1, keepdims=True, initial=0) / np.float32(127)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = wanted_scales.astype(_SCALE)
        # Rounded up, so that the largest value of a row is not above the largest code.
        scales = np.where(scales < wanted_scales, np.nextafter(scales, _SCALE.type(np.inf)), scales)
        codes = np.rint(np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)).astype(np.int8)
        if not np.isfinite(_from_codes(codes, scales, tensor.dtype)).all():
            return _Encoding.RAW, tensor.tobytes()
    return _Encoding.INT8, scales.tobytes() + codes.tobytes()


def _from_codes(codes: Array, scales: Array, dtype: np.dtype[Any]) -> Array:
    return (codes * scales.astype(np.float32)).astype(dtype)


def _unpack(
    body: bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any], encoding: _Encoding
) -> tuple[Array, int]:
    """A tensor, and the position of the next entry."""
    size = math.prod(shape)
    if encoding is _Encoding.RAW:
        return np.frombuffer(body, dtype, size, at).reshape(shape), at + size * dtype.itemsize
    if encoding is _Encoding.HALF:
        half = np.frombuffer(body, np.float16, size, at)
        return half.reshape(shape).astype(dtype), at + 2 * size
    rows = math.prod(shape[:-1])
    scales = np.frombuffer(body, _SCALE, rows, at).reshape(*shape[:-1], 1)
    at += rows * _SCALE.itemsize
    codes = np.frombuffer(body, np.int8, size, at).reshape(shape)
    return _from_codes(codes, scales, dtype), at + size
