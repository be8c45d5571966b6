"""The first screen's Python runs as it stands."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.client.stub_server import StubServer
from tfctr.models.presets import PRESETS

README = Path(__file__).parents[2] / "README.md"


def _block(first_import: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if first_import in block)
    assert len(block.splitlines()) <= 12
    return block


@pytest.mark.slow
def test_layers_in_a_model_of_ones_own() -> None:
    names: dict[str, Any] = {}
    exec(_block("import QnnAlpha"), names)

    logits = names["model"].predict([np.ones((2, 50, 16)), np.array([3, 0]), np.ones((2, 5, 16))], verbose=0)

    assert logits.shape == (2, 5)
    assert np.isfinite(keras.ops.convert_to_numpy(logits)).all()


def test_a_ranking_of_a_served_model(server: StubServer) -> None:
    names: dict[str, Any] = {}
    exec(_block("import RankingClient").replace("localhost:8500", server.target).replace("=1)", "=30)"), names)

    assert sorted(one.candidate["item_id"] for one in names["best"]) == [1, 6]


def test_the_table_of_architectures_is_that_of_the_presets() -> None:
    readme, presets = README.read_text(), (README.parent / "docs" / "presets.md").read_text()
    rows = re.findall(r"^\| \*\*.*\| `([\w-]+)` \| ([\d,]+) \| ([\d,]+) \|$", readme, re.MULTILINE)

    assert len(rows) == 5
    for name, state, flops in rows:
        (row,) = re.findall(rf"^\| `{name}` \| .*", presets, re.MULTILINE)
        assert row.endswith(f" {state} | {flops} |"), row
    assert f"has all {len(PRESETS)}," in readme
