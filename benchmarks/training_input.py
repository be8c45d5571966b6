"""How fast rows come into the model, and how fast `tfctr train` is as a whole.

    python -m benchmarks.training_input --frappe FRAPPE --movielens DATA --work WORK

FRAPPE holds the publisher's train.csv.gz, valid.csv.gz and test.csv.gz; DATA is `tfctr data prepare movielens-1m`.
WORK must be new: what is made once, the analysis and the copy, is timed too. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from benchmarks.report import say

FRAPPE = Path(__file__).with_name("frappe.yaml")
TRAIN_ROWS = 202_027
MOVIELENS = Path(__file__).parents[1] / "configs" / "movielens.yaml"
BATCH = 1024
Result = TypeVar("Result")


def main(
    work: Annotated[Path, typer.Option(help="A new directory.")],
    frappe: Annotated[Path | None, typer.Option(help="Directory with Frappe's CSV files.")] = None,
    movielens: Annotated[Path | None, typer.Option(help="Prepared MovieLens-1M.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of `tfctr train`.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Passes over the copy.")] = 5,
) -> None:
    """Print the tables."""
    say(
        f"{os.cpu_count()} cores, load before it {os.getloadavg()[0]:.1f}, matrix products at {_products():.0f} "
        f"GFLOP/s; batches of {BATCH:,} rows\n"
    )
    say("| data | train rows | analysis, s | copy, rows/s | into the model, rows/s, median (least to most) |")
    say("|---|---|---|---|---|")
    if frappe is not None:
        for split in ("train", "valid", "test"):
            (work / "frappe" / split).mkdir(parents=True)
            (work / "frappe" / split / "part.csv.gz").symlink_to((frappe / f"{split}.csv.gz").resolve())
        _reading("Frappe", FRAPPE, work / "frappe", work, repeats)
    if movielens is not None:
        _reading("MovieLens-1M, 50 events", MOVIELENS, movielens, work, repeats)
    if frappe is not None:
        _steps(work)
        _training(work, epochs)
    say(f"\nmatrix products after it at {_products():.0f} GFLOP/s")


def _reading(name: str, features: Path, data: Path, work: Path, repeats: int) -> None:
    from tfctr.data.analyze import analyze
    from tfctr.data.sources import split_files
    from tfctr.features import load_feature_file
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData

    file, paths, place = load_feature_file(features), split_files(data, "train"), work / features.stem
    assets, analyzing = _timed(lambda: analyze(file, paths, place / "assets", data))
    function = RawFunction(file, FileLookups(assets))
    rows, copying = _timed(lambda: RankingData.of_log(file, paths, function, place / "rows", training=True))

    def epoch(seed: int) -> int:
        return sum(len(labels) for _, labels, _ in rows.batches(BATCH, seed))

    speeds = [len(rows) / _timed(lambda seed=seed: epoch(seed))[1] for seed in range(repeats)]
    say(
        f"| {name} | {len(rows):,} | {analyzing:.1f} | {len(rows) / copying:,.0f} | "
        f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f}) |"
    )


def _products() -> float:
    """What the machine gives at this moment: other work on it shows here first."""
    import tensorflow as tf

    left, right = tf.random.normal([BATCH, BATCH]), tf.random.normal([BATCH, BATCH])
    product = tf.function(lambda: tf.linalg.matmul(left, right))
    product()
    seconds = statistics.median(_timed(product)[1] for _ in range(20))
    return 2 * BATCH**3 / seconds / 1e9


def _steps(work: Path) -> None:
    """The training step on one batch again and again, and on the rows as they come."""
    import keras
    import tensorflow as tf

    from tfctr.features import load_feature_file
    from tfctr.features.assets import FeatureAssets
    from tfctr.models.model import build_model
    from tfctr.training.dataset import RankingData
    from tfctr.training.experiment import Experiment

    file, place = load_feature_file(FRAPPE), work / FRAPPE.stem
    rows = RankingData(place / "rows", file)
    model = build_model(FeatureAssets(place / "assets"), Experiment(preset="mlp").model_config_of())
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8, global_clipnorm=10.0), jit_compile=True)
    batch = next(iter(rows.batches(BATCH, 0)))
    again = tf.data.Dataset.from_tensors(batch).repeat(len(rows) // BATCH)
    speeds: dict[str, list[float]] = {"one batch again and again": [], "rows as they come": []}
    for number in range(4):  # by turns, since other work on the machine comes and goes; the first compiles
        for name, data in zip(speeds, (again, rows.batches(BATCH, number)), strict=True):
            seconds = _timed(lambda data=data: model.fit(data, verbose=0, shuffle=False))[1]
            speeds[name].append(len(rows) / seconds)
    say("\n| training step, preset mlp, Frappe | rows/s, best of three |\n|---|---|")
    for name, found in speeds.items():
        say(f"| {name} | {max(found[1:]):,.0f} |")


def _training(work: Path, epochs: int) -> None:
    """`tfctr train`, from the first line of the log to the weights of the best epoch."""
    from tfctr.features import load_feature_file
    from tfctr.training.experiment import Experiment
    from tfctr.training.workspace import train_in_workspace

    file = load_feature_file(FRAPPE)
    say("\n| `tfctr train`, preset mlp, Frappe | rows trained | seconds | rows/s |\n|---|---|---|---|")
    for seed, title in enumerate(("first run: analysis, copies, compilation", "another seed: compilation"), start=1):
        training = {"epochs": epochs, "patience": epochs, "batch_size": BATCH, "seed": seed}
        experiment = Experiment.model_validate({"preset": "mlp", "training": training})
        started = time.perf_counter()
        result = train_in_workspace(file, experiment, work / "frappe", work / "run")
        seconds = time.perf_counter() - started
        rows = TRAIN_ROWS * len(result.progress.history)
        say(f"| {title}, {epochs} epochs with validation | {rows:,} | {seconds:.1f} | {rows / seconds:,.0f} |")


def _timed(action: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
