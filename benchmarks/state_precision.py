"""The effect of a cached state in reduced precision on the scores, with the signatures of real SavedModels.

    python -m benchmarks.state_precision [--presets din,dmf,dmqn] [--rows 20000] [--epochs 5] [--users 100]

Each preset is trained for a short time on synthetic impressions and exported. The state of each user is computed
once. It is written as a cache record in each precision, read again, and scored with the same candidates.
docs/client.md has the results.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer

from tfctr.client import StateKey, UserState
from tfctr.client.record import Precision, from_bytes, to_bytes
from tfctr.console import console

TOP = 10


@dataclass(frozen=True)
class Error:
    """The effect of one precision on one model.

    Attributes:
        record_bytes: bytes of a user in the cache.
        largest: largest difference of a probability to that with the original state.
        mean: mean difference.
        same_top: share of users with the same ten best candidates in the same order.
        spread: standard deviation of the probabilities, to compare the differences with.
    """

    record_bytes: int
    largest: float
    mean: float
    same_top: float
    spread: float


def measure(
    preset: str, directory: Path, rows: int, epochs: int, users: int, candidates: int
) -> dict[Precision, Error]:
    """Trains and exports a preset below a directory, and compares the precisions on it."""
    import tensorflow as tf

    from tests.workbench import ROOT, Workbench
    from tfctr.data.synthesize import synthesize
    from tfctr.data.synthetic_world import Settings
    from tfctr.export.saved_model import export_model
    from tfctr.features import load_feature_file
    from tfctr.training.experiment import Experiment
    from tfctr.training.workspace import finished_run, train_in_workspace

    data, run = directory / "data", directory / preset
    if not data.exists():
        synthesize(data, Settings(rows=rows, users=rows // 20, items=1000, seed=5))
    training = {"epochs": epochs, "batch_size": 256, "jit_compile": False}
    experiment = Experiment.model_validate(
        {"preset": preset, "training": training, "export": {"warmup_candidates": [1]}}
    )
    file = load_feature_file(ROOT / "configs" / "synthetic.yaml")
    train_in_workspace(file, experiment, data, run)
    finished = finished_run(run)
    path = export_model(finished.model, finished.assets, experiment, run / "models" / "1")
    # Kept in a variable, because the signatures cannot be called after the loaded object is deleted.
    loaded = tf.saved_model.load(str(path))
    user_tower, score = loaded.signatures["user_tower"], loaded.signatures["score"]
    raw = Workbench(data, file, finished.assets).raw("test", rows)
    generator = np.random.default_rng(0)

    def inputs(signature: Any, row: int, picked: Any, given: Any = ()) -> dict[str, Any]:
        """Raw values of one row, with candidates from other rows."""
        specs = signature.structured_input_signature[1]
        candidate = {name for name, spec in specs.items() if signature is score and spec.shape.rank == 2}
        return {
            name: tf.constant(np.asarray(raw[name])[picked][None] if name in candidate else raw[name][row : row + 1])
            for name in specs
            if name not in given
        }

    found: dict[Precision, list[np.ndarray[Any, Any]]] = {precision: [] for precision in get_args(Precision)}
    sizes: dict[Precision, int] = {}
    count = len(next(iter(raw.values())))
    for row in generator.choice(count, min(users, count), replace=False):
        key = StateKey("ranking", 1, "fingerprint", str(row), "1")
        tensors = {name: tensor.numpy() for name, tensor in user_tower(**inputs(user_tower, row, None)).items()}
        request = inputs(score, row, generator.integers(0, count, candidates), tensors)
        for precision in found:
            record = to_bytes(key, UserState("ranking", 1, "fingerprint", tensors), precision)
            sizes[precision] = len(record)
            state = from_bytes(key, record)
            assert state is not None
            kept = {name: tf.constant(tensor) for name, tensor in state.tensors.items()}
            found[precision].append(score(**kept, **request)["probabilities"].numpy()[0])
    exact = np.stack(found["float32"])
    best = np.argsort(-exact, axis=1, kind="stable")[:, :TOP]
    errors = {}
    for precision, scores in found.items():
        values = np.stack(scores)
        difference = np.abs(values - exact)
        same = (np.argsort(-values, axis=1, kind="stable")[:, :TOP] == best).all(axis=1)
        errors[precision] = Error(
            sizes[precision], float(difference.max()), float(difference.mean()), float(same.mean()), float(exact.std())
        )
    return errors


def main(
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = "din,dmf,dmqn",
    rows: Annotated[int, typer.Option(min=600, help="Impressions to train on.")] = 20_000,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    users: Annotated[int, typer.Option(min=1)] = 100,
    candidates: Annotated[int, typer.Option(min=TOP)] = 200,
) -> None:
    """Measure, and print the table."""
    lines = [
        f"| preset | precision | bytes a user | largest error | mean error | same top {TOP} | spread of probabilities |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for preset in presets.split(","):
            for precision, error in measure(preset, Path(directory), rows, epochs, users, candidates).items():
                figures = f"{error.record_bytes:,} | {error.largest:.1e} | {error.mean:.1e} | {error.same_top:.0%}"
                lines.append(f"| {preset} | {precision} | {figures} | {error.spread:.3f} |")
    for line in lines:
        console().print(line, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
