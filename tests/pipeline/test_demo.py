"""`make demo` from nothing, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workbench import ROOT
from tfctr import MODEL_NAME

pytestmark = pytest.mark.e2e


def test_a_cold_demo_ends_with_a_ranking(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo", "--out", str(tmp_path / "demo"), "--rows", "12000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    overall = re.search(r"overall\D+([\d,]+)\D+(0\.\d+)\D+(0\.\d+)", done.stdout)
    assert overall is not None, done.stdout
    assert float(overall[2]) > 0.6
    assert "last liked: " in done.stdout
    places = [line for line in done.stdout.splitlines() if re.match(r"│ +(\d+) +│", line)]
    assert len(places) == 10
    probabilities = [float(line.split("│")[-2]) for line in places]
    assert probabilities == sorted(probabilities, reverse=True)
    assert re.search(r"user_tower [\d.]+ ms, score of 500 candidates", done.stdout)
    versions = [path for path in (tmp_path / "demo" / "serving" / MODEL_NAME).iterdir() if path.name.isdigit()]
    assert len(versions) == 1


def test_a_directory_that_is_no_movielens_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo", "--out", str(tmp_path / "demo"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
