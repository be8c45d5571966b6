"""Cost of a candidate by the length of the history, with the signatures of real SavedModels.

    python -m benchmarks.history_length [--lengths 100,1000,10000] [--candidates 100] [--plot FILE.svg]

For each preset and length, a model with random weights and histories of this length is exported and loaded. Measured
are `user_tower` for a user with a full history, and `score` for the state of this user and the candidates. Times are
medians of calls after warm-up. Only the plot needs matplotlib. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.report import by_history, save, say, subplots

MODELS: dict[str, dict[str, Any]] = {
    "mean pooling": {"preset": "mlp"},
    "DIN": {"preset": "din"},
    "TA_early": {"preset": "ta-early"},
    "DTA": {"preset": "dta"},
    "DMQN": {"preset": "dmqn"},
}
SECONDS = 3.0


def main(
    lengths: Annotated[str, typer.Option(help="Comma-separated.")] = "100,1000,10000",
    candidates: Annotated[int, typer.Option(min=1)] = 100,
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    plot: Annotated[Path | None, typer.Option(help="SVG file for a plot.")] = None,
) -> None:
    """Measure, print the table, draw."""
    sizes = [int(length) for length in lengths.split(",")]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in models.split(",") if models else MODELS:
            found[name] = [_measure(name, length, candidates, Path(directory)) for length in sizes]
    titles = " | ".join(f"L = {length:,}" for length in sizes)
    for key, title in (
        ("candidate", f"score, microseconds a candidate ({candidates} in a request)"),
        ("user_tower", "user_tower, milliseconds a user"),
        ("state", "state, kilobytes a user"),
    ):
        say(f"\n| {title} | {titles} |\n|---|{'---|' * len(sizes)}")
        for name, rows in found.items():
            say(f"| {name} | {' | '.join(_digits(row[key]) for row in rows)} |")
    if plot is not None:
        _draw(found, sizes, plot)


def _measure(name: str, length: int, candidates: int, directory: Path) -> dict[str, float]:
    import tensorflow as tf

    from benchmarks.served_models import batch_of_one, export

    served = export(MODELS[name], length, directory / f"{name}-{length}".replace(" ", "-"))
    # Kept in a variable, because the signatures cannot be called after the loaded object is deleted.
    loaded = tf.saved_model.load(str(served.path))
    user_tower, score = loaded.signatures["user_tower"], loaded.signatures["score"]
    raw = {**served.user(0), "history_length": length}
    user = batch_of_one(user_tower, raw)
    state = user_tower(**user)
    request = {**state, **batch_of_one(score, {**served.candidates(candidates, 0), **served.context()})}
    assert np.isfinite(score(**request)["probabilities"].numpy()).all()
    seconds = _median(lambda: score(**request)["probabilities"].numpy())
    return {
        "candidate": seconds / candidates * 1e6,
        "user_tower": 1e3 * _median(lambda: [tensor.numpy() for tensor in user_tower(**user).values()]),
        "state": sum(tensor.numpy().nbytes for tensor in state.values()) / 1e3,
    }


def _median(call: Callable[[], Any]) -> float:
    taken: list[float] = []
    for _ in range(2):
        call()
    while len(taken) < 5 or (sum(taken) < SECONDS and len(taken) < 300):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _draw(found: dict[str, list[dict[str, float]]], lengths: list[int], path: Path) -> None:
    figure, axes = subplots(2, figsize=(9, 3.6))
    for ax, key, title in zip(
        axes,
        ("candidate", "user_tower"),
        ("score: microseconds a candidate", "user_tower: milliseconds a user"),
        strict=True,
    ):
        for name, rows in found.items():
            ax.plot(lengths, [row[key] for row in rows], marker="o", label=name)
        by_history(ax, title)
    axes[0].legend()
    save(figure, path)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
