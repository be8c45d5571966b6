"""Checks of constructor arguments: each gives the value back or raises a ValueError that names the argument."""

import sys
from collections.abc import Collection, Hashable, Sequence
from typing import Any, TypeVar

import keras

Choice = TypeVar("Choice")


def check_count(name: str, count: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        wanted = "a positive whole number" if least == 1 else f"a whole number of at least {least}"
        raise ValueError(f"`{name}` must be {wanted}. Received: {count!r}")
    return int(count)


def check_optional_count(name: str, count: Any) -> int | None:
    """A positive whole number or None."""
    return None if count is None else check_count(name, count)


def check_units(name: str, units: Any) -> list[int]:
    """A list, which may be empty, of positive whole numbers."""
    if isinstance(units, str) or not isinstance(units, Sequence) or not all(_is_positive(unit) for unit in units):
        raise ValueError(f"`{name}` must be a list of positive whole numbers. Received: {units!r}")
    return list(units)


def check_number(name: str, number: Any) -> float:
    """A finite number."""
    if not _is_number(number):
        raise ValueError(f"`{name}` must be a finite number. Received: {number!r}")
    return float(number)


def check_rate(name: str, rate: Any) -> float:
    """A number from 0 up to, not including, 1."""
    if not _is_number(rate) or not 0.0 <= rate < 1.0:
        raise ValueError(f"`{name}` must be at least 0 and less than 1. Received: {rate!r}")
    return float(rate)


def check_positive(name: str, number: Any) -> float:
    """A number above 0."""
    if not _is_number(number) or not number > 0.0:
        raise ValueError(f"`{name}` must be a positive number. Received: {number!r}")
    return float(number)


def check_not_negative(name: str, number: Any) -> float:
    """A number of at least 0."""
    if not _is_number(number) or not number >= 0.0:
        raise ValueError(f"`{name}` must be a number of at least 0. Received: {number!r}")
    return float(number)


def check_flag(name: str, flag: Any) -> bool:
    """A bool. Other values are refused, since the text `no` would count as true."""
    if not isinstance(flag, bool):
        raise ValueError(f"`{name}` must be true or false. Received: {flag!r}")
    return flag


def check_choice(name: str, choice: Choice, allowed: Collection[Any]) -> Choice:
    """One of the allowed values."""
    if not isinstance(choice, Hashable) or choice not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, allowed))}. Received: {choice!r}")
    return choice


def check_names(name: str, names: Any, what: str) -> tuple[str, ...]:
    """One name or several different ones; `what` says of what."""
    found = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not found or not all(isinstance(one, str) and one for one in found) or len(set(found)) < len(found):
        raise ValueError(f"`{name}` must name one {what} or a list of different ones. Received: {names!r}")
    return found


def check_heads(width: int, heads: int) -> int:
    """The width of the events, which the heads must divide."""
    if width % heads:
        raise ValueError(f"`num_heads` must divide the width of the events, {width}. Received: {heads}")
    return width


def check_attention_dim(width: Any, heads: int) -> int | None:
    """The width of an attention over all heads, which they must divide, or None."""
    if width is not None and check_count("attention_dim", width) % heads:
        raise ValueError(f"`attention_dim` must be a multiple of `num_heads`, {heads}. Received: {width}")
    return check_optional_count("attention_dim", width)


def check_activation(name: str, activation: Any, more: Collection[str] = ()) -> str | None:
    """The name of a Keras activation, one of `more`, or None for none."""
    if activation is None:
        return None
    if isinstance(activation, str) and (activation in more or _is_keras_activation(activation)):
        return activation
    others = "".join(f", {one}" for one in more)
    raise ValueError(f"`{name}` must be the name of a Keras activation{others} or null. Received: {activation!r}")


def check_keras(name: str, value: Any, kind: str) -> Any:
    """A Keras object of a kind, `initializer` or `regularizer`, from its name or configuration; None stays None."""
    try:
        return getattr(keras, f"{kind}s").get(value)
    except (KeyError, TypeError, ValueError) as error:
        allowed = f"a Keras {kind}, or the name or the configuration of one, or null"
        raise ValueError(f"`{name}` must be {allowed}. Received: {value!r}") from error


def _is_keras_activation(name: str) -> bool:
    try:
        keras.activations.get(name)
    except ValueError:
        return False
    return True


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    # A whole number may be too large for a float; no comparison with NaN holds.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
