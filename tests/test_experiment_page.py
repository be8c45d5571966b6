"""docs/experiment.md lists every key of an experiment file with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tfctr.models.config import ModelConfig
from tfctr.training.demands import Evaluation
from tfctr.training.experiment import Experiment, Export, Training

PAGE = (Path(__file__).parents[1] / "docs" / "experiment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("title", "model"), [("training", Training), ("evaluation", Evaluation), ("export", Export), (None, Experiment)]
)
def test_every_key_stands_there_with_its_default(title: str | None, model: type[BaseModel]) -> None:
    section = PAGE.partition("\n## ")[0] if title is None else PAGE.partition(f"\n## `{title}`")[2].partition("\n##")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\S.*?) \|$", section, re.MULTILINE))
    defaults = model().model_dump(mode="json")
    if title is None:
        defaults = {key: defaults[key] for key in ("preset", "model")}
    written = {key: yaml.safe_load(value.strip("`")) for key, value in rows.items()}
    assert {key: float(v) if "e-" in str(v) else v for key, v in written.items()} == defaults


def test_every_number_of_a_model_stands_there_with_its_default() -> None:
    section = PAGE.partition("\n## `model`")[2].partition("\n## ")[0]
    rows = {key: float(value) for key, value in re.findall(r"^\| `(\w+)` \|.*\| (\S.*?) \|$", section, re.MULTILINE)}
    assert rows == {key: value for key, value in ModelConfig().model_dump().items() if isinstance(value, float)}
