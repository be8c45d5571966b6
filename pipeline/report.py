"""The page about the latest model of an output directory, beside the blessed one that it was compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.configs import TEST_SPLIT
from pipeline.plain import SERVING, Artifact
from pipeline.store import Store
from tfctr.errors import UserError
from tfctr.metrics.table import METRICS
from tfctr.report.content import Content
from tfctr.report.page import page
from tfctr.report.runs import read_runs
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
    path = out / REPORT
    written = page_of(
        inputs["model"], inputs.get("baseline_model"), data, slices, seconds, f"{out.name}: the latest model"
    )
    write_text(path, written)
    return path


def page_of(
    model: Artifact,
    baseline: Artifact | None,
    data: str,
    slices: Sequence[str],
    seconds: Mapping[str, float],
    title: str,
) -> str:
    """The page of a model.

    Args:
        model: The new model.
        baseline: The blessed one that it was compared with, if there was one.
        data: The data directory, whose test split is scored with both.
        slices: Columns to slice by, by the names of the feature file.
        seconds: Times of the components, where they are known.
        title: The title of the page.

    Raises:
        UserError: neither model is there any more.
    """
    # The first one is what the other is compared with.
    models = {"blessed model": baseline, "new model": model}
    places = {name: join(one.uri, SERVING) for name, one in models.items() if one is not None}
    # Somebody may have removed the artifacts of earlier runs.
    found = {name: place for name, place in places.items() if exists(join(place, "saved_model.pb"))}
    if not found:
        raise UserError(f"{places['new model']}: no saved_model.pb, so there is no model to tell of")
    return page(Content(read_runs(found, data, TEST_SPLIT, slices, gains=True), TEST_SPLIT, seconds), title)


def overall_line(evaluation: str) -> str:
    """The metrics of all test rows, and in brackets those of the blessed model where it was measured."""
    from pipeline.evaluation import load_slices  # which needs all of TFMA

    overall = load_slices(evaluation)[0]
    parts = []
    for name, metric in METRICS.items():
        if metric.printed and name in overall.metrics:
            before = f" ({overall.baseline[name]:.4f})" if name in overall.baseline else ""
            parts.append(f"{metric.title} {overall.metrics[name]:.4f}{before}")
    compared = "; in brackets: the blessed model" if overall.baseline else "; no blessed model to compare it with"
    return f"test split: {', '.join(parts)}{compared}"
