"""What a key of the experiment may become in a search. A new kind of space is one class with `@space`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import keras_tuner
from pydantic import BeforeValidator, Field, model_validator

from tfctr.features.yaml_file import OneOf, Strict, registered_name

_DIGITS = 6
"""Significant digits of a number that is drawn from a range: more tell no model from another."""

Settings = dict[str, Any]
"""Values by the paths of their keys."""


class Space(Strict):
    """A space of one searched key, or of several that vary together."""

    SPACES: ClassVar[dict[str, type[Space]]] = {}

    @abstractmethod
    def parameter(self, name: str) -> Any:
        """The parameter that an oracle of keras-tuner chooses a value of."""

    @abstractmethod
    def settings(self, name: str, proposed: Any) -> Settings:
        """The settings that a value of the parameter stands for."""

    @abstractmethod
    def tried(self, name: str) -> list[Settings]:
        """The settings that are tried before a search begins: all of a list, the ends of a range."""

    @abstractmethod
    def paths(self, name: str) -> list[str]:
        """The paths of the keys that are varied."""

    @property
    @abstractmethod
    def count(self) -> int | None:
        """How many values there are, or None where they can't be counted."""


_Made = TypeVar("_Made", bound=type[Space])


def space(made: _Made) -> _Made:
    """Registers a kind of space under the value of its `type`."""
    Space.SPACES[registered_name(made, "type")] = made
    return made


class _Counted(Space):
    """A space whose values stand in an order, of which the oracle chooses a place."""

    @abstractmethod
    def values(self) -> Sequence[Any]:
        """All values."""

    def parameter(self, name: str) -> Any:
        """The place of a value."""
        return keras_tuner.engine.hyperparameters.Int(name, 0, len(self.values()) - 1)

    def settings(self, name: str, proposed: Any) -> Settings:
        """The value at a place."""
        return {name: self.values()[int(proposed)]}

    def tried(self, name: str) -> list[Settings]:
        """All values."""
        return [self.settings(name, place) for place in range(len(self.values()))]

    def paths(self, name: str) -> list[str]:
        """The key."""
        return [name]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values())


@space
class Choice(_Counted):
    """One of a list of values of any form. In a plan, the list alone stands for it."""

    type: Literal["choice"]
    choices: tuple[Any, ...] = Field(min_length=1, description="values of any form, mappings too")

    def values(self) -> Sequence[Any]:
        """The list."""
        return self.choices


@space
class Together(_Counted):
    """Several keys that vary together. The name in the plan is that of the space, and of no key."""

    type: Literal["together"]
    choices: tuple[Annotated[dict[str, Any], Field(min_length=1)], ...] = Field(
        min_length=1, description="mappings, each from the paths of the same keys to their values"
    )

    @model_validator(mode="after")
    def _same_keys(self) -> Self:
        first = set(self.choices[0])
        for number, one in enumerate(self.choices):
            if set(one) != first:
                raise ValueError(f"choices.{number}: must have the keys of the first: {', '.join(sorted(first))}")
        return self

    def values(self) -> Sequence[Any]:
        """The mappings."""
        return self.choices

    def settings(self, name: str, proposed: Any) -> Settings:
        """The mapping at a place."""
        return dict(self.choices[int(proposed)])

    def paths(self, name: str) -> list[str]:
        """The keys of the mappings."""
        return list(self.choices[0])


class _Range(Space):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    step: float | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _has_an_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"`low` must be below `high`. Received: {self.low} and {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"`low` must be above 0 on a log scale. Received: {self.low}")
        least = 1 if self.scale == "log" else 0
        if self.step is not None and self.step <= least:
            about = "a factor above 1 on a log scale" if least else "above 0"
            raise ValueError(f"`step` must be {about}. Received: {self.step}")
        return self

    @abstractmethod
    def number(self, value: float) -> Any:
        """A number as it stands in an experiment file."""

    @abstractmethod
    def between(self, name: str) -> Any:
        """The parameter of a range without a step."""

    def parameter(self, name: str) -> Any:
        """A number, or the number of the step."""
        count = self.count
        return self.between(name) if count is None else keras_tuner.engine.hyperparameters.Int(name, 0, count - 1)

    def settings(self, name: str, proposed: Any) -> Settings:
        """The number."""
        if self.step is None:
            return {name: self.number(proposed)}
        at = self.low * self.step**proposed if self.scale == "log" else self.low + self.step * proposed
        return {name: self.number(at)}

    def tried(self, name: str) -> list[Settings]:
        """The ends."""
        return [{name: self.number(self.low)}, {name: self.number(self.high)}]

    def paths(self, name: str) -> list[str]:
        """The key."""
        return [name]

    @property
    def count(self) -> int | None:
        """How many steps there are."""
        if self.step is None:
            return None
        wide = math.log(self.high / self.low, self.step) if self.scale == "log" else (self.high - self.low) / self.step
        return int(wide + 1e-9) + 1


@space
class FloatRange(_Range):
    """Numbers between two, any of them or those of a step; on a log scale the step is a factor."""

    type: Literal["float"]

    def number(self, value: float) -> float:
        """The number, with as many digits as matter."""
        return float(f"{value:.{_DIGITS}g}")

    def between(self, name: str) -> Any:
        """Any number."""
        return keras_tuner.engine.hyperparameters.Float(name, self.low, self.high, sampling=self.scale)


@space
class IntRange(_Range):
    """Whole numbers between two, all of them or those of a step; on a log scale the step is a factor."""

    type: Literal["int"]
    low: int
    high: int

    def number(self, value: float) -> int:
        """The nearest whole number."""
        return round(value)

    def between(self, name: str) -> Any:
        """Any whole number."""
        return keras_tuner.engine.hyperparameters.Int(name, self.low, self.high, sampling=self.scale)

    @property
    def count(self) -> int | None:
        """How many numbers there are; on a log scale without a step they are drawn, and not counted."""
        if self.step is None and self.scale == "linear":
            return self.high - self.low + 1
        return super().count

    def settings(self, name: str, proposed: Any) -> Settings:
        """The number."""
        if self.step is None and self.scale == "linear":
            return {name: self.low + int(proposed)}
        return super().settings(name, proposed)


def _written_out(value: Any) -> Any:
    return {"type": "choice", "choices": value} if isinstance(value, list | tuple) else value


AnySpace = Annotated[Any, OneOf(Space.SPACES, "type"), BeforeValidator(_written_out)]
"""A space as a plan holds it: a list, or a mapping with `type`."""


def in_order(paths: Mapping[str, Any]) -> list[str]:
    """Paths in the order in which they are set: a key before those below it."""
    return sorted(paths, key=lambda path: path.count("."))
