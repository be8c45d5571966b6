"""Python and numpy values of features to the arrays a signature takes."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfctr.client import codec
from tfctr.client.codec import Array
from tfctr.client.errors import BadRequestError, UnsupportedModelError
from tfctr.client.metadata import TensorSpec
from tfctr.client.protos import wire_pb2 as wire

SEPARATOR = "|"
"""Joins the tokens of a multi-valued feature, unless the feature file says otherwise."""

_MISSING: dict[int, Any] = {wire.DT_STRING: b"", wire.DT_INT64: -(2**63), wire.DT_FLOAT: float("nan")}
_KINDS: dict[int, str] = {wire.DT_INT64: "iub", wire.DT_FLOAT: "fiub"}
_EXPECTED: dict[int, str] = {
    wire.DT_INT64: "an integer",
    wire.DT_FLOAT: "a number",
    wire.DT_STRING: "a string (str or bytes), or a list of them for a multi-valued feature",
}


def missing(spec: TensorSpec) -> Any:
    """The value that stands for "missing" in an input; the graph fills the declared default in.

    Raises:
        UnsupportedModelError: the input has a type that raw features never have.
    """
    if spec.dtype not in _MISSING:
        raise UnsupportedModelError(
            f"the served model's input '{spec.name}' is {codec.dtype_name(spec.dtype)}; raw features are "
            f"{', '.join(codec.dtype_name(d) for d in _MISSING)}."
        )
    return _MISSING[spec.dtype]


def column(spec: TensorSpec, values: Iterable[Any], where: str, separator: str = SEPARATOR) -> Array:
    """A list of values as a one-dimensional array of the input's type.

    Args:
        spec: the input.
        values: one a row; `None` is missing; a list or tuple of strings is joined by the separator.
        where: what to call a value in a message; "#" becomes its row: `candidates[#].year`.
        separator: joins the tokens of a multi-valued feature.

    Raises:
        BadRequestError: a value of a type the input does not take, or an integer past 64 bits.
    """
    absent = missing(spec)
    if spec.dtype == wire.DT_STRING:
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
        plain = set(map(type, values))
        if plain == {bytes}:
            return _objects(values)
        if plain == {str}:
            with contextlib.suppress(UnicodeEncodeError):  # the slow road says where
                return _objects([value.encode() for value in values])
        return _objects([_string(spec, value, where, row, separator.encode()) for row, value in enumerate(values)])
    dtype = codec.DTYPES[spec.dtype][0]
    if not isinstance(values, np.ndarray):
        values = list(values)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    # Unsigned values of 64 bits need not fit an int64; they take the slow road, which says so.
    if array.ndim == 1 and array.dtype.kind in _KINDS[spec.dtype] and array.dtype != np.uint64:
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    rows = values.tolist() if isinstance(values, np.ndarray) else values
    return np.array([absent if v is None else _number(spec, v, where, row) for row, v in enumerate(rows)], dtype)


def _number(spec: TensorSpec, value: Any, where: str, row: int) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int):
        if spec.dtype == wire.DT_INT64 and not -(2**63) <= value < 2**63:
            place = where.replace("#", str(row))
            raise BadRequestError(f"{place}: {value} does not fit 64 bits. Hash such ids, or cut them.")
        if spec.dtype == wire.DT_FLOAT:
            return float(value)
        return int(value)
    if isinstance(value, float) and spec.dtype == wire.DT_FLOAT:
        return value
    raise _wrong(spec, value, where, row)


def _string(spec: TensorSpec, value: Any, where: str, row: int, separator: bytes) -> bytes:
    if isinstance(value, str):
        return _utf8(value, where, row)
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, np.ndarray):
        value = value.tolist()
        return _string(spec, value, where, row, separator)
    if isinstance(value, list | tuple):
        tokens = []
        for token in value:
            if not isinstance(token, str | bytes):
                raise _wrong(spec, token, where, row)
            token = _utf8(token, where, row) if isinstance(token, str) else token
            if separator in token:
                place = where.replace("#", str(row))
                raise BadRequestError(
                    f"{place}: the token {token!r} holds '{separator.decode()}', which separates tokens. "
                    "Give either a list of single tokens or one joined string."
                )
            tokens.append(token)
        return separator.join(tokens)
    raise _wrong(spec, value, where, row)


def _utf8(value: str, where: str, row: int) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{where.replace('#', str(row))}: not valid text ({error}).") from None


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _wrong(spec: TensorSpec, value: Any, where: str, row: int) -> BadRequestError:
    text = repr(value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return BadRequestError(
        f"{where.replace('#', str(row))} must be {_EXPECTED[spec.dtype]}. Received: {text} ({type(value).__name__})"
    )
