"""What optimizers of tables cost or gain in AUC: Adam over whole tables against those that read the batch's rows.

    tfctr data prepare frappe --source SOURCE --out FRAPPE
    tfctr data prepare movielens-1m --source SOURCE --out MOVIELENS --users 1000 --history-length 50
    python -m benchmarks.optimizers --frappe FRAPPE --movielens MOVIELENS --work WORK

Each optimizer gets the penalty and the rate of a small grid that is best on the validation split with the first seed,
and then all seeds. All else is equal: the preset, its dense Adam, batch size, early stopping. A finished training in
WORK is used again. The table has the mean and the standard deviation over seeds on the test split, and the paired
difference to Adam. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import say

CONFIGS = Path(__file__).parents[1] / "configs"
FEATURES = {"frappe": Path(__file__).with_name("frappe.yaml"), "movielens": CONFIGS / "movielens.yaml"}
PRESETS = {"frappe": "mlp", "movielens": "din"}
TRAINING = {
    "frappe": {"epochs": 20, "batch_size": 4096, "patience": 2},
    "movielens": {"epochs": 6, "batch_size": 1024, "patience": 1},
}
PENALTIES = {"frappe": (0.0, 0.01, 0.05), "movielens": (0.0, 1e-4, 1e-3)}
OPTIMIZERS: dict[str, tuple[Any, ...]] = {
    "adam": (None,),
    "lazy_adam": ("lazy_adam",),
    "rowwise_adagrad": tuple({"type": "rowwise_adagrad", "learning_rate": rate} for rate in (0.01, 0.05)),
    "lazy_adagrad": tuple({"type": "lazy_adagrad", "learning_rate": rate} for rate in (0.01, 0.05)),
}
ADAM = "adam"


def main(
    work: Annotated[Path, typer.Option(help="Directory for the trainings.")],
    frappe: Annotated[Path | None, typer.Option(help="Prepared Frappe.")] = None,
    movielens: Annotated[Path | None, typer.Option(help="Prepared MovieLens-1M.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
) -> None:
    """Train, and print a table for each data set."""
    for name, data in (("frappe", frappe), ("movielens", movielens)):
        if data is not None:
            _compare(name, data, work / name, range(1, seeds + 1))


def _compare(name: str, data: Path, work: Path, seeds: range) -> None:
    chosen: dict[str, tuple[Any, float]] = {}
    for optimizer, forms in OPTIMIZERS.items():
        grid = [(form, penalty) for form in forms for penalty in PENALTIES[name]]
        chosen[optimizer] = max(grid, key=lambda one: _trained(name, data, work, *one, seeds[0])["valid"]["auc"])
    found = {
        optimizer: [_trained(name, data, work, *chosen[optimizer], seed) for seed in seeds] for optimizer in chosen
    }
    say(f"\n{name}, {PRESETS[name]}, {len(seeds)} seeds\n")
    say("| tables | rate | penalty | test AUC | test logloss | against adam | epochs | seconds |")
    say("|---|---|---|---|---|---|---|---|")
    for optimizer, (form, penalty) in chosen.items():
        runs = found[optimizer]
        auc, logloss = ([run["test"][metric] for run in runs] for metric in ("auc", "logloss"))
        paired = [one - run["test"]["auc"] for one, run in zip(auc, found[ADAM], strict=True)]
        rate = form["learning_rate"] if isinstance(form, dict) else 0.001
        cells = [optimizer, rate, penalty, _spread(auc), _spread(logloss), "" if optimizer == ADAM else _spread(paired)]
        cells += [f"{statistics.mean(run[key] for run in runs):.0f}" for key in ("epochs", "seconds")]
        say(f"| {' | '.join(map(str, cells))} |")


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def _trained(name: str, data: Path, work: Path, optimizer: Any, penalty: float, seed: int) -> dict[str, Any]:
    """The metrics of one training, which is made where it is not there."""
    form = optimizer if isinstance(optimizer, dict) else {"type": optimizer or ADAM}
    note = work / f"{'-'.join(map(str, form.values()))}-{penalty}-{seed}.json"
    if not note.exists():
        started = time.monotonic()
        result, test = _train(name, data, work, optimizer, penalty, seed)
        history = result.progress.history
        content = {
            "valid": history[result.progress.best_epoch - 1],
            "test": test,
            "epochs": len(history),
            "seconds": time.monotonic() - started,
        }
        note.write_text(json.dumps(content), encoding="utf-8")
    return json.loads(note.read_text(encoding="utf-8"))


def _train(name: str, data: Path, work: Path, optimizer: Any, penalty: float, seed: int) -> tuple[Any, Any]:
    import keras

    from tfctr.data.sources import split_files
    from tfctr.features import load_feature_file
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData
    from tfctr.training.experiment import Experiment
    from tfctr.training.loop import validate
    from tfctr.training.workspace import finished_run, train_in_workspace

    keras.backend.clear_session()
    file = load_feature_file(FEATURES[name])
    training = {**TRAINING[name], "embedding_optimizer": optimizer, "seed": seed}
    content = {"preset": PRESETS[name], "model": {"embedding_l2": penalty}, "training": training}
    result = train_in_workspace(file, Experiment.model_validate(content), data, work / "run")
    assets = finished_run(work / "run").assets
    rows = RawFunction(file, FileLookups(assets))
    test = RankingData.of_log(file, split_files(data, "test"), rows, work / f"test-{assets.fingerprint[:16]}")
    return result, validate(result.model, test, TRAINING[name]["batch_size"])


if __name__ == "__main__":
    typer.run(main)
