"""The Markdown tables of benchmarks.training, from its rows: `python -m benchmarks.training_tables training.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARS = {"qnn-alpha": 3.0}
"""How many times as fast as its peer a preset is meant to be, where it is not 1.5."""
BAR, LAYER_BAR = 1.5, 1.0
LOSSES_AGREE, GRADIENTS_AGREE = 1e-4, 1e-2
"""Relative differences that rounding explains. Where it makes a greater one between PyTorch's own float32 and float64,
gradients of tfctr may differ five times as much."""


def markdown(rows: list[dict[str, Any]]) -> str:
    """All tables that there are rows for."""
    parts = []
    for table, render in TABLES.items():
        own = [row for row in rows if row["table"] == table]
        if own:
            parts.append("\n".join(render(own, rows)))
    return "\n\n".join(parts)


def _checks(own: list[dict[str, Any]], _: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| preset | parameters | weights compared | loss differs by | gradients differ by | PyTorch in float32 |",
        "|---|" + "---:|" * 5,
    ]
    for row in own:
        if "error" in row:
            lines.append(f"| `{row['name']}` | missing: {row['error']} | | | | |")
        else:
            differs = f"{row['loss_differs']:.0e} | {row['gradients_differ']:.0e} | {row['rounding']:.0e}"
            compared = f"{row['compared']} of {row['weights']}"
            lines.append(f"| `{row['name']}` | {row['parameters']:,} | {compared} | {differs} |")
    return lines


def _steps(own: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    rate = max(side["gflops"] for row in own for side in _sides(row))
    lines = [
        f"{_conditions(own)}; the machine's products at {rate:.0f} GFLOP/s.\n",
        "| preset | tfctr, ms | PyTorch, ms | times as fast | meant | samples/s | PyTorch | memory, MB | PyTorch "
        "| GFLOP/s (of the machine's) | PyTorch | same network |",
        "|---|" + "---:|" * 10 + "---|",
    ]
    same = {row["name"]: _same(row) for row in rows if row["table"] == "check"}
    for row in own:
        name = row["name"]
        cells = [f"`{name}`", *_pair(row), *_verdict(row, BARS.get(name, BAR))]
        for show in (
            lambda one, row=row: f"{row['batch'] / one['min_ms'] * 1e3:,.0f}",
            lambda one: f"{one['peak_mb']:,.0f}",
            lambda one, row=row: _achieved(row, one, rate),
        ):
            cells += _both(row, show)
        lines.append(_line([*cells, same.get(name, "not checked")]))
    return lines


def _achieved(row: dict[str, Any], side: dict[str, Any], rate: float) -> str:
    """Matrix products of the step a second. Both sides are credited with those of the PyTorch network."""
    if "peer" not in row:
        return ""
    achieved = row["peer"]["flops"] / side["min_ms"] / 1e6
    return f"{achieved:.0f} ({achieved / rate:.0%})"


def _same(row: dict[str, Any]) -> str:
    if "error" in row:
        return "missing"
    same = row["loss_differs"] < LOSSES_AGREE and row["gradients_differ"] < max(GRADIENTS_AGREE, 5 * row["rounding"])
    return "yes" if same else "NO"


def _layers(own: list[dict[str, Any]], _: list[dict[str, Any]]) -> list[str]:
    lines = [f"{_conditions(own)}.\n", "| layer | beside | XLA | tfctr, ms | other, ms | times as fast | meant |"]
    lines.append("|---|---|---|---:|---:|---:|---|")
    for row in own:
        xla = "on" if row["xla"] else "off"
        lines.append(_line([row["name"], row["library"], xla, *_pair(row), *_verdict(row, LAYER_BAR)]))
    return lines


def _vocabulary(own: list[dict[str, Any]], _: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{_conditions(own)}.\n",
        "| tables trained by | rows | ids | row accesses, ms | tfctr, ms | PyTorch, ms | times as fast | meant | "
        "memory in the step, MB | PyTorch | beyond the model, MB | PyTorch |",
        "|---|---:|---|" + "---:|" * 9,
    ]
    for row in own:
        ids = "Zipf" if row["zipf"] else "uniform"
        access = _milliseconds(row["access"]) if "access" in row else row["error"]
        memory = _both(row, lambda one: f"{one['step_mb']:,.0f}")
        lines.append(
            _line(
                [
                    row["embedding_optimizer"],
                    f"{row['total']:,}",
                    ids,
                    access,
                    *_pair(row),
                    *_verdict(row, BAR),
                    *memory,
                    *_both(row, lambda one: f"{one['step_mb'] - one['model_mb']:,.0f}"),
                ]
            )
        )
    return lines


def _sides(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row[side] for side in ("ours", "peer") if side in row]


def _both(row: dict[str, Any], show: Callable[[dict[str, Any]], str]) -> list[str]:
    return [show(row[side]) if side in row else "" for side in ("ours", "peer")]


def _pair(row: dict[str, Any]) -> list[str]:
    ours, peer = _both(row, _milliseconds)
    return [ours or row.get("error", ""), peer or ("missing: " + row["missing"] if "missing" in row else "missing")]


def _milliseconds(side: dict[str, Any]) -> str:
    """The shortest time and the median."""
    return f"{side['min_ms']:.1f} ({side['median_ms']:.1f})"


def _verdict(row: dict[str, Any], bar: float) -> list[str]:
    if len(_sides(row)) < 2:
        return ["", ""]
    ratio = row["peer"]["min_ms"] / row["ours"]["min_ms"]
    return [f"{ratio:.2f}", f"{bar:g}: {'reached' if ratio >= bar else 'NOT REACHED'}"]


def _conditions(own: list[dict[str, Any]]) -> str:
    loads = [row[when] for row in own for when in ("load_before", "load_after")]
    rates = [side[when] for row in own for side in _sides(row) for when in ("gflops_before", "gflops_after")]
    spread = f", products {min(rates):.0f} to {max(rates):.0f} GFLOP/s" if rates else ""
    return f"{own[0]['batch']:,} rows, {own[0]['threads']} threads; load {min(loads):.1f} to {max(loads):.1f}{spread}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES = {"check": _checks, "steps": _steps, "layers": _layers, "vocabulary": _vocabulary}


if __name__ == "__main__":
    print(markdown([json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]))
