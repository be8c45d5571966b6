"""What `make demo` refuses; tests/pages/test_demo_pages.py runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workbench import ROOT

pytestmark = pytest.mark.e2e


def test_a_directory_that_is_no_movielens_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo", "--out", str(tmp_path / "demo"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
