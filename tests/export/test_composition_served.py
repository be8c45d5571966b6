"""Each interest and each interaction is exported, and served in a process that can import neither keras nor tfctr."""

from pathlib import Path

import pytest

from tests.composition import covering_pairs, small_model
from tests.export.conftest import ROWS
from tests.export.test_served_parity import run
from tests.workbench import Workbench
from tfctr.export.saved_model import export_model
from tfctr.models import ModelConfig
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.e2e


def test_a_covering_set_in_a_bare_process(workbench: Workbench, rows: Path, tmp_path: Path) -> None:
    directories = {}
    configs = {
        f"{interest}-{interaction}": small_model(interest, interaction) for interest, interaction in covering_pairs()
    }
    configs["cmm beside make"] = ModelConfig(interests=({"type": "cmm"}, {"type": "make"}))
    configs["outputs as they are beside raw content"] = ModelConfig(
        interests=(
            {"type": "asta", "project": False},
            {"type": "asta", "features": [], "content": True, "raw": True},
        )
    )
    for name, config in configs.items():
        # One trace of each signature is enough here.
        experiment = Experiment(model=config.model_dump(), export={"warmup_candidates": [1]})
        directories[name] = export_model(workbench.model(config), workbench.assets, experiment, tmp_path / name / "1")
    answer = run(rows, *directories.values())
    assert answer["import_attempts"] == []
    wrong = {}
    for name, directory in directories.items():
        result = answer["results"][str(directory)]
        assert result["rows"] == ROWS
        assert result["spread"] > 1e-4, name
        found = max(result["difference"], result["difference_among_others"])
        if not found <= 1e-6:
            wrong[name] = found
    assert not wrong
