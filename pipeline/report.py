"""The page about the latest model of an output directory, beside the blessed one that it was compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.evaluation import load_slices
from pipeline.plain import SERVING
from pipeline.store import Store
from tfctr.metrics.table import METRICS
from tfctr.report.page import page
from tfctr.report.runs import read_runs
from tfctr.report.sections import Content
from tfctr.storage import exists, join, write_text

REPORT = "report.html"
"""Its name in the output directory; each run replaces it."""


def write_report(store: Store, out: Path, data: str, slices: Sequence[str], seconds: Mapping[str, float]) -> Path:
    """Write the page of the model that was evaluated last.

    Args:
        store: The metadata of the output directory.
        out: The output directory.
        data: The data directory.
        slices: Columns to slice by, by the names of the feature file.
        seconds: Times of the components.

    Returns:
        The page.
    """
    execution = store.latest_execution("Evaluator")
    assert execution is not None
    inputs = store.inputs(execution)
    # The first one is what the other is compared with.
    models = {"blessed model": inputs.get("baseline_model"), "new model": inputs["model"]}
    places = {name: join(model.uri, SERVING) for name, model in models.items() if model is not None}
    # Somebody may have removed the artifacts of earlier runs.
    found = {name: place for name, place in places.items() if exists(join(place, "saved_model.pb"))}
    runs = read_runs(found, data, "test", slices, gains=True)
    path = out / REPORT
    write_text(path, page(Content(runs, "test", seconds), f"{out.name}: the latest model"))
    return path


def overall_line(evaluation: str) -> str:
    """The metrics of all test rows, and in brackets those of the blessed model where it was measured."""
    overall = load_slices(evaluation)[0]
    parts = []
    for name, metric in METRICS.items():
        if metric.printed and name in overall.metrics:
            before = f" ({overall.baseline[name]:.4f})" if name in overall.baseline else ""
            parts.append(f"{metric.title} {overall.metrics[name]:.4f}{before}")
    compared = "; in brackets: the blessed model" if overall.baseline else "; no blessed model to compare it with"
    return f"test split: {', '.join(parts)}{compared}"
