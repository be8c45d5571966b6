"""One run from data and an experiment to a trained model: shared by `tfctr train` and the pipeline's Trainer."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import keras

from tfctr.console import console
from tfctr.features.assets import FeatureAssets
from tfctr.models.model import RankingModel, build_model
from tfctr.training.dataset import RankingData
from tfctr.training.experiment import Experiment
from tfctr.training.loop import Progress, train


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and how it came about.

    Attributes:
        model: With the weights of its best epoch.
        progress: One history entry an epoch.
        seconds: Wall clock of this call.
    """

    model: RankingModel
    progress: Progress
    seconds: float


def run_training(
    assets: FeatureAssets,
    experiment: Experiment,
    train_data: RankingData,
    valid_data: RankingData,
    directory: str | Path,
) -> TrainingResult:
    """Builds the experiment's model and trains it, continuing a killed run of the same experiment on the same features.

    Args:
        directory: One for exactly these rows; runs lie in `<directory>/<fingerprint of experiment and features>`.
    """
    started = time.monotonic()
    # The seed is set before the model is built: initial weights, dropout and the order of rows follow from it.
    keras.utils.set_random_seed(experiment.training.seed)
    model = build_model(assets, experiment.model_config_of(), dtype=experiment.training.dtype)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    console().print(
        f"{experiment.preset}: {trainable:,} trainable parameters, seed {experiment.training.seed}", markup=False
    )
    run = Path(directory) / f"{experiment.fingerprint()}-{assets.fingerprint[:16]}"
    weighting = experiment.evaluation.weighting
    progress = train(model, experiment.training, train_data, valid_data, run, weighting)
    return TrainingResult(model, progress, time.monotonic() - started)
