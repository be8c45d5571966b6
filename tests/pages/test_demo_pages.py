"""The demo from nothing, and the pages that go on from it: retrieval, the quick start, looking at a run."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.pages.page import ROOT, Reader
from tfctr import MODEL_NAME

DEMO = "python -m pipeline.demo --out demo --rows 12000"


@pytest.mark.e2e
def test_from_the_demo_to_its_looks(reader: Reader) -> None:
    told = reader.reads(
        "docs/retrieval.md", {"make demo": DEMO, ".venv/bin/python examples": f"python {ROOT / 'examples'}"}
    )

    assert "Traceback" not in told
    overall = re.search(r"overall\D+([\d,]+)\D+(0\.\d+)\D+(0\.\d+)", told)
    assert overall is not None, told
    assert float(overall[2]) > 0.6
    assert "last liked: " in told
    probabilities = [float(line.split("│")[-2]) for line in told.splitlines() if re.match(r"│ +(\d+) +│", line)]
    assert len(probabilities) == 10
    assert probabilities == sorted(probabilities, reverse=True)
    printed = [_without_numbers(line) for line in told.replace(str(reader.directory.resolve()), "...").splitlines()]
    for line in _readme_output():
        beginning = _without_numbers(line.removesuffix("..."))
        assert any(one.startswith(beginning) for one in printed), line
    assert len([one for one in (reader.directory / "demo/serving" / MODEL_NAME).iterdir() if one.name.isdigit()]) == 1
    assert re.search(r"clicks of \d+ users are among the 500 candidates", told)

    shutil.copytree(reader.directory / "demo/data", reader.directory / "DATA")
    reader.reads("docs/index.md", {"--data DATA --out RUN": "--data DATA --out RUN --epochs 1"})

    (reader.directory / "OUT").symlink_to("demo")
    looked = reader.reads(
        "docs/report.md",
        {
            "RUN_A RUN_B": "RUN OUT/serving/ranking --no-gains",
            "tensorboard --logdir": "tensorboard --inspect --logdir",
        },
    )
    assert looked.count("learning_rate") >= 2, "TensorBoard finds the curves of both trainings"
    assert 0.5 < reader.names["overall"]["auc"]["doubleValue"] < 1


def _readme_output() -> list[str]:
    """What the README shows of the output, without the rows of the table, whose films are those of more rows."""
    (block,) = re.findall(r"^```text\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [line for line in block.splitlines() if line != "..." and not line.startswith("│")]


def _without_numbers(line: str) -> str:
    return re.sub(r"\d[\d.,]*", "0", " ".join(line.split()))
