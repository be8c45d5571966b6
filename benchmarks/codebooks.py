"""Whether DMQN's codebooks learn the planted groups of synthetic items, and what that is worth, on users never seen.

    tfctr data synthesize --out DATA --rows 100000 --users 5000 --items 192 --history-length 100 \\
        --old-interest-after 50 --topics-of-genre 2 --unseen-users
    python -m benchmarks.codebooks --data DATA --work WORK

benchmarks/codebooks.yaml is the plan. Every model is trained as `tfctr train` trains, with every seed; a finished
training in WORK is not repeated. `--only NAME,NAME` trains some models, `--tables` only prints the table:

- AUC on the test split, whose users are in no other;
- the figures of `CodebookHealth` after the best epoch, as the log shows them;
- AMI: the adjusted mutual information of the items' words, without noise, and their planted topics, by item, the mean
  over the codebooks. An item has the word of its one event. A random partition has 0, the planted one 1.
"""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.report import say
from benchmarks.splits import prepared

PLAN = Path(__file__).with_suffix(".yaml")
FIGURES = ("agreement", "effective_words", "fit", "used_words")


def main(
    data: Annotated[Path, typer.Option(help="The synthetic data.")],
    work: Annotated[Path, typer.Option(help="Directory for what is found.")],
    only: Annotated[str, typer.Option(help="Comma-separated names; default: all.")] = "",
    plan_file: Annotated[Path, typer.Option("--plan", help="Models, features and training.")] = PLAN,
    tables: Annotated[bool, typer.Option("--tables", help="Only print the table.")] = False,
) -> None:
    """Train every model with every seed, then print the table."""
    for path, what in ((plan_file, "file"), (data / "items.csv", "synthetic data with planted topics")):
        if not path.is_file():
            raise typer.BadParameter(f"{path}: no such {what}")
    plan = yaml.safe_load(plan_file.read_text(encoding="utf-8"))
    work.mkdir(parents=True, exist_ok=True)
    names = only.split(",") if only else list(plan["models"])
    if unknown := [name for name in names if name not in plan["models"]]:
        raise typer.BadParameter(f"--only: no model {unknown}. Allowed: {', '.join(plan['models'])}")
    # Seed by seed, so that an interrupted run has complete results for some seeds.
    for seed in [] if tables else plan["seeds"]:
        for name in names:
            if seed not in plan["models"][name].get("seeds", plan["seeds"]):
                continue
            found = work / f"{name}-{seed}.json"
            if not found.exists():
                found.write_text(json.dumps(_train(data, work, plan, name, seed)), encoding="utf-8")
    _table(work, plan)


def _train(data: Path, work: Path, plan: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    import keras

    from tfctr.features import FeatureFile
    from tfctr.models.presets import preset
    from tfctr.training.experiment import Experiment
    from tfctr.training.loop import validate
    from tfctr.training.run import run_training

    file = FeatureFile.model_validate(plan["features"])
    assets, (train, valid, test) = prepared(data, file, work)
    entry = plan["models"][name]
    training = {**plan["training"], **entry.get("training", {}), "seed": seed}
    (own,) = preset(entry.get("preset", "mlp")).interests or ({},)
    model = {"interests": [{**own, **entry["interest"]}]}
    experiment = Experiment.model_validate({"preset": "mlp", "model": model, "training": training})
    started = time.monotonic()
    result = run_training(assets, experiment, train, valid, work / "runs")
    progress = result.progress
    best = progress.history[progress.best_epoch - 1]
    (interest,) = result.model.scorer.interests.values()
    codebook = getattr(interest, "codebook", None)
    note = {
        "auc": validate(result.model, test, training["batch_size"])["auc"],
        "best_epoch": progress.best_epoch,
        "seconds": time.monotonic() - started,
        "figures": {key.split("codebook_")[1]: value for key, value in best.items() if "codebook_" in key},
        "history": progress.history,
    }
    if codebook is not None:
        note["ami"] = _ami(_words(result.model, codebook, test), _topics(data))
    keras.backend.clear_session()
    return note


def _topics(data: Path) -> dict[int, int]:
    """The planted topic by the index of an item."""
    with (data / "items.csv").open(encoding="utf-8", newline="") as file:
        # The vocabulary of the plan is `identity`, whose indices are the ids plus one.
        return {int(row["item_id"]) + 1: int(row["topic"]) for row in csv.DictReader(file)}


def _words(model: Any, codebook: Any, data: Any) -> dict[int, tuple[int, ...]]:
    """The word of each codebook by the index of an item, for the items in the histories of some rows."""
    from keras import ops

    seen: list[Any] = []
    encode = codebook.call

    def listening(inputs: Any, mask: Any, training: bool | None = None) -> Any:
        found = encode(inputs, mask=mask, training=training)
        seen.append(found["assignment"])
        return found

    codebook.call = listening
    words: dict[int, tuple[int, ...]] = {}
    for inputs, *_ in data.batches(256).take(20):
        model.user_tower(inputs)
        items = np.asarray(inputs["history_item_id"])
        of_event = ops.convert_to_numpy(seen.pop())
        real = of_event.sum(axis=(2, 3)) > 0
        for item, word in zip(items[real].tolist(), of_event[real].argmax(axis=-1).tolist(), strict=True):
            words.setdefault(item, tuple(word))
    return words


def _ami(words: dict[int, tuple[int, ...]], topics: dict[int, int]) -> float:
    from sklearn.metrics import adjusted_mutual_info_score

    of_item = [topics[item] for item in words]
    return float(
        np.mean([adjusted_mutual_info_score(of_item, of_book) for of_book in zip(*words.values(), strict=True)])
    )


def _table(work: Path, plan: dict[str, Any]) -> None:
    titles = ("AUC", "AMI", *(figure.replace("_", " ") for figure in FIGURES), "best epoch", "seconds")
    say(f"\n| model | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
    for name in plan["models"]:
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob(f"{name}-[0-9]*.json"))]
        if not notes:
            continue
        cells = [_spread([note["auc"] for note in notes], 4)]
        cells += [_spread([note["ami"] for note in notes if "ami" in note], 2)]
        cells += [_spread([note["figures"][key] for note in notes if note["figures"]], 2) for key in FIGURES]
        cells += ["/".join(str(round(note[key])) for note in notes) for key in ("best_epoch", "seconds")]
        say(f"| {name} | {' | '.join(cells)} |")


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    typer.run(main)
