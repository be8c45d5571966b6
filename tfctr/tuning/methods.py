"""How a search proposes its trials: oracles of keras-tuner. A new method is one class with `@method`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import keras_tuner
from pydantic import BeforeValidator, Field

from tfctr.features.yaml_file import OneOf, Strict, registered_name
from tfctr.models.config import as_mapping
from tfctr.tuning.spaces import Space

_NEVER = 2**31
"""So many failed trials in a row end a search: a failed trial says something of its values alone."""
_DRAWS, _UNCOUNTED = 50, 1000
"""An oracle draws again where a trial had the values, and takes all for drawn after so many draws for each combination:
the last one that is left is missed once in e^50 times. Whole numbers on a log scale count as so many combinations."""


class Method(Strict):
    """A method with its options. It can say what a proposal of its oracle asks for beside the values."""

    METHODS: ClassVar[dict[str, type[Method]]] = {}
    GROWS: ClassVar[frozenset[str]] = frozenset()
    """Options that may grow in a search that has begun."""
    GOES_ON: ClassVar[bool] = False
    """Whether a trial may go on from an earlier one, whose checkpoints are kept until the search ends."""
    SETS: ClassVar[frozenset[str]] = frozenset()
    """Keys of the experiment that the method sets itself."""

    type: str

    def check(self, spaces: Mapping[str, Space], epochs: int) -> None:
        """Checks that the method can search the spaces.

        Raises:
            ValueError: what it needs.
        """

    @abstractmethod
    def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
        """The oracle.

        Args:
            epochs: The experiment's.
            common: The arguments that all oracles have.
        """

    @abstractmethod
    def total(self, combinations: int | None, epochs: int) -> int | None:
        """At most how many trials there will be, or None where that is not known."""

    def epochs_of(self, proposed: Mapping[str, Any]) -> int | None:
        """The epochs that a proposal asks for, or None for the experiment's."""
        return None

    def parent_of(self, proposed: Mapping[str, Any]) -> int | None:
        """The number of the trial that a proposal goes on from, if it does."""
        return None


_Made = TypeVar("_Made", bound=type[Method])


def method(made: _Made) -> _Made:
    """Registers a method under the value of its `type`."""
    Method.METHODS[registered_name(made, "type")] = made
    return made


def make_oracle(chosen: Method, spaces: Mapping[str, Space], rising: bool, seed: int, epochs: int) -> Any:
    """The oracle of a method over some spaces.

    Args:
        chosen: The method.
        spaces: The spaces by name.
        rising: Whether more of the objective is better.
        seed: The seed of what it draws.
        epochs: The experiment's.
    """
    parameters = keras_tuner.HyperParameters()
    parameters.merge([one.parameter(name) for name, one in spaces.items()])
    common = {
        "objective": keras_tuner.Objective("objective", "max" if rising else "min"),
        "hyperparameters": parameters,
        "allow_new_entries": False,
        "tune_new_entries": True,
        "seed": seed + 1,  # keras-tuner takes 0 for none
        "max_consecutive_failed_trials": _NEVER,
    }
    made = chosen.oracle(epochs, common)
    made.verbose = 0
    made._max_collisions = _DRAWS * (combinations(spaces) or _UNCOUNTED)
    return made


