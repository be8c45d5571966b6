"""The Trainer's run_fn: the same training and export as `tfctr train`, on Transform's output."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.assets import assets_from_transform
from pipeline.configs import SPLITS
from tfctr.data.columnar import remove_other_copies
from tfctr.data.keys import contents_key
from tfctr.export.saved_model import export_model
from tfctr.features.assets import FeatureAssets
from tfctr.features.spec import FeatureFile
from tfctr.storage import check_place, check_writable, is_remote, join, local_path, only_one
from tfctr.training.cluster import refuse_several
from tfctr.training.dataset import RankingData
from tfctr.training.experiment import Experiment
from tfctr.training.run import run_training
from tfctr.training.splits import check_split_once
from tfctr.training.workspace import warmup_row

BEST = "experiment"
"""The one value of a Tuner's best hyperparameters: the content of the best experiment's file, as JSON."""


def run_fn(fn_args: Any) -> None:
    """Trains the experiment's model on the transformed examples and writes the SavedModel.

    A killed run is continued: checkpoints lie in a directory of their own, keyed by experiment and examples, since
    every execution of a TFX Trainer gets a new model directory.

    Args:
        fn_args: TFX's arguments; `custom_config` holds features, experiment, data and checkpoints.

    Raises:
        UserError: TF_CONFIG names several workers, each of which would train and export by itself.
    """
    refuse_several("the pipeline's Trainer")
    check_place(fn_args.serving_model_dir)
    with checkpoints_of(fn_args.custom_config) as (here, kept):
        _train(fn_args, here, kept)


@contextmanager
def checkpoints_of(config: Any) -> Iterator[tuple[Path, str | None]]:
    """The local directory for assets, rows and checkpoints, and the place in a store where they are kept, if they are.

    Args:
        config: The `custom_config` of the component.
    """
    check_writable(config["checkpoints"])
    if is_remote(config["checkpoints"]):
        with tempfile.TemporaryDirectory(prefix="tfctr-") as here:
            yield Path(here), config["checkpoints"]
    else:
        here = local_path(config["checkpoints"], "checkpoints")
        # Two runs there, a scheduled one and the late one before it, would write the same files.
        busy = "another run trains with these checkpoints; wait until it has ended"
        with only_one(here, here / ".lock", busy):
            yield here, None


@dataclass(frozen=True)
class Transformed:
    """Transform's output, ready to train on.

    Attributes:
        key: Another one for other examples or another feature file.
        assets: The assets of the features.
        train: The rows to train on.
        valid: The rows that tell a better epoch.
    """

    key: str
    assets: FeatureAssets
    train: RankingData
    valid: RankingData


def read_transformed(fn_args: Any, here: Path) -> Transformed:
    """Reads Transform's output.

    Args:
        fn_args: TFX's arguments.
        here: The local directory for assets, rows and checkpoints.
    """
    config = fn_args.custom_config
    file = FeatureFile.model_validate_json(config["features"])
    # Where the local runner has checked them, its notes lie there and nothing is read.
    for split in SPLITS.values():
        check_split_once(file, config["data"], split, here)
    train_files, valid_files = _files(fn_args.train_files), _files(fn_args.eval_files)
    # By content: on a cluster a retry has the same examples in files of another time, and must find its checkpoints.
    key = contents_key(file, [*train_files, *valid_files])
    assets = assets_from_transform(
        fn_args.transform_graph_path, train_files, file, here / key / "assets", config["data"]
    )
    train_rows, valid_rows = (
        _rows(file, paths, here / "rows", split) for split, paths in (("train", train_files), ("valid", valid_files))
    )
    return Transformed(key, assets, train_rows, valid_rows)


def _train(fn_args: Any, here: Path, kept: str | None) -> None:
    """Trains and exports.

    Args:
        fn_args: TFX's arguments.
        here: The local directory for assets, rows and checkpoints.
        kept: The place in a store where checkpoints are kept, if they are.
    """
    config = fn_args.custom_config
    experiment = Experiment.model_validate_json(config["experiment"])
    if fn_args.hyperparameters:
        best = Experiment.model_validate_json(fn_args.hyperparameters["values"][BEST])
        experiment = best.model_copy(update={"evaluation": experiment.evaluation})
    read = read_transformed(fn_args, here)
    kept = None if kept is None else join(kept, read.key)
    result = run_training(read.assets, experiment, read.train, read.valid, here / read.key, kept=kept)
    row = warmup_row(read.assets.file, experiment, config["data"])
    # A retry finds what the try before has exported.
    export_model(
        result.model, read.assets, experiment, fn_args.serving_model_dir, row, result.progress.history, replace=True
    )


def _rows(file: FeatureFile, paths: list[str], directory: Path, split: str) -> RankingData:
    """The rows of a split, from their columnar copy, which later trainings on them use again."""
    copy = directory / f"{split}-{contents_key(file, paths)}"
    rows = RankingData.of_transformed(file, paths, copy)
    remove_other_copies(copy, split)
    return rows


def _files(patterns: list[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
