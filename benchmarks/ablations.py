"""The ablations of the papers on MovieLens-1M, with a sample of users, long histories and paired seeds.

    tfctr data prepare movielens-1m --source SOURCE --out DATA --users 1000 --history-length 200
    python -m benchmarks.ablations --data DATA --work WORK

benchmarks/ablations.yaml lists the models and the pairs that are compared. All models are trained on the same rows
with the same settings and seeds. Finished trainings in WORK are used again. `--only NAME,NAME` trains some of the
models, `--tables` only prints the tables. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.report import say

PLAN = Path(__file__).with_suffix(".yaml")
CONFIGS = Path(__file__).parents[1] / "configs"


def main(
    data: Annotated[Path, typer.Option(help="The prepared data directory.")],
    work: Annotated[Path, typer.Option(help="Directory for the predictions.")],
    only: Annotated[str, typer.Option(help="Comma-separated names; default: all.")] = "",
    plan_file: Annotated[Path, typer.Option("--plan", help="Models and pairs.")] = PLAN,
    tables: Annotated[bool, typer.Option("--tables", help="Only print the tables.")] = False,
) -> None:
    """Train every model with every seed, then print the tables."""
    plan = yaml.safe_load(plan_file.read_text(encoding="utf-8"))
    names = only.split(",") if only else list(plan["models"])
    work.mkdir(parents=True, exist_ok=True)
    if not tables:
        # Seed by seed, so that an interrupted run has complete results for some seeds.
        for seed in plan["seeds"]:
            for name in names:
                if not (work / f"{name}-{seed}.npz").exists():
                    _train_and_score(data, work, plan, name, seed)
    _tables(work, plan)


def _features(name: str, history: int) -> Any:
    from tfctr.features import FeatureFile, load_feature_file

    content = load_feature_file(CONFIGS / name).model_dump(mode="json", exclude_unset=True)
    content["sequences"]["history"]["max_length"] = history
    return FeatureFile.model_validate(content)


def _train_and_score(data: Path, work: Path, plan: dict[str, Any], name: str, seed: int) -> None:
    import keras

    from tfctr.data.analyze import analyze
    from tfctr.data.sources import split_files
    from tfctr.features.assets import FeatureAssets
    from tfctr.training.experiment import Experiment
    from tfctr.training.run import run_training

    entry = dict(plan["models"][name])
    history = entry.pop("history", plan["history"])
    file = _features(plan["features"], history)
    directory = work / f"assets-{history}"
    if not directory.exists():
        analyze(file, split_files(data, "train"), directory, data)
    assets = FeatureAssets(directory)
    train, valid, test = (_loaded(data, split, file, assets) for split in ("train", "valid", "test"))
    experiment = Experiment.model_validate({**entry, "training": {**plan["training"], "seed": seed}})
    started = time.monotonic()
    result = run_training(assets, experiment, train, valid, work / "runs")
    seconds = time.monotonic() - started
    labels, scores, groups = [], [], []
    for inputs, label, _, group in test.batches(1024, groups=True):
        scores.append(keras.ops.convert_to_numpy(keras.ops.sigmoid(result.model.predict_on_batch(inputs))).ravel())
        labels.append(np.asarray(label).ravel())
        groups.append(np.asarray(group))
    note = {
        "seconds": seconds,
        "epochs": len(result.progress.history),
        "best_epoch": result.progress.best_epoch,
        "weights": int(sum(np.prod(weight.shape) for weight in result.model.scorer.interaction.weights)),
        "history": result.progress.history,
    }
    (work / f"{name}-{seed}.json").write_text(json.dumps(note), encoding="utf-8")
    columns = {"labels": labels, "scores": scores, "groups": groups}
    np.savez(work / f"{name}-{seed}.npz", **{key: np.concatenate(value) for key, value in columns.items()})
    keras.backend.clear_session()


def _loaded(data: Path, split: str, file: Any, assets: Any) -> Any:
    from tfctr.data.sources import split_files
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData

    copy = assets.directory.parent / f"rows-{split}-{assets.fingerprint[:16]}"
    return RankingData.of_log(file, split_files(data, split), RawFunction(file, FileLookups(assets)), copy)


def _tables(work: Path, plan: dict[str, Any]) -> None:
    from tfctr.metrics.bootstrap import bootstrap_difference
    from tfctr.metrics.reference import auc, gauc

    seeds = plan["seeds"]
    done = [name for name in plan["models"] if all((work / f"{name}-{seed}.npz").exists() for seed in seeds)]
    rows = {(name, seed): np.load(work / f"{name}-{seed}.npz") for name in done for seed in seeds}
    notes = {key: json.loads((work / f"{key[0]}-{key[1]}.json").read_text(encoding="utf-8")) for key in rows}
    say("\n| model | AUC | GAUC | best epoch | weights of the backbone | training seconds |\n|---|---|---|---|---|---|")
    for name in done:
        of_seed = [rows[name, seed] for seed in seeds]
        reached = [auc(one["labels"], one["scores"]) for one in of_seed]
        by_user = [gauc(one["labels"], one["scores"], one["groups"]).value for one in of_seed]
        epochs, seconds = ([notes[name, seed][key] for seed in seeds] for key in ("best_epoch", "seconds"))
        say(
            f"| {name} | {_spread(reached)} | {_spread(by_user)} | {'/'.join(map(str, epochs))} | "
            f"{notes[name, seeds[0]]['weights']:,} | {'/'.join(f'{value:.0f}' for value in seconds)} |"
        )
    say("\n| claim | metric | mean over seeds | 95 % interval by seed |\n|---|---|---|---|")
    for first, second in plan["pairs"]:
        if first not in done or second not in done:
            continue
        for metric in ("auc", "gauc"):
            found = []
            for seed in seeds:
                better, worse = rows[first, seed], rows[second, seed]
                found.append(
                    bootstrap_difference(
                        better["labels"],
                        worse["scores"],
                        better["scores"],
                        better["groups"],
                        metric=metric,
                        replicates=500,
                    )
                )
            intervals = ", ".join(f"[{one.low:+.4f}, {one.high:+.4f}]" for one in found)
            mean = np.mean([one.difference for one in found])
            say(f"| {first} > {second} | {metric.upper()} | {mean:+.4f} | {intervals} |")


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=min(1, len(values) - 1)):.4f}"


if __name__ == "__main__":
    typer.run(main)
