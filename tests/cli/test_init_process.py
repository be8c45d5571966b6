"""`tfctr init` as a user's shell sees it: what it loads, what it asks, and that the README's commands go through."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Ran
from tests.cli.logs import CRITEO, criteo_log, odd_log

Call = Callable[..., Ran]


CODE = "from tfctr.cli import main; main()"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_no_tensorflow(tmp_path: Path) -> None:
    data = criteo_log(tmp_path / "data")
    code = f"""
import sys
from tfctr.cli import app
app(["init", "--help"], standalone_mode=False)
print("loaded", sorted({{"tensorflow", "keras", "pyarrow"}} & set(sys.modules)))
options = ["--delimiter", "\\t", "--columns", "{",".join(CRITEO)}"]
app(["init", "--data", "{data}", "--out", "{tmp_path / "p"}", *options], standalone_mode=False)
print("loaded", sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("loaded")] == ["loaded []"] * 2


@pytest.mark.e2e
def test_a_terminal_is_asked(tmp_path: Path) -> None:
    data = odd_log(tmp_path / "data", label=lambda rows: [1, 0] * (rows // 2))
    ours, theirs = pty.openpty()
    os.write(ours, b"click\n")
    command = [sys.executable, "-c", CODE, "init", "--data", str(data), "--out", str(tmp_path / "p")]
    ran = subprocess.run(command, stdin=theirs, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Which column is the label?" in ran.stdout
    assert "labels: {click: click}" in (tmp_path / "p" / "features.yaml").read_text()


@pytest.mark.e2e
def test_the_commands_of_the_readme(tfctr: Call, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    tfctr("init", "--data", odd_log(tmp_path / "data"), "--out", project)
    blocks = (project / "README.md").read_text().split("```")[1::2]
    commands = "\n".join(block.removeprefix("sh\n") for block in blocks)
    code = f"tfctr() {{ {sys.executable} -c '{CODE}' \"$@\"; }}\nset -e\n{commands}"
    command = ["bash", "-c", code]
    ran = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert pq.read_table(project / "scores.parquet").num_rows == 200
    # Half of the items are clicked much more than the others.
    assert _auc(ran.stdout) > 0.7


@pytest.mark.e2e
def test_trains_without_a_history(tfctr: Call, tmp_path: Path) -> None:
    data, project = criteo_log(tmp_path / "data"), tmp_path / "project"
    tfctr("init", "--data", data, "--out", project, "--delimiter", "\\t", "--columns", ",".join(CRITEO))
    features, experiment = project / "features.yaml", project / "experiment.yaml"
    options = ("--data", data, "--out", project / "run", "--epochs", 1)
    ran = tfctr("train", "--features", features, "--experiment", experiment, *options)
    assert 0.3 < _auc(ran.output) < 0.7  # its labels are noise


def _auc(printed: str) -> float:
    return float(next(line for line in printed.splitlines() if "best validation AUC" in line).split()[3])
