"""Searches on a small log, with trainings that are real or only pretended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.conftest import Ran, tfctr
from tests.training.conftest import tiny
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.features.yaml_file import checked
from tfctr.training.checkpoints import Progress
from tfctr.training.experiment import Experiment
from tfctr.tuning import Plan, Search, search, trials, tune

__all__ = ["Ran", "tfctr", "tiny"]

EXPERIMENT: dict[str, Any] = {
    "preset": "mlp",
    "model": {"interaction": {"hidden": [8]}},
    "training": {"epochs": 2, "batch_size": 128, "jit_compile": False, "seed": 3},
}
RATES = {"training.learning_rate": [0.01, 0.02, 0.05]}


def plan(**changed: Any) -> Plan:
    """A plan of a sweep over three rates, with some keys changed."""
    return checked(Plan, {"experiment": EXPERIMENT, "search": RATES, "method": "grid", **changed}, "plan.yaml")


class Pretended:
    """Trainings that only say what they would have reached.

    Attributes:
        score: The AUC of an experiment; a UserError of it is one of the training.
        trained: The experiments that were trained.
        went_on: The directories of runs that were made longer.
    """

    def __init__(self, score: Callable[[Experiment], float]) -> None:
        self.score = score
        self.trained: list[Experiment] = []
        self.went_on: list[Path] = []

    def run(
        self, assets: Any, experiment: Experiment, train: Any, valid: Any, directory: Path, source: Any, kept: Any
    ) -> Any:
        self.trained.append(experiment)
        auc = self.score(experiment)
        epochs = experiment.training.epochs
        history = [{"auc": auc - 0.01 * (epochs - 1 - one), "logloss": 1 - auc} for one in range(epochs)]
        progress = Progress(best=auc, best_epoch=epochs, history=history, seconds={"steps": 2.0, "validation": 1.0})
        return SimpleNamespace(progress=progress)

    def longer(self, finished: Path, directory: Path, patience: int) -> None:
        self.went_on.append(finished)


@pytest.fixture
def pretended(tiny: Workbench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretended]:
    """Makes trainings pretended ones, whose AUC is a function of the experiment."""

    def make(score: Callable[[Experiment], float]) -> Pretended:
        made = Pretended(score)
        monkeypatch.setattr(trials, "run_training", made.run)
        monkeypatch.setattr(trials, "start_longer", made.longer)
        monkeypatch.setattr(trials.keras.utils, "clear_session", lambda: None)
        monkeypatch.setattr(search, "read_splits", lambda *_: (tiny.assets, {"train": None, "valid": None}))
        return made

    return make


@pytest.fixture
def tuned(tiny: Workbench, tmp_path: Path) -> Callable[..., Search]:
    """Searches on the small log, in one directory."""

    def run(one: Plan, out: Path = tmp_path / "out") -> Search:
        return tune(tiny.file, one, tiny.data, out)

    return run


def rate_of(experiment: Experiment) -> float:
    """The nearer the rate is to 0.02, the better."""
    return 0.9 - abs(float(experiment.training.learning_rate) - 0.02)  # type: ignore[arg-type]


def refusing(experiment: Experiment) -> float:
    """A training that comes to nothing with any rate."""
    raise UserError(f"no numbers with {experiment.training.learning_rate}")
