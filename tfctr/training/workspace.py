"""The directory of a run of `tfctr train`: assets, checkpoints, and a note of what was trained on what."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from tfctr.data.keys import rows_key
from tfctr.data.sources import serialized, split_files
from tfctr.errors import UserError, disk_errors
from tfctr.features.assets import FeatureAssets
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import describe_validation_error
from tfctr.models.model import RankingModel, build_model
from tfctr.storage import finish_file, local_path, only_one, whole_place, write_text
from tfctr.training.callbacks import check_callbacks
from tfctr.training.cluster import refuse_several
from tfctr.training.experiment import Experiment
from tfctr.training.optimizer import check_table_optimizers
from tfctr.training.run import TrainingResult, run_training
from tfctr.training.splits import read_paths, read_splits
from tfctr.training.workers import ALONE, Workers

_NOTE = "run.json"
_WEIGHTS = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16}){2,3}\.weights\.h5")
"""What the weights of a run are called, of which a workspace keeps the last; other weights there are somebody's own."""


class _Note(TypedDict, total=False):
    """What a workspace notes of its finished run."""

    weights: str
    experiment: dict[str, Any]
    assets: str
    history: list[dict[str, float]]
    data: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class FinishedRun:
    """A trained model as it lies in a workspace; its name is that of no other run."""

    name: str
    model: RankingModel
    assets: FeatureAssets
    experiment: Experiment
    history: list[dict[str, float]]
    data: str


def train_in_workspace(
    file: FeatureFile,
    experiment: Experiment,
    data: str | Path,
    out: str | Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workers: Workers = ALONE,
) -> TrainingResult:
    """Analyzes the training split (once), trains, and leaves what `finished_run` needs.

    Args:
        file: The feature file.
        experiment: What is trained, and how.
        data: A data directory with train/ and valid/.
        out: The workspace; a killed run of the same experiment in it is continued.
        callbacks: Callbacks of Keras; see `tfctr.training.callbacks`.
        workers: What `tfctr.training.workers.connected` has found. `out` may be one directory that all of them share,
            or one for each; the chief's holds the run.

    Raises:
        UserError: what is wrong with the data, the experiment or the disk, or that another run has the workspace.
    """
    if workers is ALONE:
        refuse_several("a program that calls this without `workers`")
    check_callbacks(callbacks)
    check_experiment(experiment, file)
    workers.replicas(experiment.training)
    out = local_path(out, "--out")
    paths = read_paths(data)
    start = experiment.training.start_from
    if start is not None and Path(start.run).resolve() == out.resolve():
        raise UserError(f"training.start_from: {out} is where this run goes; train into another directory")
    source = None if start is None else finished_run(start.run)
    workers.check_same("the experiment or the feature file", [experiment.model_dump_json(), file.model_dump_json()])
    # The others write into `out` only what the chief has not left there, so they may share it with its lock.
    lock = only_one(out, out / ".lock") if workers.chief else nullcontext()
    with lock:
        return _train(workers, file, experiment, data, paths, out, source, callbacks)


def check_experiment(experiment: Experiment, file: FeatureFile) -> None:
    """Checks an experiment against the feature file, before anything is read.

    Raises:
        UserError: what does not go together.
    """
    experiment.model_config_of().interests_of(file)
    experiment.evaluation.slice_columns(file)
    check_table_optimizers(experiment.training, file)


def _train(
    workers: Workers,
    file: FeatureFile,
    experiment: Experiment,
    data: str | Path,
    paths: dict[str, list[str]],
    out: Path,
    source: FinishedRun | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> TrainingResult:
    started = time.monotonic()
    assets, splits = read_splits(workers, file, data, paths, out)
    reading = time.monotonic() - started
    rows = rows_key(file, [path for found in paths.values() for path in found])
    if source is not None:
        # A run that starts from another one, or from that one trained anew, is another run.
        rows += f"-{hashlib.sha256(source.name.encode()).hexdigest()[:16]}"
    start = None if source is None else source.model
    result = run_training(
        assets,
        experiment,
        splits["train"],
        splits["valid"],
        out / "runs" / rows,
        start,
        callbacks=callbacks,
        workers=workers,
    )
    if not workers.chief:
        return result
    # Weights of another run have another name, and the note that names them is replaced in one go: a kill in between
    # leaves the finished run that was there before.
    weights = out / f"{experiment.fingerprint()}-{assets.fingerprint[:16]}-{rows}.weights.h5"
    note = {
        "weights": weights.name,
        "experiment": experiment.model_dump(mode="json"),
        "assets": assets.directory.name,
        "history": result.progress.history,
        "data": whole_place(data),
        "seconds": {"reading": _reading_of(out, weights.name, reading), **result.progress.seconds},
    }
    with disk_errors(out):
        unfinished = weights.with_name(f".{weights.name}")  # Keras asks for its ending
        try:
            result.model.save_weights(unfinished)
            finish_file(unfinished, weights)
        finally:
            unfinished.unlink(missing_ok=True)
        write_text(out / _NOTE, json.dumps(note, indent=1))
        for old in out.glob("*.weights.h5"):
            if old != weights and _WEIGHTS.fullmatch(old.name):
                old.unlink(missing_ok=True)
    return result


def _reading_of(out: Path, weights: str, now: float) -> float:
    """The seconds of reading of a run: those of the call that finished it, which a later call does not replace."""
    try:
        note = run_note(out) or {}
    except UserError:
        return now  # and the note is written anew
    known: float | None = note.get("seconds", {}).get("reading")
    return now if known is None or note.get("weights") != weights else known


def run_note(workspace: str | Path) -> dict[str, Any] | None:
    """What a workspace notes of its finished run, or None where none has finished.

    Raises:
        UserError: when the note can't be read, or is not of the form in which a run writes it.
    """
    note = Path(workspace) / _NOTE
    if not note.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"{_NOTE} must be a mapping. Received: a {type(content).__name__}")
        TypeAdapter(_Note).validate_python(content)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(workspace, error) from None
    return content


def finished_note(workspace: str | Path) -> dict[str, Any]:
    """What a workspace notes of its finished run.

    Raises:
        UserError: when no run has finished there, or the note can't be read.
    """
    note = run_note(workspace)
    if note is None:
        raise UserError(f"{workspace}: holds no finished run; train one with `tfctr train --out {workspace}`")
    return note


def finished_run(workspace: str | Path) -> FinishedRun:
    """The model that a workspace holds.

    Raises:
        UserError: when no run has finished there, or what it left can't be read.
    """
    workspace, content = Path(workspace), finished_note(workspace)
    try:
        experiment = Experiment.model_validate(content["experiment"])
        assets = FeatureAssets(workspace / content["assets"])
        model = build_model(assets, experiment.model_config_of(), dtype=experiment.training.dtype)
        model.load_weights(workspace / content["weights"])
        return FinishedRun(content["weights"], model, assets, experiment, content["history"], content["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(workspace, error) from None


def _unreadable(workspace: str | Path, error: Exception) -> UserError:
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):
        told = describe_validation_error(_NOTE, error)
    return UserError(
        f"{workspace}: the finished run can't be read ({told.splitlines()[0]}); "
        "run `tfctr train` with the same arguments again, which writes it anew from its checkpoints"
    )


def warmup_row(file: FeatureFile, experiment: Experiment, data: str | Path) -> bytes | None:
    """The row of a log that the experiment wants in the warm-up requests of an export, or None for a made one.

    Raises:
        UserError: The data is not there.
    """
    if experiment.export.warmup_row == "made":
        return None
    rules = column_rules(file)
    return next(one for path in split_files(data, "train") for one in serialized(path, rules, file.csv))
