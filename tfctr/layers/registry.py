"""Classes by the names that a configuration uses, and objects made from a piece of a configuration."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tfctr.errors import UserError, user_errors
from tfctr.layers.export import tfctr_export

Made = TypeVar("Made")
Chosen = TypeVar("Chosen", bound=type[Any])


class Registry(dict[str, type[Made]]):
    """The classes of one kind by the name that a configuration uses, in the order in which they were registered."""

    def register(self, name: str) -> Callable[[Chosen], Chosen]:
        """Return a decorator that enters a class under a name and exports it as `tfctr_export` does.

        Raises:
            ValueError: if another class has the name.
        """

        def enter(made: Chosen) -> Chosen:
            if name in self and self[name].__qualname__ != made.__qualname__:
                raise ValueError(f"The name {name!r} is already that of {self[name].__name__}. Received: {made!r}")
            self[name] = tfctr_export(made)
            return made

        return enter

    def name_of(self, made: type[Any]) -> str:
        """Return the name of a class, or the class's own name if it is not registered."""
        return next((name for name, one in self.items() if one is made), made.__name__)


def arguments_of(made: type[Any]) -> dict[str, Any]:
    """What a configuration may set beside `type`: argument -> default, or `inspect.Parameter.empty` for none."""
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def create(
    kind: str,
    table: Mapping[str, type[Made]],
    config: str | Mapping[str, Any],
    complete: Callable[[type[Made], dict[str, Any]], dict[str, Any]] | None = None,
    other_keys: Sequence[str] = (),
    **layer_arguments: Any,
) -> Made:
    """Make the object that `config` describes.

    Args:
        kind: what is made, for the messages: `interaction`.
        table: the classes by the name that `type` selects.
        config: a name, or a mapping with `type` and arguments of the class.
        complete: gives the arguments of the class from those in `config`; a ValueError of it is reported as one of the
            constructor is.
        other_keys: what may stand in `config` too, for the message; whoever calls this has taken it out.
        **layer_arguments: arguments of `keras.layers.Layer` (`name`, `dtype`); these come from code, never from a file.

    Raises:
        UserError: for an unknown type or argument, with what is allowed, for a missing argument, and for a value that
            the class refuses.
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
    made = table[chosen]
    with user_errors(f"{kind} {chosen}"):
        if complete is not None:
            arguments = complete(made, arguments)
        _check_names(made, arguments, other_keys)
        return made(**arguments, **layer_arguments)


def without(*hidden: str) -> Callable[[type[Any], dict[str, Any]], dict[str, Any]]:
    """Return a `complete` for `create` that refuses some arguments of a class, as if it did not have them."""

    def complete(made: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
        allowed = [name for name in arguments_of(made) if name not in hidden]
        unknown = ", ".join(repr(name) for name in arguments if name not in allowed)
        if unknown:
            raise ValueError(f"unknown argument {unknown}. Allowed: {', '.join(allowed)}")
        return arguments

    return complete


def _check_names(made: type[Any], arguments: Mapping[str, Any], other_keys: Sequence[str]) -> None:
    allowed = arguments_of(made)
    unknown = ", ".join(repr(name) for name in arguments if name not in allowed)
    if unknown:
        raise ValueError(f"unknown argument {unknown}. Allowed: {', '.join([*allowed, *other_keys]) or 'none'}")
    required = [name for name, default in allowed.items() if default is inspect.Parameter.empty]
    missing = ", ".join(f"`{name}`" for name in required if name not in arguments)
    if missing:
        raise ValueError(f"{missing} must be given")
