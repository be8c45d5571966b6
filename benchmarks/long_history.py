"""DMQN on histories of 1,000 to 10,000 events against mean pooling, DIN and SIM: at equal time, at equal state size.

    python -m benchmarks.long_history --work WORK [--history 1000,4000,10000] [--seeds 3]

benchmarks/long_history.yaml is the plan. Synthetic users have an interest that shows only in old events; those of
valid and test are in no other split. Each model is trained as `tfctr train` trains, until validation stops it: at the
shortest histories with the first seed at every learning rate, otherwise at the best of these by its validation AUC.
`din` has the rate of `din-newest`, which takes a fourth of the time. `--results` collects finished trainings, a line
each, and they are not repeated; `--tables` only prints the tables of that file. A + there is a best epoch that was the
last one allowed.

Times are processor time of the process, of all its threads, for compilation, steps and validation, so that other work
on the machine counts little.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.report import say
from benchmarks.splits import prepared

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "long_history.jsonl"
REFERENCE = "dmqn"
"""The model whose time to its best epoch is the equal time."""


def main(
    work: Annotated[Path, typer.Option(help="Directory for data and trainings.")],
    history: Annotated[str, typer.Option(help="The most events in a history, with commas.")] = "1000,4000,10000",
    only: Annotated[str, typer.Option(help="Models, with commas; default: all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many of the plan's seeds.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; default: those of the plan.")] = None,
    results: Annotated[Path, typer.Option(help="The file of results, a line each.")] = RESULTS,
    tables: Annotated[bool, typer.Option("--tables", help="Only print the tables of the results.")] = False,
) -> None:
    """Train every model, then print the tables."""
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    names = only.split(",") if only else list(plan["models"])
    plan["training"]["epochs"] = epochs or plan["training"]["epochs"]
    for length in [] if tables else [int(one) for one in history.split(",")]:
        for seed in plan["seeds"][:seeds]:
            for name in names:
                for rate in _rates(plan, _read(results), length, name, seed):
                    key = (length, name, rate, seed)
                    if any((row["history"], row["model"], row["rate"], row["seed"]) == key for row in _read(results)):
                        continue
                    row = _train(work, plan, length, name, rate, seed)
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    for length in sorted({row["history"] for row in _read(results)}):
        _table(plan, length, [row for row in _read(results) if row["history"] == length])


def _read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def _rates(plan: dict[str, Any], rows: list[dict[str, Any]], length: int, name: str, seed: int) -> list[float]:
    """The grid for the first seed at the shortest histories, and its best rate by validation AUC for all others."""
    shortest, first, of = min(plan["histories"]), plan["seeds"][0], plan["models"][name].get("rate_of", name)
    if (length, seed, of) == (shortest, first, name):
        return [float(rate) for rate in plan["rates"]]
    tried = [row for row in rows if (row["history"], row["model"], row["seed"]) == (shortest, of, first)]
    if not tried:
        raise typer.BadParameter(f"the rate of {name} at {length} comes from {of} at {shortest}: train that first")
    return [float(max(tried, key=lambda row: max(row["valid_auc"]))["rate"])]


def _train(work: Path, plan: dict[str, Any], length: int, name: str, rate: float, seed: int) -> dict[str, Any]:
    import keras

    from tfctr.data.synthesize import synthesize
    from tfctr.data.synthetic_world import Settings
    from tfctr.features import FeatureFile
    from tfctr.training.experiment import Experiment
    from tfctr.training.loop import validate
    from tfctr.training.requests import RequestData
    from tfctr.training.run import run_training

    data, entry = work / f"data-{length}", plan["models"][name]
    if not data.exists():
        synthesize(data, Settings(history_length=length, **plan["data"], **plan["histories"][length]))
    read = entry.get("newest", length)
    place = work / f"{length}-{read}"
    plan["features"]["sequences"]["history"]["max_length"] = read
    file = FeatureFile.model_validate(plan["features"])
    assets, (train, valid, test) = prepared(data, file, place)
    training = {**plan["training"], "learning_rate": rate, "seed": seed}
    model = {"interests": [{"features": [], "content": True, **entry["interest"]}]}
    experiment = Experiment.model_validate({"preset": "mlp", "model": model, "training": training})
    seconds: list[float] = []
    started = time.process_time()
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seconds.append(time.process_time() - started)
    )
    runs = place / "runs" / f"{name}-{rate}-{seed}"
    # A killed training begins anew, or its time would not be known.
    shutil.rmtree(runs, ignore_errors=True)
    result = run_training(assets, experiment, train, valid, runs, callbacks=[clock])
    inputs = next(iter(test.batches(1)))[0]
    best = result.progress.history[result.progress.best_epoch - 1]
    manifest = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    row = {
        "history": length,
        "model": name,
        "rate": rate,
        "seed": seed,
        "valid_auc": [epoch["auc"] for epoch in result.progress.history],
        "cpu_seconds": seconds,
        "best_epoch": result.progress.best_epoch,
        "test_auc": validate(result.model, RequestData(test.copy, file), training["batch_size"])["auc"],
        "state_bytes": sum(np.asarray(one).nbytes for one in result.model.user_tower(inputs, training=False).values()),
        "epochs": training["epochs"],
        "rows": len(train),
        "ceiling": manifest["ceilings"]["position_unknown"]["auc"],
        "figures": {key.split("codebook_")[1]: value for key, value in best.items() if "codebook_" in key},
        "load": os.getloadavg()[0],
    }
    keras.backend.clear_session()
    return row


def _table(plan: dict[str, Any], length: int, rows: list[dict[str, Any]]) -> None:
    first = plan["seeds"][0]
    chosen: dict[str, list[dict[str, Any]]] = {}
    for name in plan["models"]:
        if own := [row for row in rows if row["model"] == name]:
            best = max((row for row in own if row["seed"] == first), key=lambda row: max(row["valid_auc"]))
            same = [row for row in own if row["rate"] == best["rate"]]
            chosen[name] = sorted(same, key=lambda row: row["seed"])
    until = {row["seed"]: row["cpu_seconds"][row["best_epoch"] - 1] for row in chosen.get(REFERENCE, [])}
    ceiling = rows[0]["ceiling"]
    say(
        f"\nUp to {length:,} events, {rows[0]['rows']:,} train rows; ceiling {ceiling['drawn_labels']:.4f} on the "
        f"labels drawn, {ceiling['expected']:.4f} ± {ceiling['standard_deviation']:.4f} expected.\n"
    )
    titles = (
        "model", "rate", "seeds", "test AUC", "epochs to the best", "CPU s to the best", "CPU s an epoch",
        "valid AUC at its best", f"valid AUC by {REFERENCE}'s time", "state, bytes",
    )  # fmt: skip
    say(_line(titles) + "\n" + "|---" * len(titles) + "|")
    for name, own in chosen.items():
        reached = [_at(one, until[one["seed"]]) for one in own if one["seed"] in until]
        cells = [
            name,
            f"{own[0]['rate']:g}",
            str(len(own)),
            _spread([one["test_auc"] for one in own]),
            "/".join(f"{one['best_epoch']}{'+' * (one['best_epoch'] == one['epochs'])}" for one in own),
            "/".join(f"{one['cpu_seconds'][one['best_epoch'] - 1]:.0f}" for one in own),
            f"{np.median([_later_epochs(one) for one in own]):.0f}",
            _spread([max(one["valid_auc"]) for one in own]),
            _spread([one for one in reached if one is not None]) if reached and None not in reached else "no epoch yet",
            f"{own[0]['state_bytes']:,}",
        ]
        say(_line(cells))


def _at(row: dict[str, Any], seconds: float) -> float | None:
    """The best validation AUC within a time; None where no epoch ends in it."""
    found = [auc for auc, ended in zip(row["valid_auc"], row["cpu_seconds"], strict=True) if ended <= seconds]
    return max(found, default=None)


def _later_epochs(row: dict[str, Any]) -> float:
    """The time of an epoch after the first, which compiles, if there are any."""
    return float(np.median(np.diff(row["cpu_seconds"]) if row["cpu_seconds"][1:] else row["cpu_seconds"]))


def _spread(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    typer.run(main)
