"""The training loop: epochs with validation, plateau, early stopping, checkpoints that a killed run resumes from."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from typing_extensions import override

from tfctr.console import console
from tfctr.errors import DataError, UserError, disk_errors
from tfctr.features.columns import CANDIDATE_MASK
from tfctr.metrics.reference import Weighting
from tfctr.metrics.report import ungrouped_line
from tfctr.metrics.table import METRICS, measurable
from tfctr.models.model import RankingModel
from tfctr.training.callbacks import UserCallbacks
from tfctr.training.checkpoints import Checkpoints, Progress, tensorflow_writes
from tfctr.training.dataset import RankingData
from tfctr.training.devices import check_built_for, fit_for_several, on_several
from tfctr.training.experiment import Training
from tfctr.training.interruption import Interruption, held_back
from tfctr.training.monitors import MONITORS
from tfctr.training.optimizer import make_optimizer
from tfctr.training.workers import ALONE, Workers

_REPORT_SECONDS = 10.0


def train(
    model: RankingModel,
    training: Training,
    train_data: RankingData,
    valid_data: RankingData,
    directory: Path,
    weighting: Weighting = "impressions",
    kept: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workers: Workers = ALONE,
) -> Progress:
    """Trains a model and leaves it with the weights of its best epoch.

    The directory is for checkpoints and TensorBoard logs. If it holds a checkpoint of an earlier, killed run,
    that run is continued: the same order of rows, the optimizer's moments, the plateau and the early stopping go on
    where they were. Ctrl-C and SIGTERM leave a checkpoint, of the step under way or before the validation under way,
    and raise KeyboardInterrupt.

    Args:
        weighting: The weight of a group in the GAUC of the validation.
        kept: A place in a store where the directory is kept too; a run that another machine began there is continued.
        callbacks: Callbacks of Keras, see `UserCallbacks`. What they hold is in no checkpoint. Of several workers, the
            chief calls them.
        workers: The processes that train the model together.

    Raises:
        UserError: when the loss is no longer finite, a split has too few rows, or a checkpoint can't be read.
    """
    if workers.chief:
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
    compile_model(model, training, workers)
    checkpoints = Checkpoints(model, directory, kept, workers)
    progress = checkpoints.restore() or Progress()
    if progress.finished:
        console().print(f"training: already finished after {len(progress.history)} epochs; nothing to do", markup=False)
    elif progress.epoch or progress.step:
        console().print(f"training: resumes in epoch {progress.epoch + 1} after step {progress.step}", markup=False)
    told = UserCallbacks(callbacks if workers.chief else (), model, training.epochs, ends_epochs=workers.count == 1)
    with held_back() as interruption:
        workers.fit_for(model, lambda: interruption.came)
        told.all.on_train_begin()
        while not progress.finished:
            watch = _Watch(training, progress, checkpoints, interruption, workers)
            if not progress.trained:
                told.all.on_epoch_begin(progress.epoch)
                with _timed(progress, "steps"):
                    _run_epoch(model, training, train_data, progress, [watch, told], workers)
            if workers.chief:
                _finish_epoch(model, training, valid_data, progress, watch, told, directory / "tensorboard", weighting)
            if workers.wait(lambda: interruption.came):
                watch.leave()
            progress = Progress(**workers.said(asdict(progress)))
        told.all.on_train_end()
    checkpoints.load_best(progress)
    return progress


def compile_model(model: RankingModel, training: Training, workers: Workers = ALONE) -> None:
    """Gives a model its optimizer, built, and says how its step is compiled."""
    check_built_for(model, workers.replicas(training))
    several = on_several(model)
    compiled = (model.faster_compiled and not several) if training.jit_compile is None else training.jit_compile
    with model.distribute_strategy.scope():
        model.compile(optimizer=make_optimizer(training, model), jit_compile=compiled)
        model.optimizer.build(model.trainable_variables)
    if several:
        fit_for_several(model)


@contextmanager
def _timed(progress: Progress, name: str) -> Iterator[None]:
    """Adds the time of the block to the progress, if the block comes to its end."""
    started = time.monotonic()
    yield
    progress.seconds[name] = progress.seconds.get(name, 0.0) + time.monotonic() - started


def _run_epoch(
    model: RankingModel,
    training: Training,
    data: RankingData,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
    workers: Workers,
) -> None:
    model.optimizer.lower(progress.rate_factor)
    # One seed an epoch: a resumed epoch sees the same rows in the same order and skips those it has seen.
    seed = training.seed * 10_007 + progress.epoch
    batches = workers.batches(data, training.batch_size, seed, progress.step)
    # Keras must not ask for a batch that is not there: whatever of a step needs no data (the count of steps, a decay of
    # weights) would be done once more at the end of every epoch.
    steps = data.steps(training.batch_size) - progress.step
    with warnings.catch_warnings():
        # An interest over frozen vectors reads no embedding of its events, so the embeddings of a feature that only
        # events have may get no gradient. That no weight of a layer is left out is tested.
        warnings.filterwarnings("ignore", message="Gradients do not exist for variables")
        if steps:
            model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
    progress.trained = True


def _finish_epoch(
    model: RankingModel,
    training: Training,
    valid_data: RankingData,
    progress: Progress,
    watch: _Watch,
    told: UserCallbacks,
    logs: Path,
    weighting: Weighting,
) -> None:
    with _timed(progress, "validation"):
        result = validate(model, valid_data, training.batch_size, weighting, watch.leave_if_told)
    if not math.isfinite(result["auc"]):
        raise DataError(
            "the validation split has labels of one class only (rows of weight 0 do not count), so no epoch can be "
            "told from another by its AUC; give it rows of both"
        )
    if progress.epoch == 0 and result.get("ungrouped"):
        console().print(f"the validation split: {ungrouped_line(result['ungrouped'])}", markup=False)
    result = {name: value for name, value in result.items() if name in METRICS}
    monitored = MONITORS[training.monitor].of(result)
    better = monitored > progress.best + training.min_improvement
    diagnostics = model.diagnostics()
    entry = {**result, "learning_rate": float(model.optimizer.learning_rate), **diagnostics}
    progress.history.append(entry)
    with tensorflow_writes(logs):
        summary = tf.summary.create_file_writer(str(logs))
        with summary.as_default(step=progress.epoch + 1):
            for name, value in entry.items():
                tf.summary.scalar(f"valid/{name}" if name in result else name, value)
        summary.close()
    console().print(
        f"epoch {progress.epoch + 1}: validation "
        + ", ".join(f"{METRICS[name].title} {value:.5f}" for name, value in result.items())
        + ("" if training.monitor in result else f", {MONITORS[training.monitor].title} {monitored:.5f}")
        + (" (best)" if better else "")
        + "".join(f", {name} {value:.3g}" for name, value in diagnostics.items()),
        highlight=False,
        markup=False,
    )
    if better:
        progress.best, progress.best_epoch, progress.waited = monitored, progress.epoch + 1, 0
        watch.checkpoints.save_best(progress)
    else:
        progress.waited += 1
        progress.rate_factor *= training.plateau_factor
    ended = told.validated(progress.epoch, entry)
    progress.epoch, progress.step, progress.trained = progress.epoch + 1, 0, False
    stopped = progress.waited >= training.patience
    if stopped and progress.epoch < training.epochs:
        console().print(
            f"training: stops early, {progress.waited} epochs after the best (training.patience)", markup=False
        )
    if ended:
        console().print("training: stops, as a callback says", markup=False)
    progress.finished = stopped or ended or progress.epoch >= training.epochs
    watch.checkpoints.save(progress)


def validate(
    model: RankingModel,
    data: RankingData,
    batch_size: int,
    weighting: Weighting = "impressions",
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return the metrics that the table asks for after every epoch, and their columns, by name.

    They are weighted, and those that need groups are left out when the feature file names none.

    Args:
        weighting: the weight of a group in grouped metrics.
        between: called before every batch.
    """
    columns: dict[str, list[Any]] = {}
    grouped = data.file.group is not None
    for inputs, *others in data.batches(batch_size, groups=grouped):
        between()
        values = dict(zip(("labels", "weights", "groups"), others, strict=False))
        count = len(values["labels"])
        mask = inputs.get(CANDIDATE_MASK)
        if mask is None and count < batch_size < len(data):
            # XLA compiles every size of a batch, which takes seconds: the last one is filled up with its last row.
            rows = tf.minimum(tf.range(batch_size), count - 1)
            inputs = {name: tf.gather(value, rows) for name, value in inputs.items()}
        values["scores"] = tf.sigmoid(model.predict_on_batch(inputs)[:count])
        real = slice(None) if mask is None else mask.numpy()
        for name, value in values.items():
            columns.setdefault(name, []).append(value.numpy()[real].ravel())
    if not columns:
        raise DataError("the validation split holds no example; check the data directory")
    rows = {name: np.concatenate(parts) for name, parts in columns.items()}
    if np.isnan(rows["scores"]).any():
        raise UserError(
            "the model's scores of the validation split are no numbers any more: lower training.learning_rate, or set "
            "training.clip_norm"
        )
    wanted = [metric for metric in measurable(grouped) if metric.every_epoch]
    named = [metric.named(**rows, **metric.accepted({"weighting": weighting})) for metric in wanted]
    return {name: value for one in named for name, value in one.items()}


