"""What the local runner prints, and how it fails before TensorFlow starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.local_runner import app, digest_of_files
from pipeline.progress import quiet
from tests.pipeline.logs import write_experiment, write_features, write_log
from tfctr.features.spec import load_feature_file


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    features, experiment = write_features(tmp_path / "f.yaml"), write_experiment(tmp_path / "e.yaml")

    code, output = invoke(
        "--data", tmp_path, "--features", features, "--experiment", experiment, "--out", tmp_path / "out"
    )

    assert code == 2
    assert output.startswith(f"error: {tmp_path}/train: no file of a log (*.csv, ")
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("data [v1]", "out"), ("data", "out*")])
def test_a_path_that_is_a_pattern_is_one_line(tmp_path: Path, names: tuple[str, str]) -> None:
    data, out = (tmp_path / name for name in names)

    code, output = invoke("--data", data, "--features", "f.yaml", "--experiment", "e.yaml", "--out", out)

    assert code == 2
    assert "TFX takes a path with one of * ? [ ] for a pattern; rename it" in output


def test_a_bad_feature_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("labels: {click: label}\ngroup: user_id\ncandidate: {item_id: {}}\nnonsense: 1\n")

    code, output = invoke(
        "--data", tmp_path, "--features", tmp_path / "f.yaml", "--experiment", "e.yaml", "--out", tmp_path / "out"
    )

    assert code == 2
    assert "f.yaml: nonsense: unknown key" in output


@pytest.mark.parametrize("several", [False, True])
def test_devices_and_workers_are_told_before_the_data_is_read(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_log(tmp_path / "data", 200)
    features, experiment = write_features(tmp_path / "f.yaml"), write_experiment(tmp_path / "e.yaml")
    if several:
        cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        told = "the pipeline trains in one process"
    else:
        experiment.write_text(experiment.read_text().replace("batch_size: 128", "batch_size: 128, devices: 99"))
        told = "training.devices: 99 are asked for"
    code, output = invoke("--data", data, "--features", features, "--experiment", experiment, "--out", tmp_path / "out")

    assert code == 2
    assert told in output
    assert "ExampleGen" not in output


def test_files_the_feature_file_names_are_part_of_the_cache_key(tmp_path: Path) -> None:
    file = load_feature_file(write_features(tmp_path / "f.yaml"))
    (tmp_path / "item_vectors.npz").write_bytes(b"one")
    first = digest_of_files(file, tmp_path)
    (tmp_path / "item_vectors.npz").write_bytes(b"two")

    assert digest_of_files(file, tmp_path) != first


def test_noise_goes_to_the_log_and_progress_to_people(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with quiet(tmp_path / "log.txt") as progress:
        print("from Python")
        os.write(2, b"from C++\n")
        subprocess.run(["sh", "-c", "echo from a worker"], check=True)
        progress.start("Trainer")
        progress.relaying = True
        print("epoch 1")
        print("WARNING: from a library", file=sys.stderr)
        print("warning: from us", file=sys.stderr)
        progress.relaying = False
        progress.finish("Trainer", "done")
    print("afterwards")

    seen = capfd.readouterr().out
    assert [line.split()[0] for line in seen.splitlines()] == [
        *("Trainer", "epoch", "warning:", "Trainer", "afterwards")
    ]
    log = (tmp_path / "log.txt").read_text()
    assert all(
        text in log for text in ("from Python", "from C++", "from a worker", "epoch 1", "from a library", "from us")
    )
