"""Short training runs on the data of the workbench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workbench import Workbench
from tfctr.training.experiment import Experiment
from tfctr.training.run import TrainingResult, run_training

BATCH = 128  # about ten steps for an epoch of the workbench
SMALL = {"type": "mlp", "hidden": [16]}


def small_experiment(dropout: float = 0.0, **training: Any) -> Experiment:
    """A narrow mlp, trained for two epochs of about ten steps without XLA."""
    settings = {"epochs": 2, "batch_size": BATCH, "learning_rate": 0.01, "jit_compile": False, "seed": 3, **training}
    interaction = {**SMALL, "dropout": dropout}
    return Experiment.model_validate({"preset": "mlp", "model": {"interaction": interaction}, "training": settings})


def run(workbench: Workbench, experiment: Experiment, directory: Path) -> TrainingResult:
    return run_training(workbench.assets, experiment, workbench.split("train"), workbench.split("valid"), directory)
