"""A model trained and exported once through the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.workbench import ROOT, Workbench
from tfctr.cli import app
from tfctr.errors import UserError

EXPERIMENT = """
preset: dmf
model: {interaction: {hidden: [16]}}
training: {epochs: 1, batch_size: 256, jit_compile: false, learning_rate: 0.01, seed: 2}
evaluation: {slices: [gender], weighting: clicks}
"""


@dataclass(frozen=True)
class Ran:
    """What a command printed; `error` is the message of its UserError."""

    output: str
    error: str | None


@pytest.fixture(scope="session")
def tfctr() -> Callable[..., Ran]:
    """Runs a command in this process; only a UserError may escape from it."""

    def call(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, UserError):
            return Ran(result.output, str(result.exception))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return Ran(result.stdout, None)

    return call


@dataclass(frozen=True)
class Desk:
    """Paths of the files that the commands read, and of the run and the model that they wrote."""

    features: Path
    experiment: Path
    data: Path
    run: Path
    model: Path


@pytest.fixture(scope="session")
def desk(workbench: Workbench, tfctr: Callable[..., Ran], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    directory = tmp_path_factory.mktemp("desk")
    features, experiment = directory / "features.yaml", directory / "experiment.yaml"
    features.write_text(yaml.safe_dump(workbench.file.model_dump(mode="json", exclude_unset=True)))
    experiment.write_text(EXPERIMENT)
    run, models = directory / "run", directory / "models"
    tfctr("train", "--features", features, "--experiment", experiment, "--data", workbench.data, "--out", run)
    tfctr("export", "--run", run, "--to", models, "--version", 7)
    return Desk(features, experiment, workbench.data, run, models / "7")


SHIPPED = (ROOT / "configs" / "movielens.yaml", ROOT / "configs" / "synthetic.yaml")
