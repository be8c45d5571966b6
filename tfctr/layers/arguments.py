"""Checks of constructor arguments: each gives the value back or raises a ValueError that names the argument."""

from collections.abc import Collection, Sequence
from typing import Any

import keras


def check_count(name: str, count: Any) -> int:
    """A positive whole number."""
    if not _is_positive(count):
        raise ValueError(f"`{name}` must be a positive whole number. Received: {count!r}")
    return int(count)


def check_units(name: str, units: Any) -> list[int]:
    """A list, which may be empty, of positive whole numbers."""
    if isinstance(units, str) or not isinstance(units, Sequence) or not all(_is_positive(unit) for unit in units):
        raise ValueError(f"`{name}` must be a list of positive whole numbers. Received: {units!r}")
    return list(units)


def check_rate(name: str, rate: Any) -> float:
    """A number from 0 up to, not including, 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.0 <= rate < 1.0:
        raise ValueError(f"`{name}` must be at least 0 and less than 1. Received: {rate!r}")
    return float(rate)


def check_flag(name: str, flag: Any) -> bool:
    """A bool and nothing that merely counts as one: a text `no` would be true."""
    if not isinstance(flag, bool):
        raise ValueError(f"`{name}` must be true or false. Received: {flag!r}")
    return flag


def check_activation(name: str, activation: Any, more: Collection[str] = ()) -> str | None:
    """The name of a Keras activation, one of `more`, or None for none."""
    if activation is None:
        return None
    if isinstance(activation, str) and (activation in more or _is_keras_activation(activation)):
        return activation
    others = "".join(f", {one}" for one in more)
    raise ValueError(f"`{name}` must be the name of a Keras activation{others} or null. Received: {activation!r}")


def _is_keras_activation(name: str) -> bool:
    try:
        keras.activations.get(name)
    except ValueError:
        return False
    return True


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
