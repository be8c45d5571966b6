"""The name of what is made of rows changes with the code that makes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfctr
from tests.workbench import ROOT
from tfctr.data.keys import code_digest, contents_key, files_key
from tfctr.errors import UserError
from tfctr.features import FeatureFile


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, whose code the keys are made of."""
    shutil.copytree(ROOT / "tfctr", tmp_path / "tfctr", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(tfctr, "__file__", str(tmp_path / "tfctr" / "__init__.py"))
    code_digest.cache_clear()
    yield tmp_path / "tfctr"
    code_digest.cache_clear()


@pytest.mark.parametrize(
    "module",
    [
        "data/sources/csv.py",
        "data/build/events.py",
        "features/transform.py",
        "training/dataset.py",
        "training/scores.py",
        "training/served.py",
    ],
)
def test_other_code_gives_another_key(copy: Path, tmp_path: Path, module: str) -> None:
    log = tmp_path / "log.csv"
    log.touch()
    before = files_key([log])
    path = copy / module
    path.write_text(path.read_text() + "# changed")
    code_digest.cache_clear()
    assert files_key([log]) != before


def test_code_beside_it_gives_the_same_key(copy: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.touch()
    before = files_key([log])
    (copy / "client" / "cache.py").write_text("# changed")
    code_digest.cache_clear()
    assert files_key([log]) == before


def test_files_of_a_pipeline_may_be_remote() -> None:
    import tensorflow as tf

    path = "ram://artifacts/examples"
    keys = set()
    for content in ("one", "one", "three"):
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(content)
        keys.add(files_key([path]))
    assert len(keys) >= 2
    with pytest.raises(UserError, match=r"ram://artifacts/examples\.lost: not there"):
        files_key([f"{path}.lost"])


def test_contents_tell_wherever_and_whenever_they_were_copied(tmp_path: Path) -> None:
    """A retry on a cluster has its inputs downloaded anew, to folders of other names at another time."""
    file = FeatureFile.model_validate({"labels": {"click": "label"}, "candidate": {"item_id": {}}})
    other = FeatureFile.model_validate({"labels": {"click": "label"}, "candidate": {"shop_id": {}}})
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for path, content in zip(paths, ("same", "same", "else"), strict=True):
        path.write_text(content)
    os.utime(paths[1], (1, 1))
    one, two, three = (contents_key(file, [str(path)]) for path in paths)
    assert one == two != three
    assert contents_key(other, [str(paths[0])]) != one
