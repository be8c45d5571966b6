"""The conformance tests ask the server of `--target`, as docs/production.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import NAME
from tests.serving.model import publish
from tests.serving.test_process import Process

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
def test_another_server_is_asked(tmp_path: Path, target: str | None) -> None:
    if target:
        pytest.skip("is about --target itself")
    publish(tmp_path)
    server = Process("--model-base-path", str(tmp_path / NAME), "--model-name", NAME, "--port", "0", "--rest-port", "0")
    try:
        address, rest = server.wait_for(r"^ready: .* on grpc://(\S+), http://(\S+)$").groups()
        page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
        (files,) = re.findall(r"python -m pytest (tests/serving/.*) --target", page)
        options = ["-q", "-p", "no:cacheprovider", "--target", address, "--rest-target", rest]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *files.split(), *options], cwd=ROOT, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout[-3000:]
        passed, skipped = (int(re.findall(rf"(\d+) {word}", ran.stdout)[-1]) for word in ("passed", "skipped"))
        assert passed > 50
        assert skipped > 0
    finally:
        server.popen.kill()
        server.popen.wait()
