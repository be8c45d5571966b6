"""One run from data and an experiment to a trained model: shared by `tfctr train` and the pipeline's Trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from tfctr.console import console
from tfctr.features.assets import FeatureAssets
from tfctr.models.model import RankingModel, build_model
from tfctr.storage import join
from tfctr.training.checkpoints import Progress
from tfctr.training.dataset import RankingData
from tfctr.training.devices import on_several
from tfctr.training.experiment import Experiment
from tfctr.training.loop import train
from tfctr.training.requests import RequestData, UserData
from tfctr.training.start import start_from
from tfctr.training.workers import ALONE, Workers

BATCH_OF = {"rows": RankingData, "requests": RequestData, "users": UserData}


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
    source: RankingModel | None = None,
    kept: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workers: Workers = ALONE,
) -> TrainingResult:
    """Builds the experiment's model and trains it, continuing a killed run of the same experiment on the same features.

    Args:
        assets: The vocabularies, statistics and vectors of the features.
        experiment: What is trained, and how.
        train_data: The rows to train on.
        valid_data: The rows that tell a better epoch.
        directory: One for exactly these rows (and this source); runs lie in `<directory>/<fingerprint of experiment and
            features>`.
        source: The trained model that `training.start_from` names.
        kept: A place in a store where the directory's runs are kept too, to be continued on another machine.
        callbacks: Callbacks of Keras; see `tfctr.training.callbacks`.
        workers: The processes that train the model together. Each gets the trained model.
    """
    if (experiment.training.start_from is None) != (source is None):
        raise ValueError("`source` must be given where the experiment has `training.start_from`, and only there")
    started = time.monotonic()
    strategy = workers.strategy(experiment.training)
    with strategy.scope():
        model = _starting_model(assets, experiment, source)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    console().print(
        f"{experiment.model_name}: {trainable:,} trainable parameters, seed {experiment.training.seed}", markup=False
    )
    name = run_name(experiment, assets)
    weighting, kept = experiment.evaluation.weighting, None if kept is None else join(kept, name)
    batched = BATCH_OF[experiment.training.batch_of]
    train_data, valid_data = (batched(split.copy, split.file) for split in (train_data, valid_data))
    shared = train_data.sharing(experiment.training.batch_size)
    if shared is not None:
        console().print(f"training: {shared}", markup=False)
    progress = train(
        model, experiment.training, train_data, valid_data, Path(directory) / name, weighting, kept, callbacks, workers
    )
    if on_several(model):
        # Who scores and exports the model needs none of the copies on other devices.
        trained, model = model, _starting_model(assets, experiment, source)
        for weight, value in zip(model.weights, trained.weights, strict=True):
            weight.assign(value)
    return TrainingResult(model, progress, time.monotonic() - started)


def run_name(experiment: Experiment, assets: FeatureAssets) -> str:
    """The name of a run's directory: that of the experiment on the features."""
    return f"{experiment.fingerprint()}-{assets.fingerprint[:16]}"


def _starting_model(assets: FeatureAssets, experiment: Experiment, source: RankingModel | None) -> RankingModel:
    """The model that the training starts with."""
    # The seed is set before the model is built: initial weights, dropout and the order of rows follow from it.
    keras.utils.set_random_seed(experiment.training.seed)
    model = build_model(assets, experiment.model_config_of(), dtype=experiment.training.dtype)
    start = experiment.training.start_from
    if start is not None and source is not None:
        start_from(model, source, start)
    return model