class _Watch(keras.callbacks.Callback):
    """Counts steps, saves checkpoints, says how far the epoch is, stops a run that has lost its numbers or must go."""

    def __init__(
        self,
        training: Training,
        progress: Progress,
        checkpoints: Checkpoints,
        interruption: Interruption,
        workers: Workers,
    ) -> None:
        super().__init__()
        self._training, self._progress, self.checkpoints = training, progress, checkpoints
        self._interruption, self._workers = interruption, workers
        self._reported = time.monotonic()
        self._reported_step: int | None = None

    @override
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self._progress
        progress.step += 1
        leaves = self._workers.told_in_step(self._interruption.came)
        if progress.step % self._training.checkpoint_steps == 0 or leaves:
            self._check_loss(logs)
        if progress.step % self._training.checkpoint_steps == 0:
            self.checkpoints.save(progress)
        if leaves:
            self.leave()
        if self._reported_step is None:
            # What the first step takes is its compilation.
            self._reported, self._reported_step = time.monotonic(), progress.step
        seconds = time.monotonic() - self._reported
        if seconds > _REPORT_SECONDS:
            speed = (progress.step - self._reported_step) * self._training.batch_size / seconds
            self._reported, self._reported_step = time.monotonic(), progress.step
            console().print(
                f"epoch {progress.epoch + 1}, step {progress.step}: loss {float((logs or {}).get('loss', 0.0)):.4f}, "
                f"{speed:,.0f} rows/s",
                highlight=False,
                markup=False,
            )

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check_loss(logs)

    def leave_if_told(self) -> None:
        """Ends the run with a checkpoint where a signal came to this worker or another one."""
        if self._workers.told(self._interruption.came):
            self.leave()

    def leave(self) -> None:
        """Ends the run with a checkpoint."""
        self.checkpoints.save(self._progress)
        raise KeyboardInterrupt

    def _check_loss(self, logs: dict[str, Any] | None) -> None:
        """The loss that Keras reports is the mean since the epoch began, so one lost number is enough to see it."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise UserError(
                f"the training loss is {loss} in epoch {self._progress.epoch + 1}, step {self._progress.step}: "
                "lower training.learning_rate, or set training.clip_norm"
            )
