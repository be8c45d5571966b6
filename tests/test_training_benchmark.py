"""The benchmark of a training step: its peers are the same networks, and its tables say what they must."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import OVERRIDES, PRESETS, Bench
from benchmarks.training_tables import GRADIENTS_AGREE, markdown
from tfctr.models.presets import PRESETS as KNOWN

TORCH_PYTHON = os.environ.get("TORCH_PYTHON", "")
COMMON = {"threads": 1, "seconds": 0.0, "width": 8, "jit": "off", "fused": False}
CONDITIONS = {"batch": 4096, "threads": 2, "load_before": 0.5, "load_after": 1.0}


def _side(milliseconds: float) -> dict[str, float]:
    rates = {"gflops": 50.0, "gflops_before": 50.0, "gflops_after": 40.0}
    return {
        "min_ms": milliseconds,
        "median_ms": 2 * milliseconds,
        "peak_mb": 900.0,
        "step_mb": 800.0,
        "model_mb": 700.0,
        "flops": 2.5e8,
        **rates,
    }


def _bench(directory: Path, torch_python: str = "") -> Bench:
    return Bench(COMMON, 32, 1, torch_python, directory, directory / "rows.jsonl")


def test_its_presets_are_presets() -> None:
    assert {*PRESETS, *OVERRIDES} <= set(KNOWN)


def test_tables_say_what_is_reached_and_what_is_missing() -> None:
    rows: list[dict[str, Any]] = [
        {"table": "steps", "name": "mlp", **CONDITIONS, "ours": _side(10.0), "peer": _side(20.0)},
        {"table": "steps", "name": "qnn-alpha", **CONDITIONS, "ours": _side(10.0), "peer": _side(20.0)},
        {"table": "steps", "name": "lr", **CONDITIONS, "ours": _side(10.0), "missing": "KeyError: 'lr'"},
    ]
    heading, _, _, _, *found = markdown(rows).splitlines()
    assert heading == (
        "4,096 rows, 2 threads; load 0.5 to 1.0, products 40 to 50 GFLOP/s; the machine's products at 50 GFLOP/s."
    )
    mlp, qnn, lr = found
    assert "| 2.00 | 1.5: reached | 409,600 | 204,800 | 900 | 900 | 25 (50%) | 12 (25%) | not checked |" in mlp
    assert "| 2.00 | 3: NOT REACHED |" in qnn
    assert "| missing: KeyError: 'lr' |" in lr


def test_the_cells_of_a_table_are_under_its_heading() -> None:
    kept = Path(__file__).parents[1] / "benchmarks" / "results" / "training.jsonl"
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    rows += [
        {
            "table": "vocabulary",
            "total": 10,
            "zipf": True,
            "embedding_optimizer": "adam",
            **CONDITIONS,
            "access": _side(1.0),
            "ours": _side(2.0),
        }
    ]
    rows += [{"table": "check", "name": "lr", **CONDITIONS, "error": "KeyError: 'lr'"}]
    for table in markdown(rows).split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.slow
def test_a_step_is_timed_once_and_kept(tmp_path: Path) -> None:
    for _ in range(2):
        _bench(tmp_path).measure("steps", ["fm"])
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    ours = json.loads(line)["ours"]
    assert ours["min_ms"] > 0
    assert ours["peak_mb"] >= ours["step_mb"] > ours["imported_mb"] > 0
    assert "| `fm` |" in markdown([json.loads(line)])


@pytest.mark.slow
@pytest.mark.skipif(not TORCH_PYTHON, reason="TORCH_PYTHON names no Python that has PyTorch")
def test_a_peer_is_the_same_network(tmp_path: Path) -> None:
    bench = _bench(tmp_path, TORCH_PYTHON)
    bench.measure("check", ["fm", "qnn-alpha"])
    for row in bench.rows:
        assert row["loss_differs"] < 1e-5
        assert row["gradients_differ"] < GRADIENTS_AGREE
