"""The Trainer's copy of the rows is that of its files as they are, and not of their paths alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import trainer
from tests.pipeline.logs import write_features
from tfctr.errors import UserError
from tfctr.features.spec import load_feature_file

pytestmark = pytest.mark.slow


def test_other_content_under_the_same_path_is_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[str] = []

    class Rows:
        @staticmethod
        def of_transformed(file: Any, paths: list[str], copy: Path) -> None:
            copies.append(copy.name)

    monkeypatch.setattr(trainer, "RankingData", Rows)
    file = load_feature_file(write_features(tmp_path / "features.yaml"))
    path = tmp_path / "examples.gz"
    for content in (b"one", b"one", b"two, longer"):
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        trainer._rows(file, [str(path)], tmp_path / "rows", "train")
    assert copies[0] == copies[1] != copies[2]


def test_several_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", workers)
    with pytest.raises(UserError, match=r"names 2 workers, and the pipeline's Trainer trains in one process"):
        trainer.run_fn(None)
