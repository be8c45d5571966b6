"""`tfctr features` and `tfctr models`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import SHIPPED, Ran
from tests.workbench import Workbench
from tfctr.features import load_feature_file
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.models.presets import PRESETS
from tfctr.training.experiment import Experiment

Call = Callable[..., Ran]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
class TestShippedFiles:
    def test_validate(self, tfctr: Call, path: Path) -> None:
        assert f"{path}: valid (" in tfctr("features", "validate", path).output

    def test_show(self, tfctr: Call, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        printed = tfctr("features", "show", path).output
        for word in ("item_id", "candidate", "identity below 100", "shares item_id", "0 (shared)", "after analysis"):
            assert word in printed
        # An identity vocabulary of size 100 has 102 rows, with those for padding and unknown ids. Each is 16 wide.
        assert "1,632" in printed


def test_show_with_assets_counts_learned_tables(
    tfctr: Call, workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "features.yaml"
    path.write_text(yaml.safe_dump(workbench.file.model_dump(mode="json", exclude_unset=True)))
    printed = tfctr("features", "show", path, "--assets", workbench.assets.directory).output
    assert "after analysis" not in printed
    assert f"{workbench.assets.table_rows('item_id') * 8:,}" in printed


def test_validate_says_file_and_place(tfctr: Call, tmp_path: Path) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(SHIPPED[0].read_text().replace("max_values: 4", "max_valus: 4"))
    error = tfctr("features", "validate", path).error
    assert error is not None
    assert error.startswith(f"{path}: candidate.genres")
    assert "max_valus" in error


def test_models_json(tfctr: Call) -> None:
    found = json.loads(tfctr("models", "--json").output)
    assert found.keys() == {"interests", "interactions", "presets"}
    assert found["interests"].keys() == INTERESTS.keys()
    assert found["interactions"].keys() == INTERACTIONS.keys()
    assert found["presets"].keys() == PRESETS.keys()
    assert all(about for axis in ("interests", "interactions") for about in found[axis].values())
    assert found["presets"]["dmf"]["interests"] == [{"type": "cmm", "project": False}]


def test_models_table(tfctr: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = tfctr("models").output
    for name in (*INTERESTS, *INTERACTIONS, *PRESETS):
        assert name in printed


def test_the_settings_of_a_preset(tfctr: Call) -> None:
    found = json.loads(tfctr("models", "dmqn", "--json").output)
    assert found["interests"][0].items() >= {"type": "dmqn", "codebooks": 4, "codewords": 32, "noise": "none"}.items()
    assert found["interaction"]["hidden"] == [256, 128, 64]
    again = Experiment.model_validate({"preset": "mlp", "model": yaml.safe_load(tfctr("models", "dmf").output)})
    assert again.model_config_of().interests_of(load_feature_file(SHIPPED[0]))
    assert tfctr("models", "nope").error.startswith("preset: no preset 'nope'. Allowed: mlp, ")


def test_the_arguments_of_a_module(tfctr: Call) -> None:
    assert json.loads(tfctr("models", "asta", "--json").output)["interests"][0]["activation"] == "relu"
    found = yaml.safe_load(tfctr("models", "cross_net").output)
    assert (
        Experiment.model_validate({"preset": "mlp", "model": found}).model_config_of().interaction
        == found["interaction"]
    )
