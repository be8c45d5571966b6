"""A preset on a feature file without a history, and what a changed one is called."""

from typing import Any

import pytest

from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.models.naming import model_name
from tfctr.training.experiment import Experiment

TABLE = FeatureFile.model_validate({"labels": {"click": "label"}, "group": "item_id", "candidate": {"item_id": {}}})


@pytest.mark.parametrize("name", ["din", "dmf", "qin", "sim-soft"])
def test_an_interest_without_a_sequence_is_refused(name: str) -> None:
    config = Experiment.model_validate({"preset": name}).model_config_of()
    kind = config.interests[0]["type"]
    with pytest.raises(UserError, match=f"the entry of type '{kind}' has no sequence to read: the feature"):
        config.interests_of(TABLE)
    without = Experiment.model_validate({"preset": name, "model": {"interests": []}})
    assert without.model_config_of().interests_of(TABLE) == {}


@pytest.mark.parametrize("name", ["mlp", "deepfm", "qnn-alpha"])
def test_an_interaction_needs_no_sequence(name: str) -> None:
    assert Experiment.model_validate({"preset": name}).model_config_of().interests_of(TABLE) == {}
    asked = Experiment.model_validate({"preset": name, "model": {"interests": [{"type": "mean"}]}})
    with pytest.raises(UserError, match="the entry of type 'mean' has no sequence to read"):
        asked.model_config_of().interests_of(TABLE)


@pytest.mark.parametrize(
    ("preset", "model", "told"),
    [
        ("din", {}, "din"),
        ("din", {"interaction": {"type": "mlp", "hidden": [8]}, "embedding_l2": 0.1}, "din"),
        ("din", {"interaction": {"type": "qnn_alpha"}}, "din with interaction qnn_alpha"),
        ("mlp", {"interests": ["mean"]}, "mlp"),
        ("mlp", {"interests": []}, "mlp with interests none"),
        (
            "din",
            {"loss": "kl", "interests": ["cmm", "din"], "auxiliary": [{"type": "cl4ctr"}]},
            "din with interests cmm + din, loss kl, auxiliary cl4ctr",
        ),
    ],
)
def test_a_changed_preset_is_called_by_what_it_is(preset: str, model: dict[str, Any], told: str) -> None:
    assert Experiment.model_validate({"preset": preset, "model": model}).model_name == told


def test_a_preset_that_this_version_does_not_have_is_called_by_its_name() -> None:
    assert model_name("of-another-version", {}) == "of-another-version"
