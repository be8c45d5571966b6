"""The tutorials, one after the other in one directory, as a reader goes through them."""

from __future__ import annotations

import re

import pytest

from tests.pages.page import ROOT, Reader
from tests.ports import free_port

RATE = "--set training.learning_rate=0.003"
QUICK = {RATE: f"{RATE} --epochs 1 --batch-size 8192", "--out report.html": "--no-gains --out report.html"}


@pytest.mark.night
def test_from_a_log_to_a_served_model(reader: Reader) -> None:
    port = {
        "localhost:8500": (address := f"localhost:{free_port()}"),
        "--port 8500": f"--port {address.partition(':')[2]}",
    }

    told = reader.reads("docs/tutorials/your-own-log.md", QUICK)
    reader.reads("docs/tutorials/choose-a-model.md", QUICK)
    reader.reads("docs/tutorials/serve-it.md", {**port, "--preset mlp": "--preset mlp --epochs 1"})

    for line in _shown("docs/tutorials/your-own-log.md"):
        assert line in told
    assert "din-qnn" in (reader.directory / "report.html").read_text(encoding="utf-8")
    assert (reader.directory / "MODELS" / "2" / "saved_model.pb").exists()


def _shown(page: str) -> list[str]:
    """The lines of output that a page shows."""
    (block,) = re.findall(r"^```text\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return block.splitlines()
