"""The rows of a workspace: copied once, and again when something has changed; bad input leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.tables import write_csv
from tests.training.runs import small_experiment
from tfctr.data import keys
from tfctr.errors import UserError
from tfctr.features import FeatureFile, assets
from tfctr.features.assets import FeatureAssets
from tfctr.storage import only_one
from tfctr.training import checkpoints, splits, workspace
from tfctr.training.experiment import Experiment, changed

pytestmark = pytest.mark.slow

CONTENT: dict[str, Any] = {
    "labels": {"click": "label"},
    "embedding_dimension": 4,
    "user": {"user": {}},
    "candidate": {"item": {"dtype": "string"}},
    "sequences": {"past": {"max_length": 4, "fields": {"past_item": {"share": "item"}}}},
}
FILE = FeatureFile.model_validate(CONTENT)


def table(rows: int, seed: int = 0) -> pa.Table:
    generator = np.random.default_rng(seed)
    items = np.array([f"i{n}" for n in range(9)])
    return pa.table(
        {
            "label": generator.integers(0, 2, rows),
            "user": generator.integers(0, 50, rows),
            "past_item": [list(items[generator.integers(0, 9, n)]) for n in generator.integers(0, 6, rows)],
            "item": items[generator.integers(0, 9, rows)],
        }
    )


def write(path: Path, content: pa.Table, group: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=group)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, split in enumerate(("train", "valid")):
        write(tmp_path / "data" / split / "a.parquet", table(300, seed))
    return tmp_path / "data"


def train(data: Path, out: Path, file: FeatureFile = FILE, **training: Any) -> Any:
    experiment = small_experiment(epochs=1, batch_size=128, **training)
    return workspace.train_in_workspace(file, experiment, data, out)


def files(directory: Path) -> dict[str, int]:
    """Every file, and which one it is."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.stat().st_ino for path in found}


class TestCopies:
    @pytest.fixture
    def out(self, data: Path, tmp_path: Path) -> Path:
        train(data, tmp_path / "run")
        return tmp_path / "run"

    def changed(self, out: Path, again: Callable[[], Any]) -> set[str]:
        """The splits whose copy is another one after a further run."""
        before = files(out / "rows")
        assert {name.split("-")[0] for name in before} == {"train", "valid"}
        again()
        after = files(out / "rows")
        assert len(after) == 2
        return {name.split("-")[0] for name, inode in after.items() if before.get(name) != inode}

    def test_made_once(self, data: Path, out: Path) -> None:
        assert self.changed(out, lambda: train(data, out)) == set()
        assert self.changed(out, lambda: train(data, out, learning_rate=0.5)) == set()

    def test_other_rows(self, data: Path, out: Path) -> None:
        write(data / "valid" / "a.parquet", table(200, 7))
        assert self.changed(out, lambda: train(data, out)) == {"valid"}
        write(data / "valid" / "b.parquet", table(100, 8))
        assert self.changed(out, lambda: train(data, out)) == {"valid"}
        # Indices of the vocabulary in both may be others.
        write(data / "train" / "a.parquet", table(200, 9))
        assert self.changed(out, lambda: train(data, out)) >= {"train"}

    def test_other_features(self, data: Path, out: Path) -> None:
        longer = {"past": {"max_length": 5, "fields": {"past_item": {"share": "item"}}}}
        file = FeatureFile.model_validate({**CONTENT, "sequences": longer})
        assert self.changed(out, lambda: train(data, out, file)) == {"train", "valid"}

    def test_other_code(self, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "code_digest", lambda *_: "another one")
        assert self.changed(out, lambda: train(data, out)) == {"train", "valid"}

    def test_all_rows_are_trained_on(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[int, int]] = []
        run_training = workspace.run_training

        def watched(assets: Any, experiment: Experiment, first: Any, second: Any, *rest: Any, **more: Any) -> Any:
            seen.append((len(first), len(second)))
            return run_training(assets, experiment, first, second, *rest, **more)

        monkeypatch.setattr(workspace, "run_training", watched)
        train(data, tmp_path / "run")
        assert seen == [(300, 300)]


def test_assets_are_hashed_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    plain = FeatureAssets.fingerprint.func

    def counted(self: FeatureAssets) -> str:
        hashed.append(self.directory)
        return plain(self)

    counting = cached_property(counted)
    counting.__set_name__(FeatureAssets, "fingerprint")
    monkeypatch.setattr(FeatureAssets, "fingerprint", counting)
    train(data, tmp_path / "run")
    assert len(hashed) == 1


