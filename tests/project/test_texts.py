"""The experiment names a preset that reads what the feature file has."""

from __future__ import annotations

import pytest
import yaml

from tfctr.features.spec import FeatureFile
from tfctr.models.presets import preset
from tfctr.project.texts import experiment_text

FILE = {
    "labels": {"click": "label"},
    "candidate": {"item": {}, "brand": {}, "item_vector": {"kind": "frozen", "key": "item"}},
}


def history(name: str, share: str) -> dict[str, object]:
    return {name: {"max_length": 3, "fields": {f"{name}_{share}": {"share": share}}}}


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ({}, "dcnv2"),
        (history("clicks", "brand"), "din"),
        (history("clicks", "item"), "dmf"),
        (history("clicks", "item") | history("looks", "item"), "dmf"),
        (history("clicks", "item") | history("looks", "brand"), "din"),
    ],
)
def test_preset(sequences: dict[str, object], expected: str) -> None:
    file = FeatureFile.model_validate({**FILE, "sequences": sequences})
    found = yaml.safe_load(experiment_text(file, small=True))["preset"]
    assert found == expected
    assert set(preset(found).interests_of(file)) == set(sequences)
