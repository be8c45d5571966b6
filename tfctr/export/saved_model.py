"""Writes a version of a model: the SavedModel, its warm-up requests and its description."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfctr
from tfctr.errors import UserError
from tfctr.export.cost import model_cost
from tfctr.export.describe import DESCRIPTION
from tfctr.export.op_check import check_ops
from tfctr.export.signatures import RankingModule
from tfctr.export.warmup import made_example, write_warmup_requests
from tfctr.features.assets import FeatureAssets
from tfctr.models.model import RankingModel
from tfctr.storage import MARKER, exists, is_remote, join, new_version, version_numbers
from tfctr.training.experiment import Experiment


def export_model(
    model: RankingModel,
    assets: FeatureAssets,
    experiment: Experiment,
    directory: str | Path,
    example: bytes | None = None,
    history: list[dict[str, float]] | None = None,
    replace: bool = False,
) -> str | Path:
    """Writes a SavedModel directory with its signatures.

    The files are written to a temporary directory, which is renamed at the end. The directory is therefore never
    incomplete.

    Args:
        model: The trained model.
        assets: The vocabularies, statistics and vectors that it was trained with.
        experiment: The experiment of the training, whose `export` section has the options of the export.
        directory: The SavedModel directory.
        example: A serialized raw example for the warm-up requests; without one, a made
            one that is nobody's.
        history: Validation metrics of each epoch, for the description.
        replace: Whether a version that stands there is replaced; else it is an error.

    Raises:
        UserError: The directory exists, or the newest TF Serving release does not have an op of the graph.
    """
    if not replace and exists(directory if not is_remote(directory) else join(directory, MARKER)):
        raise UserError(f"{directory}: exists already; name a directory that doesn't, or remove it")
    options = experiment.export
    module = RankingModule(
        model,
        assets,
        options.state_dtype,
        options.fold,
        options.max_rows,
        options.max_candidates,
        options.max_string_bytes,
    )
    with new_version(directory, replace) as unfinished:
        tf.saved_model.save(module, str(unfinished), signatures=module.signatures())
        check_ops(unfinished)
        (unfinished / "assets.extra").mkdir(exist_ok=True)
        write_warmup_requests(module, unfinished, experiment.export.warmup_candidates, example or made_example(assets))
        described = json.dumps(_description(model, module, experiment, history), indent=1)
        (unfinished / DESCRIPTION).write_text(described, encoding="utf-8")
    return str(directory) if is_remote(directory) else Path(directory)


def next_version(model_directory: str | Path) -> int:
    """A new version number for a model directory: the time in seconds, or more if a version there is newer."""
    return max([int(time.time()), *(version + 1 for version in version_numbers(model_directory))])


def _description(
    model: RankingModel, module: RankingModule, experiment: Experiment, history: list[dict[str, float]] | None
) -> dict[str, Any]:
    return {
        "tfctr": tfctr.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model_tag": module.model_tag,
        "experiment": experiment.model_dump(mode="json"),
        "model": model.model_config.model_dump(mode="json"),
        "features": model.file.model_dump(mode="json", exclude_unset=True),
        "trainable_parameters": int(sum(np.prod(weight.shape) for weight in model.trainable_weights)),
        "frozen_parameters": int(sum(np.prod(weight.shape) for weight in model.non_trainable_weights)),
        "cost": _costs(model, module),
        "validation": history or [],
    }


def _costs(model: RankingModel, module: RankingModule) -> dict[str, Any]:
    """The cost of the model as trained and, if the served form differs, as served."""
    costs = {"trained": asdict(model_cost(model))}
    if module.scorer is not model.scorer:
        costs["served"] = asdict(model_cost(model, module.scorer))
    return costs
