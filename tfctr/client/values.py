"""Conversion of feature values to the arrays that a signature takes."""

import contextlib
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfctr.client import codec
from tfctr.client.codec import Array
from tfctr.client.errors import BadRequestError, UnsupportedModelError
from tfctr.client.metadata import TensorSpec
from tfctr.client.protos import wire_pb2 as wire

SEPARATOR = "|"
"""Separates the tokens of a multi-valued feature, unless a feature file declares another separator."""

_MISSING: dict[int, Any] = {wire.DT_STRING: b"", wire.DT_INT64: -(2**63), wire.DT_FLOAT: float("nan")}
_KINDS: dict[int, str] = {wire.DT_INT64: "iub", wire.DT_FLOAT: "fiu"}
_PAST_FLOAT32 = 2.0**128 - 2.0**103
"""The least number that rounds to infinity as float32."""

_EXPECTED: dict[int, str] = {
    wire.DT_INT64: "an integer",
    wire.DT_FLOAT: "a number",
    wire.DT_STRING: "a string (str or bytes), or a list of them for a multi-valued feature",
}


def missing(spec: TensorSpec) -> Any:
    """The value that marks a missing feature in an input. The graph replaces it by the declared default.

    Raises:
        UnsupportedModelError: the input has a type that no raw feature has.
    """
    if spec.dtype not in _MISSING:
        raise UnsupportedModelError(
            f"the served model's input '{spec.name}' must be one of {', '.join(map(codec.dtype_name, _MISSING))}. "
            f"Received: {codec.dtype_name(spec.dtype)}"
        )
    return _MISSING[spec.dtype]


def column(spec: TensorSpec, values: Iterable[Any], where: str, separator: str = SEPARATOR) -> Array:
    """Values as a one-dimensional array of the type of an input.

    Args:
        spec: the input.
        values: one value for each row. `None` is a missing value. Lists and tuples of strings are joined.
        where: the name of a value in messages, in which "#" stands for the row: `candidates[#].year`.
        separator: separates the tokens of a multi-valued feature.

    Raises:
        BadRequestError: a value has a type that the input does not take, an integer does not fit 64 bits, or a float is
            infinite or does not fit float32.
    """
    absent = missing(spec)
    if spec.dtype == wire.DT_STRING:
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
        plain = set(map(type, values))
        if plain == {bytes}:
            return codec.string_array(values)
        if plain == {str}:
            with contextlib.suppress(UnicodeEncodeError):  # below, each value is converted alone and its row named
                return codec.string_array([value.encode() for value in values])
        encoded = separator.encode()
        return codec.string_array([_string(spec, v, _at(where, row), encoded) for row, v in enumerate(values)])
    dtype = codec.DTYPES[spec.dtype][0]
    mixed = False
    if not isinstance(values, np.ndarray):
        values = list(values)
        # NumPy would make 1.0 of a True among numbers.
        mixed = spec.dtype == wire.DT_FLOAT and not {bool, np.bool_}.isdisjoint(map(type, values))
    try:
        array = np.empty(0, object) if mixed else np.asarray(values)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    # Unsigned 64-bit values may not fit an int64. Below, each value is converted alone and its row named.
    if array.ndim == 1 and array.dtype.kind in _KINDS[spec.dtype] and array.dtype != np.uint64:
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if spec.dtype != wire.DT_FLOAT or not np.isinf(converted).any():
            return converted
    rows = values.tolist() if isinstance(values, np.ndarray) else values
    return np.array([absent if v is None else _number(spec, v, _at(where, row)) for row, v in enumerate(rows)], dtype)


def _at(where: str, row: int) -> str:
    return where.replace("#", str(row))


def _number(spec: TensorSpec, value: Any, where: str) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, bool | int):
        if spec.dtype == wire.DT_INT64 and not -(2**63) <= value < 2**63:
            raise BadRequestError(f"{where} must fit 64 bits; hash or shorten such ids. Received: {shown(value)}")
        if spec.dtype == wire.DT_INT64:
            return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and spec.dtype == wire.DT_FLOAT:
        if abs(value) >= _PAST_FLOAT32:
            raise BadRequestError(f"{where} must be a finite float32 number. Received: {shown(value)}")
        return float(value)
    raise _wrong(spec, value, where)


def _string(spec: TensorSpec, value: Any, where: str, separator: bytes) -> bytes:
    if isinstance(value, str):
        return _utf8(value, where)
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, np.ndarray):
        return _string(spec, value.tolist(), where, separator)
    if isinstance(value, list | tuple):
        tokens = []
        for token in value:
            if not isinstance(token, str | bytes):
                raise _wrong(spec, token, where)
            token = _utf8(token, where) if isinstance(token, str) else token
            if separator in token:
                raise BadRequestError(
                    f"{where}: a token in a list must not contain the separator '{separator.decode()}'. "
                    f"Give either a list of single tokens or one joined string. Received: {token!r}"
                )
            tokens.append(token)
        return separator.join(tokens)
    raise _wrong(spec, value, where)


def _utf8(value: str, where: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{where} must be valid text. Received: {error}") from None


def shown(value: Any) -> str:
    """A value in a message, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not write out an integer of more than 4300 digits
        return "an integer of thousands of digits"


def _wrong(spec: TensorSpec, value: Any, where: str) -> BadRequestError:
    received = f"{shown(value)} ({type(value).__name__})"
    return BadRequestError(f"{where} must be {_EXPECTED[spec.dtype]}. Received: {received}")
