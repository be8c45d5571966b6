"""The AUC and GAUC that presets reach on a fixed synthetic data set.

`python -m tests.quality [PRESET ...]` measures the presets in tests/quality.json anew, or only those that are named.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.workbench import Workbench, small_features
from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.training.experiment import Experiment
from tfctr.training.loop import validate
from tfctr.training.run import run_training

PATH = Path(__file__).with_name("quality.json")
METRICS = ("auc", "gauc")
# Another processor may add in another order, so its result differs as that of other seeds does. The test takes the mean
# of RUNS seeds, and the tolerance is four standard deviations of such a mean, but at least FLOOR: a test split of 1,200
# rows cannot show smaller differences.
RUNS, DEVIATIONS, FLOOR = 3, 4, 0.015


@dataclass(frozen=True)
class Bench:
    """The data set, and the ceilings of the metrics on its test split, which no model can beat."""

    workbench: Workbench
    ceiling: dict[str, Any]

    def reach(self, preset: str, seed: int, training: dict[str, Any], directory: Path) -> dict[str, float]:
        """Trains a preset once and returns its metrics on the test split."""
        experiment = Experiment.model_validate({"preset": preset, "training": {**training, "seed": seed}})
        splits = {name: self.workbench.split(name) for name in ("train", "valid", "test")}
        result = run_training(self.workbench.assets, experiment, splits["train"], splits["valid"], directory / "runs")
        return validate(result.model, splits["test"], 2048)


def make_bench(data: dict[str, int], directory: Path) -> Bench:
    manifest = synthesize(directory / "data", Settings(**data))
    file = small_features(data["history_length"])
    assets = analyze(file, split_files(directory / "data", "train"), directory / "assets", directory / "data")
    ceiling = manifest["ceilings"]["position_unknown"]
    return Bench(Workbench(directory / "data", file, assets), {name: ceiling[name]["expected"] for name in METRICS})


def summary(reached: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of every metric, and the tolerance of a mean of `RUNS`."""
    found = {}
    for name in METRICS:
        values = np.array([run[name] for run in reached])
        deviation = float(values.std(ddof=1))
        found[name] = {
            "mean": round(float(values.mean()), 4),
            "standard_deviation": round(deviation, 4),
            "tolerance": round(max(DEVIATIONS * deviation / RUNS**0.5, FLOOR), 4),
        }
    return found


def main(presets: list[str]) -> None:
    content = json.loads(PATH.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as directory:
        bench = make_bench(content["data"], Path(directory))
        content["ceiling"] = bench.ceiling
        for preset in presets or content["presets"]:
            content["presets"][preset] = summary(
                [bench.reach(preset, seed, content["training"], Path(directory)) for seed in content["seeds"]]
            )
    PATH.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
