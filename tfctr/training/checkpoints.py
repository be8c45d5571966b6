"""Where a run is, and its checkpoints, from which a killed run resumes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.errors import DiskError, disk_errors
from tfctr.models.model import RankingModel
from tfctr.storage import Mirror, new_directory, remove_partial, write_text
from tfctr.training.workers import ALONE, Workers

_PROGRESS = "progress.json"
_CHECKPOINTS = "checkpoints"


@dataclass
class Progress:
    """Where a run is; written beside its checkpoint.

    Attributes:
        epoch: The epoch under way.
        step: Steps done in it.
        trained: Whether all its steps are done, so that only its validation is left.
        best: The best value of the monitor so far.
        best_epoch: The epoch that reached it, from 1; 0 before the first.
        waited: Epochs since then.
        rate_factor: What plateaus have multiplied the learning rates by.
        finished: Whether training has ended.
        history: One entry an epoch.
        seconds: How long the steps and the validations of the epochs that ended took, by name.
    """

    epoch: int = 0
    step: int = 0
    trained: bool = False
    best: float = -math.inf
    best_epoch: int = 0
    waited: int = 0
    rate_factor: float = 1.0
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)


class Checkpoints:
    """Weights, optimizer and progress, written so that a kill at any moment leaves a whole set.

    Of several workers the chief alone reads and writes them; the others are given what it has read. So they begin
    alike, and only the chief must see the directory.
    """

    def __init__(self, model: RankingModel, directory: Path, kept: str | None = None, workers: Workers = ALONE) -> None:
        # TensorFlow's tracking of a Keras model reaches trainable weights only: no moving statistics, no codebook that
        # moves with the events, no state of dropout's random numbers. So every variable is named. Given tables are
        # large and never change, and what Keras counts in an epoch is shown only.
        left_out = {id(variable) for variable in (*model.embeddings.frozen_tables.values(), *model.metrics_variables)}
        state = [variable.value for variable in model.variables if id(variable) not in left_out]
        weights = [weight.value for weight in model.weights if id(weight) not in left_out]
        optimizer = [variable.value for variable in model.optimizer.variables]
        self._checkpoint, self._all = tf.train.Checkpoint(state=state, optimizer=optimizer), [*state, *optimizer]
        self._best, self._weights = tf.train.Checkpoint(weights=weights), weights
        self._workers = workers
        self._directory = directory / _CHECKPOINTS
        self._state = directory / _PROGRESS
        self._kept = kept or directory
        self._mirror = Mirror(directory, kept, self._state.name)

    def save(self, progress: Progress) -> None:
        """Writes all that a resumed run needs, and removes what it no longer does."""
        if not self._workers.chief:
            return
        name = f"epoch{progress.epoch:04d}-step{progress.step:08d}"
        self._write(self._checkpoint, self._directory / name)
        with disk_errors(self._state):
            # The progress file names the checkpoint and the best one, so replacing it is what commits them.
            write_text(self._state, json.dumps({**asdict(progress), "checkpoint": name}, indent=1))
            for old in self._directory.iterdir():
                if old.is_dir():  # what TensorFlow leaves where it is killed while it writes
                    shutil.rmtree(old)
                elif not old.name.startswith((f"{name}.", f"{_best_name(progress)}.")):
                    old.unlink(missing_ok=True)
        self._mirror.send()

    def restore(self) -> Progress | None:
        """Reads the last checkpoint; returns the progress that goes with it, or None where there is none."""
        found = self._found() if self._workers.chief else None
        told = self._workers.said(None if found is None else asdict(found))
        if told is None:
            return None
        self._workers.spread(self._all)
        return found or Progress(**told)

    def _found(self) -> Progress | None:
        self._mirror.fetch()
        if not self._state.exists():
            return None
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            path = self._directory / state.pop("checkpoint")
            progress = Progress(**state)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise self._unreadable(self._state) from None
        self._read(self._checkpoint, path)
        return progress

    def save_best(self, progress: Progress) -> None:
        """Writes the weights of the best epoch."""
        self._write(self._best, self._directory / _best_name(progress))

    def load_best(self, progress: Progress) -> None:
        """Gives the model the weights of its best epoch."""
        if self._workers.chief:
            self._read(self._best, self._directory / _best_name(progress))
        self._workers.spread(self._weights)

    def _write(self, checkpoint: Any, path: Path) -> None:
        with tensorflow_writes(path):
            checkpoint.write(str(path))

    def _read(self, checkpoint: Any, path: Path) -> None:
        try:
            checkpoint.read(str(path)).assert_existing_objects_matched().expect_partial()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError):  # the last one for a file cut short
            raise self._unreadable(path) from None

    def _unreadable(self, path: Path) -> DiskError:
        return DiskError(f"{path}: the checkpoint can't be read; remove {self._kept} to train from the start again")


@contextmanager
def tensorflow_writes(path: Path) -> Iterator[None]:
    """Turns an error of TensorFlow while it writes (a full disk, no permission) into a `DiskError` that names it."""
    try:
        yield
    except tf.errors.OpError as error:
        raise DiskError(f"cannot write {path}: {error.message.splitlines()[0]}") from None


def _best_name(progress: Progress) -> str:
    # A name of its own for every epoch: were the best weights overwritten, a kill before the progress file is replaced
    # would leave weights that it does not tell of.
    return f"best-epoch{progress.best_epoch:04d}"


def start_longer(finished: Path, directory: Path, patience: int) -> None:
    """Makes the start of a run of more epochs out of a finished run, which it goes on from as if that had not ended.

    It becomes what all of its epochs in one go would have given: orders of rows, plateaus and patience know nothing of
    how many epochs there may be. Nothing is done where the directory is there.

    Args:
        finished: The directory of the finished run.
        directory: That of the longer one.
        patience: A run that had ended by it stays ended.
    """
    if directory.is_dir():
        return
    with disk_errors(directory):
        remove_partial(directory)
        with new_directory(directory) as unfinished:
            shutil.copytree(finished, unfinished, dirs_exist_ok=True)
            state = json.loads((finished / _PROGRESS).read_text(encoding="utf-8"))
            state |= {"finished": state["waited"] >= patience, "seconds": {}}
            write_text(unfinished / _PROGRESS, json.dumps(state, indent=1))


def discard_checkpoints(directory: Path) -> None:
    """Removes what a run could be continued from, and leaves its logs for TensorBoard."""
    with disk_errors(directory):
        (directory / _PROGRESS).unlink(missing_ok=True)
        if (directory / _CHECKPOINTS).is_dir():
            shutil.rmtree(directory / _CHECKPOINTS)
