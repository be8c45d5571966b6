"""Feature files and experiment files that are nearly right: taken, or refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from tests.fuzz.mutations import mutated_bytes, mutated_tree
from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.features import load_feature_file, model_inputs
from tfctr.training.experiment import load_experiment

FEATURES = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml")) if b"labels:" in path.read_bytes()]
EXPERIMENTS = [
    path.read_bytes()
    for folder in ("configs/experiments", "tfctr/training/published")
    for path in sorted((ROOT / folder).glob("*.yaml"))
]
FEATURE_TREES, EXPERIMENT_TREES = ([yaml.safe_load(text) for text in texts] for texts in (FEATURES, EXPERIMENTS))


def written(path: Path, tree: Any) -> Path:
    # A lone surrogate is no text that a file could hold.
    text = yaml.safe_dump(tree, allow_unicode=True)
    path.write_text(text.encode("utf-8", "replace").decode("utf-8"), encoding="utf-8")
    return path


def said(error: UserError, path: Path | None = None) -> None:
    """An error names the file, and is no dump of it."""
    assert str(path or "") in str(error)
    assert 0 < len(str(error)) < 20_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file.yaml"


def read_features(path: Path) -> None:
    try:
        file = load_feature_file(path)
    except UserError as error:
        said(error, path)
    else:
        assert {spec.side for spec in model_inputs(file)} <= {"user", "candidate", "context", "bias"}


def read_experiment(path: Path) -> None:
    try:
        experiment = load_experiment(path)
        experiment.model_config_of()
    except UserError as error:
        # What only a preset can refuse is told without the file.
        said(error)
    else:
        assert experiment.training.epochs >= 1


def test_there_are_valid_files(path: Path) -> None:
    assert len(FEATURES) >= 3
    assert len(EXPERIMENTS) >= 3
    for tree in FEATURE_TREES:
        load_feature_file(written(path, tree))
    for tree in EXPERIMENT_TREES:
        load_experiment(written(path, tree))


@given(tree=mutated_tree(FEATURE_TREES))
def test_a_feature_file(tree: Any, path: Path) -> None:
    read_features(written(path, tree))


@given(text=mutated_bytes(FEATURES))
def test_the_text_of_a_feature_file(text: bytes, path: Path) -> None:
    path.write_bytes(text)
    read_features(path)


@given(tree=mutated_tree(EXPERIMENT_TREES))
def test_an_experiment_file(tree: Any, path: Path) -> None:
    read_experiment(written(path, tree))


@given(text=mutated_bytes(EXPERIMENTS))
def test_the_text_of_an_experiment_file(text: bytes, path: Path) -> None:
    path.write_bytes(text)
    read_experiment(path)
