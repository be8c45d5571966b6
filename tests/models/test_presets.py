"""A preset on a feature file without a history."""

import pytest

from tfctr.errors import UserError
from tfctr.features import FeatureFile
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
