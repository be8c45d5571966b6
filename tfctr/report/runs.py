"""What the report knows of a run: its description, its scores of a split, and what each feature gains."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.console import step
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.export.describe import ModelDescription, describe
from tfctr.export.saved_model import export_model
from tfctr.features.parsing import default_slices, sliceable
from tfctr.features.spec import FeatureFile
from tfctr.metrics.reference import Weighting
from tfctr.report.gains import Gain, feature_gains
from tfctr.report.similarities import Buckets, similarity_buckets
from tfctr.storage import is_remote, join, local_copy, version_numbers
from tfctr.training.evaluate import Predictions, predict
from tfctr.training.monitors import MONITORS
from tfctr.training.workspace import finished_run, run_note


@dataclass(frozen=True)
class Run:
    """A model and what it does on a split.

    Attributes:
        name: Short, and that of no other run of the report.
        place: Where it lies, as the user named it.
        description: What its SavedModel says of itself.
        predictions: Its scores of the split.
        gains: What its features gain, the greatest first; empty if that was not asked for.
        buckets: The similarities that it reads by bucket, if it reads any.
        uncounted: Why these could not be counted, if so.
        seconds: Times of the stages of its training, by name, where that is known.
    """

    name: str
    place: str
    description: ModelDescription
    predictions: Predictions
    gains: list[Gain]
    buckets: list[Buckets] = field(default_factory=list)
    uncounted: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def made(self) -> dict[str, Any]:
        """How the model was made."""
        return self.description.made

    @property
    def file(self) -> FeatureFile:
        """Its feature file."""
        return self.description.feature_file

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry for each epoch of its training."""
        entries: list[dict[str, float]] = self.made.get("validation", [])
        return entries

    @property
    def weighting(self) -> Weighting:
        """The weight of a group in its GAUC."""
        return self.description.weighting

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights it has, from 1; 0 if its description has no epochs."""
        if not self.history:
            return 0
        training = self.made["experiment"]["training"]
        monitored = [MONITORS[training["monitor"]].of(entry) for entry in self.history]
        best, best_epoch = -np.inf, 0
        for epoch, value in enumerate(monitored, start=1):
            if value > best + training["min_improvement"]:
                best, best_epoch = value, epoch
        return best_epoch


def named(places: Sequence[str]) -> dict[str, str]:
    """The places by name: their last parts, as many as tell them apart.

    Raises:
        UserError: the same place twice.
    """
    parts = [place.rstrip("/").split("/") for place in places]
    if len(set(map(tuple, parts))) < len(parts):
        raise UserError(f"two of the runs are the same. Received: {', '.join(places)}")
    count = 1
    while len({tuple(one[-count:]) for one in parts}) < len(parts):
        count += 1
    return {"/".join(one[-count:]): place for one, place in zip(parts, places, strict=True)}


def read_runs(places: Mapping[str, str], data: str | None, split: str, slices: Sequence[str], gains: bool) -> list[Run]:
    """Score the split with each run.

    Args:
        places: By name: workspaces of `tfctr train`, model directories, or versions in them.
        data: The data directory; None takes the one that the first run was trained on, if it says so.
        split: The split.
        slices: Columns to slice by, beside those of the experiments.
        gains: Whether the gain of each feature is measured.

    Raises:
        UserError: no model there, no data, or runs whose rows of the split have other labels.
    """
    data = data or _trained_on(next(iter(places.values())))
    found: list[Run] = []
    for name, place in places.items():
        with _opened(place) as directory:
            found.append(_read(name, place, directory, data, split, slices, gains))
        _check_same_rows(found[0], found[-1])
    for column in slices:
        if not any(column in run.predictions.slices for run in found):
            allowed = sorted({name for run in found for name in sliceable(run.file)})
            raise UserError(f"--slice: no run has a column '{column}' to slice by. Allowed: {', '.join(allowed)}")
    return found


def _read(name: str, place: str, directory: Path, data: str, split: str, slices: Sequence[str], gains: bool) -> Run:
    described = describe(directory)
    file = described.feature_file
    files = split_files(data, split)
    # A column that only another run's feature file knows is sliced by in that run alone.
    asked = [*described.sliced_by, *(one for one in slices if one in sliceable(file))]
    with step(f"{name}: scores of the {split} split"):
        predictions = counted_rows(predict(directory, file, files, asked))
    found: list[Gain] = []
    if gains:
        with step(f"{name}: gain of each feature"):
            found = feature_gains(directory, file, files, len(predictions.labels))
    interests = described.made["model"]["interests"] or ()
    buckets: list[Buckets] = []
    uncounted = None
    try:
        buckets = similarity_buckets(file, interests, data, files, len(predictions.labels))
    except UserError as error:
        # The rest of the page needs no vectors: those of the model are inside of it.
        uncounted = str(error)
    seconds = _note(place).get("seconds", {})
    return Run(name, place, described, predictions, found, buckets, uncounted, seconds)


def counted_rows(rows: Predictions) -> Predictions:
    """The rows that count: those of a weight above 0."""
    if rows.weights is None:
        return rows
    chosen = rows.weights > 0
    groups = None if rows.groups is None else rows.groups[chosen]
    slices = {name: values[chosen] for name, values in rows.slices.items()}
    return Predictions(rows.labels[chosen], rows.scores[chosen], groups, rows.weights[chosen], slices)


def _trained_on(place: str) -> str:
    note = _note(place)
    if not note:
        raise UserError(f"{place}: says nothing of the data that it was trained on; name them with --data")
    return str(note["data"])


def _note(place: str) -> dict[str, Any]:
    """What a workspace notes of its run; nothing for another place."""
    return {} if is_remote(place) else run_note(place) or {}


@contextmanager
def _opened(place: str) -> Iterator[Path]:
    """The SavedModel of a run: that of a version, of the newest version, or one made of a workspace for the time."""
    if _note(place):
        run = finished_run(place)
        with tempfile.TemporaryDirectory(prefix="tfctr-") as directory:
            with step(f"{place}: export"):
                version = export_model(run.model, run.assets, run.experiment, f"{directory}/1", None, run.history)
            yield Path(version)
        return
    versions = version_numbers(place)
    with local_copy(join(place, str(versions[-1])) if versions else place) as directory:
        if not (directory / "saved_model.pb").is_file():
            raise UserError(f"{place}: is neither a finished run of `tfctr train` nor a SavedModel")
        yield directory


def _check_same_rows(first: Run, other: Run) -> None:
    same = len(first.predictions.labels) == len(other.predictions.labels) and np.array_equal(
        first.predictions.labels, other.predictions.labels
    )
    if not same:
        raise UserError(
            f"{other.place}: its labels of the split are not those of {first.place}, so the two can't be compared; "
            "make a report of each"
        )


def slices_of(run: Run) -> list[str]:
    """The columns that its rows are sliced by, those of the feature file first."""
    own = default_slices(run.file)
    return [*own, *(name for name in run.predictions.slices if name not in own)]
