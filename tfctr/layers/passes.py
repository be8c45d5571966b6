"""Several passes of a network over the same inputs, of which what is equal is computed once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_TOGETHER: ContextVar[int] = ContextVar("the passes that are computed together", default=1)


def passes_together() -> int:
    """How many passes the computation under way stands for: a moving statistic takes that many steps at once."""
    return _TOGETHER.get()


def draws(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers in training: among its variables is the state of a generator."""
    return len(layer.variables) > len(layer.weights)


class Passes:
    """What a tensor is in each of several passes: one value as long as no random number has made them differ.

    The passes of a loss such as Self-Ensemble differ by dropout only, so that all before the first dropout is the same
    computation in all of them. A network that is written over `Passes` does it once, and autodiff adds up the gradients
    of the passes before it goes back through it. Values, gradients, moving statistics and random numbers are those of
    `count` calls.

    Args:
        value: the tensor, which is equal in all passes.
        count: how many passes.

    Example:
        >>> x = Passes(ops.ones((4, 3)), count=2).map(ops.square)
        >>> len(x.values)
        1
        >>> len(x.through(keras.layers.Dropout(0.5), training=True).values)
        2

    Attributes:
        values: one tensor, or one a pass.
    """

    def __init__(self, value: Any, count: int = 1) -> None:
        self.count = count
        self.values = [value]

    def map(self, function: Callable[..., Any], *others: "Passes", apart: bool = False) -> "Passes":
        """Apply a function, once if all its arguments are equal in all passes.

        Args:
            others: further arguments of the function.
            apart: whether it draws random numbers, so that each pass needs a call of its own.
        """
        arguments = (self, *others)
        calls = self.count if apart else max(len(one.values) for one in arguments)
        mapped = Passes(None, self.count)
        with _together(self.count // calls):
            mapped.values = [function(*(one.values[i % len(one.values)] for one in arguments)) for i in range(calls)]
        return mapped

    def through(self, layer: keras.layers.Layer, training: bool | None = None, **arguments: Any) -> "Passes":
        """Apply a layer, once for each pass if it draws random numbers."""
        return self.map(lambda x: layer(x, training=training, **arguments), apart=bool(training) and draws(layer))

    @property
    def only(self) -> Any:
        """The value of what has one pass."""
        (value,) = self.values
        return value

    def stacked(self) -> Any:
        """The values of all passes, `[count, ...]`."""
        return ops.stack([self.values[i % len(self.values)] for i in range(self.count)])


@contextmanager
def _together(passes: int) -> Iterator[None]:
    token = _TOGETHER.set(_TOGETHER.get() * passes)
    try:
        yield
    finally:
        _TOGETHER.reset(token)
