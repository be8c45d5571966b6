"""SavedModels with random weights and histories of any length, and requests for them, for speed benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ServedModel:
    """An exported model and the data of its requests.

    Attributes:
        path: The version's directory.
        cost: Parameters and operations of the served model.
        rows: Raw data by column, `[rows]` or `[rows, 50]`.
        history: Number of events of a full history.
    """

    path: Path
    cost: Any
    rows: dict[str, Any]
    history: int

    def user(self, seed: int) -> dict[str, Any]:
        """A user with a full history of events from the data."""
        generator = np.random.default_rng(seed)
        row = int(generator.integers(len(self.rows["user_id"])))
        user: dict[str, Any] = {name: self.rows[name][row] for name in ("user_id", "age", "occupation", "gender")}
        real = np.arange(self.rows["history_item_id"].shape[1]) < self.rows["history_length"][:, None]
        chosen = generator.integers(real.sum(), size=self.history)
        for name in ("history_item_id", "history_rating", "history_genres", "history_time"):
            user[name] = self.rows[name][real][chosen]
        user["history_time"] = np.sort(user["history_time"])[::-1]
        return user

    def candidates(self, count: int, seed: int) -> dict[str, Any]:
        """Columns of `count` candidates, drawn from the data with replacement."""
        chosen = np.random.default_rng(seed).integers(len(self.rows["item_id"]), size=count)
        return {name: self.rows[name][chosen] for name in ("item_id", "year", "genres")}

    def context(self) -> dict[str, Any]:
        """The context of a request after all events."""
        return {"timestamp": int(self.rows["timestamp"].max())}

    def examples(self, count: int, seed: int) -> list[bytes]:
        """The same request as a `tf.Example` for each candidate, with the user in each of them."""
        import tensorflow as tf

        user, context, candidates = self.user(seed), self.context(), self.candidates(count, seed)
        serialized = []
        for position in range(count):
            candidate = {name: values[position] for name, values in candidates.items()}
            example = tf.train.Example()
            for name, value in {**user, **context, **candidate}.items():
                values = np.atleast_1d(np.asarray(value))
                feature = example.features.feature[name]
                if values.dtype.kind in "OS":
                    feature.bytes_list.value.extend(values.tolist())
                else:
                    feature.int64_list.value.extend(values.tolist())
            serialized.append(example.SerializeToString())
        return serialized


def export(
    model: str | dict[str, Any], length: int, directory: Path, dimension: int = 32, one_call: bool = False
) -> ServedModel:
    """Exports a model with random weights.

    Args:
        model: The name of a preset, or the content of an experiment file.
        length: Number of events of a history.
        directory: Directory for data, assets and the version directory `model/1`.
        dimension: E. An event has an item and its genres, so it is 2 E wide. Frozen vectors are 128 wide.
        one_call: Whether to add a signature `rank` for comparison, with user_tower and score in one graph.
    """
    from tests.workbench import Workbench, small_features
    from tfctr.data.analyze import analyze
    from tfctr.data.sources import split_files
    from tfctr.data.synthesize import synthesize
    from tfctr.data.synthetic_world import Settings
    from tfctr.export.cost import model_cost
    from tfctr.export.fold import served_scorer
    from tfctr.export.saved_model import export_model
    from tfctr.features import FeatureFile
    from tfctr.models import build_model
    from tfctr.training.experiment import Experiment

    data = directory / "data"
    synthesize(data, Settings(rows=600, users=60, items=2000, history_length=50, vector_width=128, seed=5))
    content = small_features(length).model_dump(mode="json", exclude_unset=True)
    file = FeatureFile.model_validate({**content, "embedding_dimension": dimension})
    bench = Workbench(data, file, analyze(file, split_files(data, "train"), directory / "assets", data))
    experiment = Experiment.model_validate(
        {**({"preset": model} if isinstance(model, str) else model), "export": {"warmup_candidates": [1]}}
    )
    built = build_model(bench.assets, experiment.model_config_of())
    path = export_model(built, bench.assets, experiment, directory / "model" / "1")
    if one_call:
        path = _with_rank(path, directory / "one_call" / "1")
    return ServedModel(path, model_cost(built, served_scorer(built)), bench.raw("test", 256), length)


def batch_of_one(signature: Any, raw: dict[str, Any]) -> dict[str, Any]:
    """The raw features that a loaded signature takes, without the state, as tensors with a batch of one."""
    import tensorflow as tf

    specs = signature.structured_input_signature[1].items()
    return {name: tf.constant(np.asarray(raw[name])[None], spec.dtype) for name, spec in specs if name in raw}


def _with_rank(path: Path, target: Path) -> Path:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    user_tower, score = loaded.signatures["user_tower"], loaded.signatures["score"]
    user, scored = (one.structured_input_signature[1] for one in (user_tower, score))
    state = set(user_tower.structured_outputs)

    @tf.function
    def rank(**inputs: Any) -> Any:
        made = user_tower(**{name: inputs[name] for name in user})
        return score(**made, **{name: inputs[name] for name in scored if name not in state})

    specs = {**user, **{name: spec for name, spec in scored.items() if name not in state}}
    concrete = rank.get_concrete_function(**{name: tf.TensorSpec(s.shape, s.dtype, name) for name, s in specs.items()})
    holder = tf.Module()
    holder.loaded = loaded
    tf.saved_model.save(holder, str(target), signatures={**dict(loaded.signatures), "rank": concrete})
    return target