def test_a_slice_that_can_not_be_is_refused_before_anything_is_read(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation.slices: can't slice by column 'nowhere'. Allowed: item, user$"):
        workspace.train_in_workspace(
            FILE, changed(small_experiment(), ["evaluation.slices=[nowhere]"]), data, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_workspace_do_not_meet(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with only_one(out, out / ".lock"), pytest.raises(UserError, match="run: another run is under way here"):
        train(data, out)
    assert not out.exists()
    train(data, out)
    assert not (out / ".lock").exists()


@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        (assets, "write_tokens", "run/assets-[0-9a-f]+"),
        (checkpoints, "write_text", "run/runs/.*/progress.json"),
        (workspace, "write_text", "run"),
    ],
)
def test_a_disk_that_fills(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, what: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/{what}: No space left on device$"):
        train(data, tmp_path / "run")


def test_a_file_that_can_not_be_read_is_not_told_as_a_full_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "train/a.parquet")

    monkeypatch.setattr(splits, "analyze", gone)
    with pytest.raises(FileNotFoundError, match=r"train/a\.parquet"):
        train(data, tmp_path / "run")


NOTES = {
    "a list": ([1], "run.json must be a mapping"),
    "a text": ("x", "run.json must be a mapping"),
    "seconds": ({"seconds": 7}, "seconds: Input should be a valid dictionary. Received: 7"),
    "seconds of a text": ({"seconds": {"reading": "x"}}, "seconds.reading: Input should be a valid number"),
    "history": ({"history": {"auc": 1}}, "history: Input should be a valid list"),
}


@pytest.mark.parametrize("fault", NOTES)
def test_a_note_of_another_form_is_told_as_one_that_can_not_be_read(tmp_path: Path, fault: str) -> None:
    content, told = NOTES[fault]
    (tmp_path / "run.json").write_text(json.dumps(content))
    for read in (workspace.run_note, workspace.finished_run):
        with pytest.raises(UserError) as raised:
            read(tmp_path)
        assert str(raised.value).startswith(f"{tmp_path}: the finished run can't be read (")
        assert told in str(raised.value)
        assert "\n" not in str(raised.value)


def test_only_the_weights_of_the_run_before_are_removed(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run")
    (before,) = (tmp_path / "run").glob("*.weights.h5")
    (tmp_path / "run" / "mine.weights.h5").touch()
    train(data, tmp_path / "run", learning_rate=0.5)
    left = {path.name for path in (tmp_path / "run").glob("*.weights.h5")}
    assert len(left) == 2
    assert "mine.weights.h5" in left
    assert before.name not in left


@pytest.mark.parametrize("fault", NOTES)
def test_a_training_writes_a_note_of_another_form_anew(data: Path, tmp_path: Path, fault: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(NOTES[fault][0]))
    assert workspace._reading_of(tmp_path / "run", "some.weights.h5", 3.0) == 3.0


def wrong_type(data: Path) -> str:
    content = table(600).set_column(1, "user", pa.array([str(n % 7) for n in range(449)] + ["x"] + ["1"] * 150))
    write(data / "train" / "a.parquet", content)
    return "train/a.parquet, row 450: column 'user' is 'x'; the feature file says int64"


def wrong_value_in_valid(data: Path) -> str:
    write(data / "valid" / "a.parquet", table(600).set_column(0, "label", pa.array([0, 1] * 225 + [7] * 150)))
    return "valid/a.parquet, row 451: label must be 0 or 1. Received: 7"


def broken_quote(data: Path) -> str:
    (data / "train" / "a.parquet").unlink()
    path = write_csv(data / "train" / "a.csv", table(45_000))
    lines = path.read_text().split("\n")
    user, _, rest = lines[39_999].partition(",")
    lines[39_999] = f'{user},{rest.rpartition(",")[0]},"i3'
    path.write_text("\n".join(lines))
    return 'train/a.csv, line 40000: a quote (") is open at its end'


def empty_table(data: Path) -> str:
    write(data / "train" / "a.parquet", table(300)[:0])
    return "train: the split holds no example"


def empty_csv(data: Path) -> str:
    (data / "valid" / "a.parquet").unlink()
    (data / "valid" / "a.csv").write_text("label,user,past_item,item\n")
    return "valid: the split holds no example"


def cut_parquet(data: Path) -> str:
    path = data / "valid" / "a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    return "valid/a.parquet is damaged or no Parquet file"


def overwritten_page(data: Path) -> str:
    path = write(data / "train" / "a.parquet", table(600))
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(7).column(0).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(content)
    return "train/a.parquet is damaged or no Parquet file, after row "


@pytest.mark.parametrize(
    "spoil",
    [wrong_type, wrong_value_in_valid, broken_quote, empty_table, empty_csv, cut_parquet, overwritten_page],
    ids=lambda spoil: spoil.__name__,
)
def test_bad_input_leaves_nothing_half_written(data: Path, tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    told = spoil(data)
    with pytest.raises(UserError) as raised:
        train(data, tmp_path / "run")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    # What is left is whole: the assets of a sound training split, and its copy.
    left = [path for pattern in ("run/*", "run/rows/*") for path in sorted(tmp_path.glob(pattern))]
    assert [path.name.split("-")[0] for path in left] in ([], ["assets", "rows", "train"])
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


@pytest.mark.e2e
def test_a_disk_that_fills_while_the_copy_is_made(data: Path, tmp_path: Path) -> None:
    features = tmp_path / "features.yaml"
    features.write_text(yaml.safe_dump(CONTENT))
    write(data / "train" / "a.parquet", table(20_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    program = Path(sys.executable).with_name("tfctr")
    options = ("--features", features, "--data", data, "--out", tmp_path / "run", "--preset", "mlp")
    command = [program, "train", *map(str, options)]
    quiet = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ran = subprocess.run(command, capture_output=True, text=True, env=quiet, preexec_fn=limit, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert ran.stderr.startswith(f"error: cannot write {tmp_path / 'run' / 'rows' / 'train-'}")
    assert not [path for path in (tmp_path / "run").rglob("*") if "partial" in path.name or path.suffix == ".arrow"]
