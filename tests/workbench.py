"""A small synthetic data set with its feature file and assets, and models on it, for many tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.data.sources.tfrecord import read_records
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.features import FeatureFile, load_feature_file
from tfctr.features.assets import FeatureAssets
from tfctr.features.parsing import parse_examples
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.models import ModelConfig, RankingModel, build_model, preset
from tfctr.training.dataset import RankingData

ROOT = Path(__file__).parents[1]
HISTORY = 12
PRESETS = ("mlp", "din", "dmf", "qnn-alpha")


@dataclass(frozen=True)
class Workbench:
    """The data set, its feature file and its assets, with short ways to use them."""

    data: Path
    file: FeatureFile
    assets: FeatureAssets

    def split(self, name: str) -> RankingData:
        copy = self.assets.directory.parent / f"rows-{name}"
        return RankingData.of_log(self.file, split_files(self.data, name), self.function, copy)

    @property
    def function(self) -> RawFunction:
        return RawFunction(self.file, FileLookups(self.assets))

    def serialized(self, split: str, count: int) -> np.ndarray:
        """The first `count` serialized examples of a split."""
        records = read_records(split_files(self.data, split)).take(count)
        return np.array([record.numpy() for record in records], dtype=object)

    def raw(self, split: str, count: int) -> dict[str, Any]:
        """The first rows of a split in the raw dense form, candidates [B]."""
        parsed = parse_examples(tf.constant(self.serialized(split, count)), self.file)
        return {name: tensor.numpy() for name, tensor in parsed.items()}

    def model(self, config: str | ModelConfig, seed: int = 1, dtype: str = "float32") -> RankingModel:
        """A preset or another model. Its random weights are moved from their starts, so that none is zero by chance."""
        keras.utils.set_random_seed(seed)
        model = build_model(self.assets, preset(config) if isinstance(config, str) else config, dtype=dtype)
        generator = np.random.default_rng(seed)
        for weight in model.trainable_weights:
            weight.assign(np.asarray(weight) + 0.1 * generator.standard_normal(weight.shape).astype("float32"))
        for weight in model.non_trainable_weights:
            if weight.path.endswith("moving_variance"):
                weight.assign(generator.uniform(0.5, 2, weight.shape).astype("float32"))
        return model


def make_workbench(directory: Path, rows: int = 1600, history: int = HISTORY) -> Workbench:
    """Synthesizes data below `directory` and analyzes it."""
    data = directory / "data"
    synthesize(data, Settings(rows=rows, users=60, items=150, history_length=history, vector_width=12, seed=5))
    file = small_features(history)
    return Workbench(data, file, analyze(file, split_files(data, "train"), directory / "assets", data))


def small_features(history: int = HISTORY) -> FeatureFile:
    """configs/synthetic.yaml with a short history and narrow tables."""
    content = load_feature_file(ROOT / "configs" / "synthetic.yaml").model_dump(mode="json", exclude_unset=True)
    content["embedding_dimension"] = 8
    content["sequences"]["history"]["max_length"] = history
    return FeatureFile.model_validate(content)
