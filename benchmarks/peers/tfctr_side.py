"""A training step of tfctr as `tfctr train` takes it: the model, its compilation and Keras's own step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.turns import PRODUCT, Side, serve, status
from tfctr.features import load_feature_file
from tfctr.features.assets import FeatureAssets
from tfctr.features.kinds.fields import Table
from tfctr.features.spec import FeatureFile
from tfctr.layers.dropout import Dropout
from tfctr.models.config import ModelConfig
from tfctr.models.model import RankingModel, build_model
from tfctr.training.experiment import Training
from tfctr.training.loop import compile_model

FEATURES = Path(__file__).parents[1] / "frappe.yaml"


class Sizes(FeatureAssets):
    """The assets of features without vectors, as far as a model is built of them: the sizes of the tables."""

    def __init__(self, file: FeatureFile, sizes: dict[str, int]) -> None:
        self.file, self.sizes = file, sizes

    def rows(self, table: Table) -> int:
        return self.sizes[table.name]

    def frozen_tables(self) -> list[str]:
        return []


def features(width: int) -> FeatureFile:
    """Frappe's ten fields, `width` wide."""
    return load_feature_file(FEATURES).model_copy(update={"embedding_dimension": width})


def prepare(task: dict[str, Any]) -> Side:
    tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(task["threads"])
    keras.utils.set_random_seed(1)
    imported = status("VmRSS")
    file = features(task["width"])
    config = ModelConfig(interaction=task["interaction"], loss=task["loss"])
    model: RankingModel = build_model(Sizes(file, dict(task["tables"])), config)
    built = status("VmRSS")
    inputs, labels = _batches(file, task["batch"])
    left, right = tf.random.normal([PRODUCT, PRODUCT]), tf.random.normal([PRODUCT, PRODUCT])

    def product() -> Any:
        return tf.linalg.matmul(left, right).numpy()

    if "weights" in task:
        first = {name: ids[0] for name, ids in inputs.items()}
        _write_gradients(model, first, labels[0], Path(task["weights"]))
        return Side(lambda: None, product, {})
    _compile(model, task["jit"], task.get("embedding_optimizer"))
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).repeat()
    model.fit(data, steps_per_epoch=1, verbose=0)  # It makes the step that is timed.
    batches = iter(data)

    def step() -> float:
        return float(model.train_function(batches)["loss"])

    if "trace" in task:
        step()
        tf.profiler.experimental.start(task["trace"])
        step()
        tf.profiler.experimental.stop()
    found = {
        "library": f"TensorFlow {tf.__version__}",
        "parameters": sum(int(np.prod(one.shape)) for one in model.trainable_weights),
        "imported_mb": imported,
        "model_mb": built,
        "jit": model.jit_compile,
    }
    return Side(step, product, found)


def _compile(model: RankingModel, jit: str, embedding_optimizer: str | None) -> None:
    compiled = None if jit == "auto" else jit == "on"
    compile_model(model, Training(jit_compile=compiled, embedding_optimizer=embedding_optimizer))


def _batches(file: FeatureFile, path: str) -> tuple[dict[str, Any], Any]:
    """Model inputs and labels of some batches: ids [n, B], those of candidates [n, B, 1]."""
    found = dict(np.load(path))
    labels = found.pop("labels")[..., None]
    candidates = {feature.name for feature in file.of_side("candidate")}
    return {name: ids[..., None] if name in candidates else ids for name, ids in found.items()}, labels


def _write_gradients(model: RankingModel, inputs: dict[str, Any], labels: Any, path: Path) -> None:
    """Loss and gradients without dropout, and the weights that they are for, none of which is left at zero."""
    generator = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, Dropout):
            layer.rate = 0.0
    weights = model.trainable_weights
    for weight in weights:
        weight.assign_add(generator.normal(scale=0.05, size=weight.shape))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, labels, model(inputs, training=True))
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    found: dict[str, Any] = {f"weight{i}": np.asarray(weight) for i, weight in enumerate(weights)}
    found |= {f"gradient{i}": np.asarray(tf.convert_to_tensor(one)) for i, one in enumerate(gradients)}
    np.savez(path, loss=np.asarray(loss), **found)


if __name__ == "__main__":
    serve(prepare)
