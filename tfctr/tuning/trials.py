"""One trial: the trainings of its seeds, from where they were if they were killed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import keras

from tfctr.errors import DataError, DiskError, UserError
from tfctr.features.assets import FeatureAssets
from tfctr.models.model import RankingModel
from tfctr.storage import join
from tfctr.training.checkpoints import Progress, discard_checkpoints, start_longer
from tfctr.training.dataset import RankingData
from tfctr.training.experiment import Experiment, experiment_of
from tfctr.training.run import run_name, run_training
from tfctr.training.workspace import check_experiment
from tfctr.tuning.objectives import Objective
from tfctr.tuning.plan import THESE, Plan
from tfctr.tuning.record import Seed, Trial


@dataclass(frozen=True)
class Rows:
    """What all trials read.

    Attributes:
        assets: The assets of the features.
        train: The rows to train on.
        valid: The rows that trials are judged on.
        sources: The models that trials start from, by the runs that trained them.
    """

    assets: FeatureAssets
    train: RankingData
    valid: RankingData
    sources: Mapping[str, RankingModel] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A trial that has not ended.

    Attributes:
        number: Its number, from 1.
        proposed: What the method's oracle chose.
        plan: The plan.
    """

    number: int
    proposed: Mapping[str, Any]
    plan: Plan

    @property
    def settings(self) -> dict[str, Any]:
        """What was searched, by the paths of the keys."""
        return self.plan.settings(self.proposed)

    @property
    def epochs(self) -> int | None:
        """How many epochs the method allows, if it is the method that says so."""
        return self.plan.how.epochs_of(self.proposed)

    @property
    def parent(self) -> int | None:
        """The number of the trial that it goes on from, if any."""
        return self.plan.how.parent_of(self.proposed)

    def experiment(self, seed: int, epochs: int | None) -> Experiment:
        """The experiment of one seed and so many epochs.

        Raises:
            UserError: these values do not go together.
        """
        content = self.plan.content(self.settings)
        training = content.setdefault("training", {})
        training["seed"] = seed
        if epochs is not None:
            training["epochs"] = epochs
        return experiment_of(content, THESE)

    def ended(self, status: str, **found: Any) -> Trial:
        """The record of its end."""
        return Trial(
            self.number,
            self.settings,
            status,
            epochs=self.epochs,
            goes_on_from=self.parent,
            proposed=dict(self.proposed),
            **found,
        )


def trial_directory(out: Path, number: int) -> Path:
    """Where the runs of a trial lie."""
    return out / "trials" / f"{number:04d}"


def run_trial(
    proposal: Proposal, earlier: Sequence[Trial], rows: Callable[[], Rows], out: Path, kept: str | None = None
) -> Trial:
    """Trains a trial with each of its seeds, or takes how an earlier trial ended that trained the same.

    Args:
        proposal: The trial.
        earlier: Those that have ended.
        rows: Gives what is trained on.
        out: The `--out` of the search.
        kept: A place in a store where that is kept too.

    Returns:
        The trial, which has failed where its values do not go together or its training came to nothing.

    Raises:
        UserError: a disk, a store or the data fails, which is none of the trial's business; the objective is no number.
    """
    plan = proposal.plan
    for one in earlier:
        if (one.values, one.epochs) == (proposal.settings, proposal.epochs):
            found = {name: getattr(one, name) for name in ("objective", "spread", "metrics", "seeds", "reason")}
            return proposal.ended(one.status, repeats=one.repeats or one.trial, **found)
    read = rows()
    try:
        with_seeds = plan.trained_with(proposal.settings)
        seeds = tuple(_trained(proposal, seed, earlier, read, out, kept) for seed in with_seeds)
    except (OSError, DiskError, DataError):
        raise
    except Exception as error:
        return proposal.ended("failed", reason=_reason(error))
    judged = [_judged(plan.judged_by, one) for one in seeds]
    names = seeds[0].metrics
    return proposal.ended(
        "finished",
        objective=fmean(judged),
        spread=stdev(judged) if len(judged) > 1 else None,
        metrics={name: fmean(one.metrics[name] for one in seeds) for name in names},
        seeds=seeds,
        seconds=sum(one.seconds for one in seeds),
    )


def _trained(proposal: Proposal, seed: int, earlier: Sequence[Trial], rows: Rows, out: Path, kept: str | None) -> Seed:
    experiment = proposal.experiment(seed, proposal.epochs)
    check_experiment(experiment, rows.assets.file)
    directory = trial_directory(out, proposal.number) / f"seed-{seed}"
    if proposal.parent is not None:
        parent = earlier[proposal.parent - 1]
        shorter = run_name(proposal.experiment(seed, parent.epochs), rows.assets)
        start_longer(
            trial_directory(out, parent.repeats or parent.trial) / directory.name / shorter,
            directory / run_name(experiment, rows.assets),
            experiment.training.patience,
        )
    # A trial depends on nothing that an earlier one has left in the process, and needs its memory.
    keras.utils.clear_session()
    start = experiment.training.start_from
    source = None if start is None else rows.sources[start.run]
    kept = None if kept is None else join(kept, directory.relative_to(out).as_posix())
    result = run_training(rows.assets, experiment, rows.train, rows.valid, directory, source, kept=kept)
    return _seed(seed, result.progress)


def _seed(seed: int, progress: Progress) -> Seed:
    best, epochs = progress.best_epoch, len(progress.history)
    return Seed(seed, dict(progress.history[best - 1]), best, epochs, sum(progress.seconds.values()))


def _judged(objective: Objective, seed: Seed) -> float:
    """The objective of a training. One that is no number is a fault of the split: its scores are numbers."""
    found = objective.of(seed.metrics)
    if math.isfinite(found):
        return found
    groups = ": no group there has rows of both labels (rows of weight 0 do not count). Give it such groups"
    raise DataError(
        f"the {objective.title} of the validation split is {found}, so no trial can be told from another by it"
        f"{groups if objective.needs_group else '. Give it other rows'}, or take another `objective`"
    )


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"


def discard_trial(out: Path, number: int) -> None:
    """Removes the checkpoints of a trial that has ended; its logs for TensorBoard stay."""
    for run in trial_directory(out, number).glob("seed-*/*"):
        discard_checkpoints(run)
