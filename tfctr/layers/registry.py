"""Layers made from a table of names and a piece of a user's configuration."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from tfctr.errors import UserError

Made = TypeVar("Made")


def arguments_of(made: type[Any]) -> list[str]:
    """The names that a configuration may use for this class, beside `type`."""
    parameters = inspect.signature(made).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def create(kind: str, table: Mapping[str, type[Made]], config: str | Mapping[str, Any]) -> Made:
    """Make the object that `config` describes.

    Args:
        kind: what is made, for the messages: `interaction`.
        table: the classes by the name that `type` selects.
        config: a name, or a mapping with `type` and arguments of the class (`name` and `dtype` are allowed too).

    Raises:
        UserError: for an unknown type or argument, with what is allowed, and for a value that the class refuses.
    """
    if isinstance(config, str):
        config = {"type": config}
    if not isinstance(config, Mapping):
        raise UserError(f"{kind}: must be a name or a mapping with `type`. Received: {config!r}")
    arguments = dict(config)
    chosen = arguments.pop("type", None)
    if not isinstance(chosen, str) or chosen not in table:
        problem = "`type` is missing" if chosen is None else f"unknown type {chosen!r}"
        raise UserError(f"{kind}: {problem}. Allowed: {', '.join(table)}")
    allowed = arguments_of(table[chosen])
    unknown = [name for name in arguments if name not in {*allowed, "name", "dtype"}]
    if unknown:
        named = ", ".join(repr(name) for name in unknown)
        raise UserError(f"{kind} {chosen}: unknown argument {named}. Allowed: {', '.join(allowed) or 'none'}")
    try:
        return table[chosen](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind} {chosen}: {error}") from error
