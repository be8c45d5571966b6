"""Quality on MovieLens-1M: presets with several seeds on one Transform output, slices, paired bootstrap over users.

    tfctr data prepare movielens-1m --source SOURCE --out DATA
    python -m pipeline.local_runner --data DATA --features configs/movielens.yaml --experiment EXPERIMENT --out RUN
    python -m benchmarks.movielens --data DATA --run RUN --work WORK

The models are trained on the Transform output of RUN with the training of the pipeline, exported, and score the raw
test split with `serving_default`. Finished trainings in WORK are used again. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.report import say

PRESETS = ("mlp", "qnn-alpha", "din", "dmf")
METRICS = ("auc", "gauc", "logloss", "copc")


def main(
    data: Annotated[Path, typer.Option(help="The prepared data directory.")],
    run: Annotated[Path, typer.Option(help="Output directory of a pipeline run on this data.")],
    work: Annotated[Path, typer.Option(help="Directory for models and predictions.")],
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    embedding_l2: Annotated[float, typer.Option(min=0)] = 1e-5,
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(PRESETS),
) -> None:
    """Train every preset with every seed, then print the tables."""
    names = presets.split(",")
    for seed in range(1, seeds + 1):
        for name in names:
            if not (work / f"{name}-{seed}.npz").exists():
                _train_and_score(data, run, work, name, seed, epochs, embedding_l2)
    _tables(work, names, range(1, seeds + 1))


def _train_and_score(data: Path, run: Path, work: Path, name: str, seed: int, epochs: int, embedding_l2: float) -> None:
    from pipeline.assets import assets_from_transform
    from pipeline.local_runner import OutputLayout
    from pipeline.store import Store
    from tfctr.data.sources import split_files
    from tfctr.export.saved_model import export_model
    from tfctr.features import load_feature_file
    from tfctr.training.dataset import RankingData
    from tfctr.training.evaluate import predict
    from tfctr.training.experiment import Experiment
    from tfctr.training.run import run_training

    started = time.monotonic()
    latest = Store(OutputLayout(run).metadata).latest("Transform")
    assert latest is not None, f"no Transform ran in {run}"
    examples = Path(latest["transformed_examples"].uri)
    splits = {split: sorted(str(p) for p in (examples / f"Split-{split}").glob("*")) for split in ("train", "eval")}
    file = load_feature_file(Path(__file__).parents[1] / "configs" / "movielens.yaml")
    assets = assets_from_transform(latest["transform_graph"].uri, splits["train"], file, work / "assets", data)
    experiment = Experiment.model_validate(
        {
            "preset": name,
            "model": {"embedding_l2": embedding_l2},
            "training": {"epochs": epochs, "patience": 1, "seed": seed},
        }
    )
    train, valid = (RankingData.of_transformed(file, splits[s], work / f"rows-{s}") for s in ("train", "eval"))
    result = run_training(assets, experiment, train, valid, work / "runs")
    trained = time.monotonic() - started
    exported = work / f"{name}-{seed}"
    if not exported.exists():
        export_model(result.model, assets, experiment, exported, history=result.progress.history)
    rows = predict(exported, file, split_files(data, "test"), ("gender",))
    rows.save(work / f"{name}-{seed}.npz")
    note = {"train_seconds": trained, "epochs": len(result.progress.history), "history": result.progress.history}
    (work / f"{name}-{seed}.json").write_text(json.dumps(note), encoding="utf-8")


def _tables(work: Path, names: list[str], seeds: range) -> None:
    from tfctr.metrics.bootstrap import bootstrap_difference
    from tfctr.metrics.report import report

    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    loaded = {(name, seed): np.load(work / f"{name}-{seed}.npz") for name in names for seed in seeds}
    for (name, _), rows in loaded.items():
        slices = {key.removeprefix("slice/"): rows[key] for key in rows.files if key.startswith("slice/")}
        for row in report(rows["labels"], rows["scores"], rows["groups"], slices=slices):
            found.setdefault((row.slice, row.value), {}).setdefault(name, []).append(vars(row))
    say(f"\n| slice | examples | {' | '.join(f'{name} AUC / GAUC' for name in names)} |")
    say(f"|---|---|{'---|' * len(names)}")
    for (column, value), by_name in found.items():
        cells = [f"{_mean(by_name[name], 'auc')} / {_mean(by_name[name], 'gauc')}" for name in names]
        say(f"| {column} {value} | {by_name[names[0]][0]['examples']:,} | {' | '.join(cells)} |")
    say("\n| preset | AUC | GAUC | logloss | COPC | epochs | training seconds |\n|---|---|---|---|---|---|---|")
    for name in names:
        notes = [json.loads((work / f"{name}-{seed}.json").read_text(encoding="utf-8")) for seed in seeds]
        cells = [_mean(found["overall", ""][name], metric, spread=True) for metric in METRICS]
        timing = "/".join(f"{note['train_seconds']:.0f}" for note in notes)
        say(f"| {name} | {' | '.join(cells)} | {'/'.join(str(note['epochs']) for note in notes)} | {timing} |")
    say("\n| difference | metric | mean over seeds | 95 % interval by seed |\n|---|---|---|---|")
    for first, second in [*((names[0], name) for name in names[1:]), *pairwise(names[1:])]:
        for metric in ("auc", "gauc"):
            results = [
                bootstrap_difference(
                    loaded[first, s]["labels"],
                    loaded[first, s]["scores"],
                    loaded[second, s]["scores"],
                    loaded[first, s]["groups"],
                    metric=metric,
                    replicates=500,
                )
                for s in seeds
            ]
            intervals = ", ".join(f"[{one.low:+.4f}, {one.high:+.4f}]" for one in results)
            mean = np.mean([one.difference for one in results])
            say(f"| {second} - {first} | {metric.upper()} | {mean:+.4f} | {intervals} |")


def _mean(rows: list[dict[str, Any]], metric: str, spread: bool = False) -> str:
    values = [row[metric] for row in rows]
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=min(1, len(values) - 1)):.4f}" if spread else "")


if __name__ == "__main__":
    typer.run(main)
