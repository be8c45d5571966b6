"""score(user_tower(u), c) equals serving_default to 1e-6 in a process that can import neither keras nor tfctr."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfctr.models
from tests.export.conftest import ROWS
from tests.workbench import PRESETS, Workbench
from tfctr.export.saved_model import export_model
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.e2e


def run(rows: Path, *directories: Path) -> dict:
    script = Path(__file__).with_name("served.py")
    command = [sys.executable, str(script), str(rows), *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=rows.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_preset_in_a_bare_process(exported: dict[str, Path], rows: Path) -> None:
    answer = run(rows, *exported.values())
    assert answer["import_attempts"] == []
    for name in PRESETS:
        result = answer["results"][str(exported[name])]
        assert result["rows"] == ROWS
        assert result["spread"] > 1e-3, name
        assert result["difference"] <= 1e-6, name
        assert result["difference_among_others"] <= 1e-6, name


@pytest.mark.night
@pytest.mark.parametrize("name", tfctr.models.PRESETS)
def test_any_preset_in_a_bare_process(workbench: Workbench, rows: Path, tmp_path: Path, name: str) -> None:
    model = workbench.model(name)
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        # At the start the scores of some models lie so close together that equal ones would prove little.
        weight.assign(weight + generator.normal(0.0, 0.05, weight.shape).astype("float32"))
    experiment = Experiment(preset=name, export={"warmup_candidates": [1]})
    directory = export_model(model, workbench.assets, experiment, tmp_path / name / "1")
    answer = run(rows, directory)
    result = answer["results"][str(directory)]
    assert answer["import_attempts"] == []
    assert result["rows"] == ROWS
    assert result["spread"] > 1e-3
    assert max(result["difference"], result["difference_among_others"]) <= 1e-6


def test_half_precision_state_has_its_own_bound(
    workbench: Workbench, exported: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    experiment = Experiment(preset="dmf", export={"state_dtype": "float16"})
    directory = export_model(workbench.model("dmf"), workbench.assets, experiment, tmp_path / "1")
    results = run(rows, directory, exported["dmf"])["results"]
    half, full = results[str(directory)], results[str(exported["dmf"])]
    # serving_default rounds the state to float16 as well, so the two signatures still agree.
    assert half["difference"] <= 1e-6
    rounding = np.abs(np.subtract(half["probabilities"], full["probabilities"])).max()
    assert 0 < rounding <= 1e-3


def test_mixed_precision_agrees_too(workbench: Workbench, rows: Path, tmp_path: Path) -> None:
    experiment = Experiment(preset="din", training={"dtype": "mixed_bfloat16"})
    model = workbench.model("din", dtype="mixed_bfloat16")
    directory = export_model(model, workbench.assets, experiment, tmp_path / "1")
    result = run(rows, directory)["results"][str(directory)]
    assert result["difference"] <= 1e-6
