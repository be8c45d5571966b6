"""The plan file of `tfctr tune`: an experiment, what of it is searched, and how."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import Strict, checked, load_yaml
from tfctr.models.config import as_mapping
from tfctr.training.experiment import Experiment, experiment_of
from tfctr.training.keys import with_key
from tfctr.training.workspace import check_experiment
from tfctr.tuning.methods import AnyMethod, Method, Random, combinations
from tfctr.tuning.objectives import OBJECTIVES, Objective
from tfctr.tuning.spaces import AnySpace, Settings, Space, in_order

THESE = "these values"
"""Where the values of a trial stand, for messages."""
_SEED, _MONITOR = "training.seed", "training.monitor"


class Plan(Strict):
    """What is searched, and how."""

    experiment: Experiment = Field(Experiment(), description="the content of an experiment file")
    search: dict[str, AnySpace] = Field(
        min_length=1, description="from the path of a key of the experiment to what it may become"
    )
    method: AnyMethod = Field(Random(type="random"), description="how trials are proposed")
    objective: str | None = Field(None, description="what a trial is judged by; null: training.monitor")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] | None = Field(
        None, description="each trial is trained with each of these, and judged by the mean; null: training.seed"
    )
    seed: int = Field(1, ge=0, lt=2**31, description="of what the method draws")

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: str | None) -> str | None:
        if objective is not None and objective not in OBJECTIVES:
            raise ValueError(f"must be one of {', '.join(OBJECTIVES)}. Received: {objective!r}")
        return objective

    @field_validator("seeds")
    @classmethod
    def _named_once(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError(f"the same seed twice in {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found: list[str] = []
        for name, one in self.spaces.items():
            for path in one.paths(name):
                if not all(path.split(".")):
                    raise ValueError(f"search: must be paths of keys, as training.learning_rate. Received: {path!r}")
                if path in found:
                    raise ValueError(f"search: {path} is varied twice")
                found.append(path)
        # A key of `training` may be searched by itself, or as one of the whole mapping.
        found += [f"training.{key}" for _, said in self.said_of_training() for key in said]
        taken = [path for path in found if path in self.how.SETS]
        if taken:
            raise ValueError(f"search.{taken[0]}: the method sets this key itself; leave it out, or take another one")
        if self.seeds is not None and _SEED in found:
            raise ValueError(f"search.{_SEED}: `seeds` has the seeds of each trial; leave out one of the two")
        if self.objective is None and _MONITOR in found:
            raise ValueError(f"objective: is required where {_MONITOR} is searched")
        self.how.check(self.spaces, self.experiment.training.epochs)
        return self

    @property
    def spaces(self) -> Mapping[str, Space]:
        """What is searched, by name."""
        return self.search

    @property
    def how(self) -> Method:
        """The method."""
        found: Method = self.method
        return found

    @property
    def judged_by(self) -> Objective:
        """What a trial is judged by."""
        return OBJECTIVES[self.objective or self.experiment.training.monitor]

    @property
    def total(self) -> int | None:
        """At most how many trials there will be, where that is known."""
        return self.how.total(combinations(self.spaces), self.experiment.training.epochs)

    def settings(self, proposed: Mapping[str, Any]) -> Settings:
        """The settings that a proposal of the method's oracle stands for."""
        return {
            path: value
            for name, one in self.spaces.items()
            for path, value in one.settings(name, proposed[name]).items()
        }

    def said_of_training(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the values that are tried say of `training`, each with the name of its space.

        Raises:
            ValueError: a path leads through something that has no keys.
        """
        for name, one in self.spaces.items():
            for settings in one.tried(name):
                said: dict[str, Any] = {}
                for path in in_order(settings):
                    if path.split(".")[0] == "training":
                        with_key(said, path, settings[path])
                if isinstance(training := said.get("training"), dict):
                    yield name, training

    @property
    def sources(self) -> list[str]:
        """The runs that a trial may start from."""
        said = [self.experiment.training.model_dump(), *(training for _, training in self.said_of_training())]
        starts = [start for one in said if isinstance(start := one.get("start_from"), dict)]
        return list(dict.fromkeys(start["run"] for start in starts if "run" in start))

    def content(self, settings: Settings) -> dict[str, Any]:
        """The content of the experiment file of some settings.

        Raises:
            UserError: a path leads through something that has no keys.
        """
        content = self.experiment.model_dump(mode="json", exclude_unset=True)
        for path in in_order(settings):
            try:
                with_key(content, path, settings[path])
            except ValueError as error:
                raise UserError(f"{path}: {error}") from None
        return content

    def trained_with(self, settings: Settings) -> tuple[int, ...]:
        """The seeds of a trial.

        Raises:
            UserError: these values do not go together.
        """
        return self.seeds or (experiment_of(self.content(settings), THESE).training.seed,)

    def as_searched(self) -> Plan:
        """The plan without the demands and slices of its experiment, on which no trial depends."""
        return self.model_copy(update={"experiment": self.experiment.as_trained()})

    def lasting(self) -> dict[str, Any]:
        """What must stay the same while a search goes on, as plain data."""
        content = self.as_searched().model_dump(mode="json")
        for option in self.how.GROWS:
            content["method"].pop(option)
        return content


def load_plan(path: str | Path) -> Plan:
    """Reads a plan file. `check_plan` tries its values.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    return checked(Plan, load_yaml(path), path)


def check_plan(plan: Plan, file: FeatureFile, where: str | Path = "the plan") -> None:
    """Tries each value of a list and the ends of each range, before anything is read or trained.

    A value that some combinations refuse and others do not is none of its business: those trials fail.

    Args:
        plan: The plan.
        file: The feature file.
        where: Where the plan stands, for messages.

    Raises:
        UserError: the experiment refuses a value, or two values of a key train the same model.
    """
    if plan.judged_by.needs_group and file.group is None:
        raise UserError(
            f"{where}: objective: {plan.judged_by.title} needs groups, and the feature file names no `group`"
        )
    _accepted(plan, [{}], file, f"{where}: experiment")
    first: Settings = {}
    for name, one in plan.spaces.items():
        first |= one.tried(name)[0]
    for name, one in plan.spaces.items():
        seen: dict[str, Settings] = {}
        for settings in one.tried(name):
            given = ", ".join(f"{value}" for value in settings.values())
            experiment = _accepted(plan, [settings, first | settings], file, f"{where}: search.{name}: {given}")
            if plan.objective is None and experiment.training.monitor != plan.experiment.training.monitor:
                raise UserError(f"{where}: objective: is required where {_MONITOR} is searched, as by search.{name}")
            other = seen.setdefault(_written_out(experiment), settings)
            if other is not settings:
                before = ", ".join(f"{value}" for value in other.values())
                raise UserError(
                    f"{where}: search.{name}: {before} and {given} train the same model; search what a training "
                    "depends on, and name each value once"
                )


def _written_out(experiment: Experiment) -> str:
    """What the model of an experiment follows from, the same text however its parts are written."""
    training = experiment.training.model_dump(mode="json", exclude={"devices"})
    for name in ("optimizer", "embedding_optimizer"):
        training[name] = as_mapping(training[name])
    model = experiment.model_config_of().model_dump(mode="json")
    return json.dumps([model, training, experiment.evaluation.weighting], sort_keys=True)


def _accepted(plan: Plan, tries: list[Settings], file: FeatureFile, where: str) -> Experiment:
    """The first experiment that is accepted: of a value alone, or of one beside the first values of the other keys."""
    refused: UserError | None = None
    for settings in tries:
        try:
            experiment = experiment_of(plan.content(settings), where)
            check_experiment(experiment, file)
            return experiment
        except UserError as error:
            text = str(error).removeprefix(f"{where}: ")
            refused = refused or UserError(f"{where}: {text}")
    raise refused or AssertionError("no try")


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What differs between two pieces of plain data, by path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), after.get(key), below)
    elif before != after:
        yield f"{path} was {before!r} and is {after!r}"
