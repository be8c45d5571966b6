"""The command as a user's shell sees it: its exit status, errors of one line, and no other messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Desk


def tfctr(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("tfctr")
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, env={**kept, **environment}, check=False
    )


def test_error_is_one_line_and_status_2(tmp_path: Path) -> None:
    ran = tfctr("train", "--features", "nowhere.yaml", "--data", tmp_path, "--out", tmp_path / "run")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: nowhere.yaml: can't be read (No such file or directory)\n"
    assert not list(tmp_path.iterdir())


def test_usage_error_is_status_2() -> None:
    ran = tfctr("train", "--nope")
    assert ran.returncode == 2
    assert "No such option: --nope" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.e2e
def test_error_after_tensorflow_is_loaded_is_one_line_too(desk: Desk, tmp_path: Path) -> None:
    ran = tfctr("evaluate", "--model", desk.model, "--data", desk.data, "--slice", "colour")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: there is no column to slice by of that name. Allowed: [")
    assert ran.stderr.count("\n") == 1


@pytest.mark.e2e
def test_success_says_nothing_on_the_error_stream(desk: Desk) -> None:
    ran = tfctr("evaluate", "--model", desk.model, "--data", desk.data)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "COPC" in ran.stdout


@pytest.mark.e2e
def test_who_asks_for_the_notes_of_tensorflow_gets_them(desk: Desk) -> None:
    assert tfctr("inspect", desk.model, TF_CPP_MIN_LOG_LEVEL="0").stderr != ""
