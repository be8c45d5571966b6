"""What a search writes of itself: its plan, a line for each trial that has ended, and the best experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfctr.errors import UserError, disk_errors
from tfctr.features.yaml_file import checked
from tfctr.storage import write_text
from tfctr.tuning.plan import Plan

TRIALS = "trials.jsonl"
"""The file of a search that names the trials that have ended."""
NOTE = "tune.json"
"""The file that makes a directory one of a search: it is written first."""
_BEST = "best.yaml"


@dataclass(frozen=True)
class Seed:
    """One training of a trial.

    Attributes:
        seed: Its seed.
        metrics: Of the validation split, at the epoch whose weights were kept.
        best_epoch: That epoch, from 1.
        epochs: How many epochs were trained, those of the trial that it went on from included.
        seconds: How long the steps and the validations took that this training did itself.
    """

    seed: int
    metrics: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        trial: Its number, from 1.
        values: What was searched, by the paths of the keys.
        status: `finished` or `failed`.
        objective: What it is judged by: the mean over the seeds.
        spread: The standard deviation over the seeds, if there are several.
        metrics: The means over the seeds.
        seeds: Each training.
        seconds: How long the trainings took.
        epochs: How many epochs the method allowed, if it is the method that says so.
        goes_on_from: The number of the trial whose weights it began with, if any.
        repeats: The number of the trial that trained the same before, if any.
        reason: Why it failed.
        proposed: What the method's oracle chose.
    """

    trial: int
    values: dict[str, Any]
    status: str
    objective: float | None = None
    spread: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seeds: tuple[Seed, ...] = ()
    seconds: float = 0.0
    epochs: int | None = None
    goes_on_from: int | None = None
    repeats: int | None = None
    reason: str | None = None
    proposed: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it has an objective."""
        return self.objective is not None


@dataclass(frozen=True)
class Search:
    """A search: its plan and the trials that have ended, in their order."""

    plan: Plan
    trials: Sequence[Trial]

    def ranked(self) -> list[Trial]:
        """The trials that finished, the best first."""
        sign = -1 if self.plan.judged_by.rising else 1
        judged = [(sign * one.objective, one.trial, one) for one in self.trials if one.objective is not None]
        return [one for _, _, one in sorted(judged, key=lambda entry: entry[:2])]

    @property
    def best(self) -> Trial | None:
        """The best trial, if one has finished."""
        return next(iter(self.ranked()), None)

    def content_of(self, trial: Trial) -> dict[str, Any]:
        """The content of the experiment file of a trial, with the first of its seeds."""
        content = self.plan.content(trial.values)
        if trial.epochs is not None:
            content.setdefault("training", {})["epochs"] = trial.epochs
        if self.plan.seeds is not None:
            content.setdefault("training", {})["seed"] = self.plan.seeds[0]
        return content


def is_search(place: str | Path) -> bool:
    """Whether a directory is the `--out` of a search."""
    return (Path(place) / NOTE).is_file()


def read_search(place: str | Path) -> Search:
    """The search whose `--out` a directory is, finished or not.

    Raises:
        UserError: it holds none, or what it holds can't be read.
    """
    if not is_search(place):
        raise UserError(f"{place}: holds no search; begin one with `tfctr tune --out {place}`")
    return Search(checked(Plan, _note(place)["plan"], Path(place) / NOTE), read_trials(place))


def read_trials(place: str | Path) -> list[Trial]:
    """The trials that a search has ended so far."""
    path = Path(place) / TRIALS
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Trial(**{**line, "seeds": tuple(Seed(**one) for one in line["seeds"])}) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def begun(place: Path) -> tuple[Plan, str] | None:
    """The plan of the search that a directory holds and the key of its rows, or None where it holds none.

    Args:
        place: The `--out` of the search.
    """
    if not is_search(place):
        return None
    note = _note(place)
    return checked(Plan, note["plan"], place / NOTE), str(note["rows"])


def write_note(place: Path, plan: Plan, rows: str) -> None:
    """Notes what a search is of.

    Args:
        place: The `--out` of the search.
        plan: The plan, of which options may have grown since the search began.
        rows: The key of the rows and the feature file; see `search_rows`.
    """
    path = place / NOTE
    text = json.dumps({"plan": plan.model_dump(mode="json", exclude_unset=True), "rows": rows})
    with disk_errors(path):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def write_trials(place: Path, trials: Sequence[Trial]) -> None:
    """Writes the trials that have ended, a line each."""
    with disk_errors(place):
        write_text(place / TRIALS, "".join(f"{json.dumps(asdict(one))}\n" for one in trials))


def write_best(place: Path, search: Search) -> Path | None:
    """Writes the experiment file of the best trial, if there is one."""
    best = search.best
    if best is None:
        return None
    about = f"# Trial {best.trial} of `tfctr tune`: {search.plan.judged_by.title} {best.objective:.5f} of validation\n"
    text = about + yaml.safe_dump(search.content_of(best), sort_keys=False, allow_unicode=True)
    path = place / _BEST
    with disk_errors(path):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    return path


def _note(place: str | Path) -> dict[str, Any]:
    path = Path(place) / NOTE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("plan", "rows")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: can't be read ({type(error).__name__}: {error}); remove {path.parent} to begin again")