def combinations(spaces: Mapping[str, Space]) -> int | None:
    """How many combinations of values there are, or None where they can't be counted."""
    counts = [one.count for one in spaces.values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def _fewest(*counts: int | None) -> int | None:
    return min((count for count in counts if count is not None), default=None)


@method
class Random(Method):
    """Values drawn by chance, each combination once."""

    GROWS: ClassVar[frozenset[str]] = frozenset({"trials"})

    type: Literal["random"]
    trials: int = Field(20, ge=1, description="at most that many")

    def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
        """Random search."""
        return keras_tuner.oracles.RandomSearchOracle(max_trials=self.trials, **common)

    def total(self, combinations: int | None, epochs: int) -> int | None:
        """The trials, or all combinations where those are fewer."""
        return _fewest(self.trials, combinations)


class _Process(keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process that takes failed trials for as bad as the worst.

    keras-tuner's leaves them out, and comes back to the values that failed for as long as they look promising.
    """

    def _vectorize_trials(self) -> Any:
        scores = [one.score for one in self.trials.values() if one.status == "COMPLETED"]
        failed = [one for one in self.trials.values() if one.status == "FAILED"]
        for one in failed:
            one.status, one.score = "COMPLETED", min(scores) if self.objective.direction == "max" else max(scores)
        try:
            return super()._vectorize_trials()
        finally:
            for one in failed:
                one.status, one.score = "FAILED", None


@method
class Bayesian(Method):
    """A Gaussian process over the objective, after some trials by chance."""

    GROWS: ClassVar[frozenset[str]] = frozenset({"trials"})

    type: Literal["bayesian"]
    trials: int = Field(20, ge=1, description="at most that many")
    random_trials: int | None = Field(None, ge=1, description="drawn by chance first; null: three for each key")
    exploration: float = Field(2.6, ge=0, description="weight of what is not known yet")
    noise: float = Field(
        1e-4, gt=0, description="variance of the objective between equal trials, that of all trials being 1"
    )

    def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
        """Upper confidence bounds of a Gaussian process."""
        return _Process(
            max_trials=self.trials,
            num_initial_points=self.random_trials,
            alpha=self.noise,
            beta=self.exploration,
            **common,
        )

    def total(self, combinations: int | None, epochs: int) -> int | None:
        """The trials."""
        return self.trials


@method
class Grid(Method):
    """Every combination, the last key varying fastest: a sweep."""

    GROWS: ClassVar[frozenset[str]] = frozenset({"trials"})

    type: Literal["grid"]
    trials: int | None = Field(None, ge=1, description="at most that many; null: all combinations")

    def check(self, spaces: Mapping[str, Space], epochs: int) -> None:
        """A grid has values that can be counted."""
        for name, one in spaces.items():
            if one.count is None:
                raise ValueError(f"search.{name}: a grid counts its values: give the range a `step`, or write a list")

    def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
        """Grid search."""
        return keras_tuner.oracles.GridSearchOracle(max_trials=self.trials, **common)

    def total(self, combinations: int | None, epochs: int) -> int | None:
        """All combinations, or the trials where those are fewer."""
        return _fewest(self.trials, combinations)


class _Halving(keras_tuner.oracles.HyperbandOracle):
    """Hyperband of one trial after the other, in which those that failed are the worst of their round.

    keras-tuner's lets trials of a round go on as soon as more have finished than are to be thrown out, since others may
    be under way. One that failed never finishes, so that each would take a place of those that go on.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Fills the first round, then each later one with the best of the round before, then begins a bracket."""
        number, rounds = self._brackets[-1]["bracket_num"], self._brackets[-1]["rounds"]
        if len(rounds[0]) < self._get_size(number, 0):
            drawn: dict[str, Any] = self._random_trial(trial_id, self._brackets[-1])
            if drawn["status"] == "RUNNING":
                return drawn
        for place, (before, now) in enumerate(pairwise(rounds), start=1):
            gone_on = [one["past_id"] for one in now]
            left = [self.trials[one["id"]] for one in before if one["id"] not in gone_on]
            left = [one for one in left if one.status == "COMPLETED"]
            if left and len(now) < self._get_size(number, place):
                best = (max if self.objective.direction == "max" else min)(left, key=lambda one: one.score)
                now.append({"past_id": best.trial_id, "id": trial_id})
                goes_on = {
                    "tuner/trial_id": best.trial_id,
                    "tuner/epochs": self._get_epochs(number, place),
                    "tuner/initial_epoch": self._get_epochs(number, place - 1),
                    "tuner/bracket": number,
                    "tuner/round": place,
                }
                return {"status": "RUNNING", "values": {**best.hyperparameters.values, **goes_on}}
        if number == 0 and self._current_iteration + 1 == self.hyperband_iterations:
            return {"status": "STOPPED"}
        self._increment_bracket_num()
        self._start_new_bracket()
        begun: dict[str, Any] = self._random_trial(trial_id, self._brackets[-1])
        return begun


@method
class Hyperband(Method):
    """Many trials of few epochs, the best of which go on for more."""

    GOES_ON: ClassVar[bool] = True
    SETS: ClassVar[frozenset[str]] = frozenset({"training.epochs"})

    type: Literal["hyperband"]
    factor: int = Field(3, ge=2, description="one of so many goes on, for so many times the epochs")
    iterations: int = Field(1, ge=1, description="how often all of it is done")

    def _made(self, epochs: int, **common: Any) -> Any:
        return _Halving(max_epochs=epochs, factor=self.factor, hyperband_iterations=self.iterations, **common)

    def check(self, spaces: Mapping[str, Space], epochs: int) -> None:
        """The first bracket has to be filled, or nothing would be compared."""
        made, count = self._made(epochs), combinations(spaces)
        first = made._get_num_brackets() - 1
        if count is not None and count < (wanted := made._get_size(first, 0)):
            raise ValueError(
                f"method: hyperband begins with {wanted} combinations of {made._get_epochs(first, 0)} epochs each, and "
                f"`search` has {count}; take grid, or a greater `factor`"
            )

    def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
        """Hyperband, up to the experiment's epochs."""
        return self._made(epochs, **common)

    def total(self, combinations: int | None, epochs: int) -> int | None:
        """The sizes of all rounds, if there are combinations enough."""
        made = self._made(epochs)
        brackets = range(made._get_num_brackets())
        drawn = self.iterations * sum(made._get_size(one, 0) for one in brackets)
        if combinations is not None and combinations < drawn:
            return None
        rounds = [made._get_size(one, number) for one in brackets for number in range(made._get_num_rounds(one))]
        return self.iterations * int(sum(rounds))

    def epochs_of(self, proposed: Mapping[str, Any]) -> int | None:
        """Those of the round."""
        return int(proposed["tuner/epochs"])

    def parent_of(self, proposed: Mapping[str, Any]) -> int | None:
        """The best of the round before."""
        parent = proposed.get("tuner/trial_id")
        return None if parent is None else int(parent) + 1


AnyMethod = Annotated[Any, OneOf(Method.METHODS, "type"), BeforeValidator(as_mapping)]
"""A method as a plan holds it: a name, or a mapping with `type` and options."""
