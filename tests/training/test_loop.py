"""Training runs: plateaus, early stopping, best weights, checkpoints, and how a killed run continues."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.runs import BATCH, SMALL, run, small_experiment
from tests.workbench import ROOT, Workbench
from tfctr.errors import DataError, DiskError, UserError
from tfctr.features.spec import FeatureFile
from tfctr.interactions import Mlp
from tfctr.models import RankingModel, build_model
from tfctr.optimizers import LazyAdam, RowwiseAdagrad
from tfctr.training import loop
from tfctr.training.checkpoints import Checkpoints
from tfctr.training.dataset import RankingData
from tfctr.training.experiment import Experiment
from tfctr.training.optimizer import make_optimizer
from tfctr.training.run import TrainingResult, run_training
from tfctr.training.workspace import train_in_workspace

pytestmark = pytest.mark.slow

SAME = 1e-6


class Killed(BaseException):
    """Stands for a kill. As a BaseException, it is not caught by the loop."""


def weights_of(result: TrainingResult) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in result.model.weights]


def run_directory(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


def script(
    monkeypatch: pytest.MonkeyPatch, aucs: list[float], loglosses: list[float] | None = None
) -> list[list[np.ndarray]]:
    """Makes validation return these AUCs and loglosses in turn. The list it returns gets the weights of each epoch."""
    seen: list[list[np.ndarray]] = []

    def validate(model: Any, data: Any, batch_size: int, weighting: str, between: Any) -> dict[str, float]:
        seen.append([np.asarray(weight) for weight in model.weights])
        logloss = 0.7 if loglosses is None else loglosses[len(seen) - 1]
        return {"auc": aucs[len(seen) - 1], "gauc": 0.5, "logloss": logloss}

    monkeypatch.setattr(loop, "validate", validate)
    return seen


def kill_after(monkeypatch: pytest.MonkeyPatch, step: int, epoch: int = 0) -> None:
    """Kills the run after that step of that epoch. A checkpoint that is due after the step is still written."""
    original = loop._Watch.on_train_batch_end

    def killing(self: Any, batch: int, logs: dict[str, Any] | None = None) -> None:
        original(self, batch, logs)
        if (self._progress.epoch, self._progress.step) == (epoch, step):
            raise Killed

    monkeypatch.setattr(loop._Watch, "on_train_batch_end", killing)


class TestPlateauAndEarlyStopping:
    def test_worked_sequence(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # The second epoch is better by less than min_improvement, which does not count as better. The third is better,
        # and the two worse epochs after it end the run.
        aucs = [0.60, 0.6005, 0.70, 0.65, 0.66, 0.99]
        seen = script(monkeypatch, aucs)
        experiment = small_experiment(
            epochs=6, batch_size=640, patience=2, plateau_factor=0.5, learning_rate=0.01, min_improvement=0.001
        )
        result = run(tiny, experiment, tmp_path)
        history = result.progress.history
        assert [entry["auc"] for entry in history] == aucs[:5]
        np.testing.assert_allclose([e["learning_rate"] for e in history], [0.01, 0.01, 0.005, 0.005, 0.0025])
        assert (result.progress.best, result.progress.best_epoch, result.progress.finished) == (0.70, 3, True)
        for left, best, last in zip(weights_of(result), seen[2], seen[4], strict=True):
            np.testing.assert_array_equal(left, best)
            assert left.size < 2 or not np.array_equal(best, last), "an epoch changed nothing: the test proves nothing"
        assert capsys.readouterr().out.count("(best)") == 2

    def test_the_best_epoch_may_be_that_of_auc_minus_logloss(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # AUC - logloss is 0.1, 0.3, 0.25, 0.2; the AUC alone would call every epoch the best one.
        seen = script(monkeypatch, [0.60, 0.70, 0.71, 0.72, 0.99], [0.50, 0.40, 0.46, 0.52, 0.0])
        settings = {"epochs": 5, "batch_size": 640, "patience": 2, "monitor": "auc_minus_logloss"}
        result = run(tiny, small_experiment(**settings), tmp_path)
        assert (len(result.progress.history), result.progress.best_epoch) == (4, 2)
        assert result.progress.best == pytest.approx(0.3)
        for left, best in zip(weights_of(result), seen[1], strict=True):
            np.testing.assert_array_equal(left, best)

    def test_a_killed_run_still_knows_the_best_value_of_its_monitor(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment = small_experiment(epochs=2, batch_size=640, monitor="auc_minus_logloss")
        with monkeypatch.context() as patch:
            script(patch, [0.7], [0.4])
            kill_after(patch, 1, epoch=1)
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        # A better AUC, and a worse logloss by more.
        script(monkeypatch, [0.8], [0.6])
        progress = run(tiny, experiment, tmp_path).progress
        assert (progress.best_epoch, progress.best) == (1, pytest.approx(0.3))

    def test_learning_rate_reaches_the_optimizer_and_stops_at_its_minimum(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script(monkeypatch, [0.7, 0.6, 0.6, 0.6])
        rates: list[float] = []
        original = loop._run_epoch

        def watching(model: Any, *rest: Any) -> None:
            original(model, *rest)
            rates.append(float(model.optimizer.learning_rate.numpy()))

        monkeypatch.setattr(loop, "_run_epoch", watching)
        experiment = small_experiment(epochs=4, batch_size=640, patience=9, plateau_factor=0.1, min_learning_rate=5e-4)
        run(tiny, experiment, tmp_path)
        np.testing.assert_allclose(rates, [0.01, 0.01, 0.001, 5e-4], rtol=1e-6)


@pytest.fixture(scope="module")
def whole(tiny: Workbench, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run that is not killed."""
    return run(tiny, small_experiment(checkpoint_steps=4), tmp_path_factory.mktemp("whole"))


def same_ending(left: TrainingResult, right: TrainingResult, tolerance: float = SAME) -> None:
    assert len(left.progress.history) == len(right.progress.history)
    for one, other in zip(left.progress.history, right.progress.history, strict=True):
        assert one == pytest.approx(other, abs=tolerance)
    for one, other in zip(weights_of(left), weights_of(right), strict=True):
        np.testing.assert_allclose(one, other, atol=10 * tolerance)


def ends_alike_after_a_kill(tiny: Workbench, experiment: Experiment, directory: Path) -> None:
    """Kills a run two steps after a checkpoint, and compares how it ends with one that is not killed."""
    undisturbed = run(tiny, experiment, directory / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 6)
        with pytest.raises(Killed):
            run(tiny, experiment, directory / "killed")
    same_ending(run(tiny, experiment, directory / "killed"), undisturbed)


class TestMovingState:
    """Weights that no gradient trains: the statistics of normalizations, and codebooks that move with the events."""

    MODELS: ClassVar[dict[str, dict[str, Any]]] = {
        "batch normalization": {"preset": "mlp", "model": {"interaction": {**SMALL, "batch_norm": True}}},
        "dice": {"preset": "din", "model": {"interaction": SMALL}},
        "codebook": {"preset": "dmqn", "model": {"interaction": SMALL}},
    }

    @pytest.fixture(params=MODELS)
    def experiment(self, request: pytest.FixtureRequest) -> Experiment:
        training = {"epochs": 2, "batch_size": BATCH, "jit_compile": False, "seed": 3, "checkpoint_steps": 4}
        return Experiment.model_validate({**self.MODELS[request.param], "training": training})

    def test_is_that_of_the_best_epoch(
        self, tiny: Workbench, tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = script(monkeypatch, [0.7, 0.6])
        for result in (run(tiny, experiment, tmp_path), run(tiny, experiment, tmp_path)):  # the second does nothing
            for left, best in zip(weights_of(result), seen[0], strict=True):
                np.testing.assert_array_equal(left, best)
        moving = [
            index
            for index, weight in enumerate(result.model.weights)
            if not weight.trainable and not np.array_equal(seen[0][index], seen[1][index])
        ]
        assert moving, "nothing moved: the test proves nothing"

    def test_goes_on_where_it_was(self, tiny: Workbench, tmp_path: Path, experiment: Experiment) -> None:
        ends_alike_after_a_kill(tiny, experiment, tmp_path)

    def test_the_model_scores_as_its_best_line_says(
        self, tiny: Workbench, tmp_path: Path, experiment: Experiment
    ) -> None:
        result = run(tiny, experiment, tmp_path)
        best = result.progress.history[result.progress.best_epoch - 1]
        again = loop.validate(result.model, tiny.split("valid"), BATCH)
        assert again["logloss"] == pytest.approx(best["logloss"], abs=1e-6)


class TestOptimizers:
    """Chosen in the experiment file, for tables apart."""

    @pytest.mark.parametrize(
        "training",
        [
            {"optimizer": "sgd", "embedding_optimizer": "lazy_adam"},
            {"embedding_optimizer": {"type": "rowwise_adagrad", "learning_rate": 0.05}, "warmup_steps": 8},
            {"embedding_optimizer": "lazy_ftrl", "optimizer": {"type": "adamw", "weight_decay": 0.1}},
            {"learning_rate": {"type": "cosine_decay", "initial_learning_rate": 0.02, "decay_steps": 12}},
        ],
        ids=lambda training: "-".join(training),
    )
    def test_a_killed_run_goes_on_where_it_was(self, tiny: Workbench, tmp_path: Path, training: dict[str, Any]) -> None:
        ends_alike_after_a_kill(tiny, small_experiment(checkpoint_steps=4, **training), tmp_path)

    def test_a_row_that_no_batch_reads_stays(self, tiny: Workbench, tmp_path: Path) -> None:
        """With a penalty, which is on the rows of the batch then; Adam with the whole table's moves every row."""
        # Index 0 stands for a missing value, and no row of this log misses its user.
        unread: dict[str | None, Any] = {}
        for optimizer in ("lazy_adam", None):
            experiment = small_experiment(epochs=1, embedding_optimizer=optimizer)
            experiment.model["embedding_l2"] = 0.1
            model = run(tiny, experiment, tmp_path / str(optimizer)).model
            unread[optimizer] = model.embeddings.tables["user_id"].embeddings.numpy()[0]
        keras.utils.set_random_seed(3)
        start = build_model(tiny.assets, experiment.model_config_of()).embeddings.tables["user_id"].embeddings.numpy()
        np.testing.assert_array_equal(unread["lazy_adam"], start[0])
        assert np.all(unread[None] != start[0])

    def test_a_feature_may_have_its_own(self, tiny: Workbench) -> None:
        file = tiny.assets.file.model_dump(exclude_unset=True)
        file["candidate"]["item_id"]["optimizer"] = {"type": "rowwise_adagrad", "learning_rate": 0.5}
        assets, experiment = tiny.assets, small_experiment(embedding_optimizer="lazy_adam")
        model = RankingModel(
            FeatureFile.model_validate(file), assets.trained_tables(), {}, experiment.model_config_of()
        )
        model.build()
        optimizer = make_optimizer(experiment.training, model)
        own = {path.split("/")[-2]: one for path, one in optimizer.tables.items()}
        assert isinstance(own["item_id"], RowwiseAdagrad)
        assert float(own["item_id"].learning_rate) == 0.5
        assert isinstance(own["user_id"], LazyAdam)
        assert isinstance(optimizer.dense, keras.optimizers.Adam)

    def test_a_mistake_in_the_feature_file_is_told_before_any_data_is_read(
        self, tiny: Workbench, tmp_path: Path
    ) -> None:
        content = tiny.assets.file.model_dump(exclude_unset=True)
        content["candidate"]["item_id"]["optimizer"] = "lazy_adan"
        file = FeatureFile.model_validate(content)
        with pytest.raises(UserError, match=r"^optimizer of feature 'item_id': unknown type 'lazy_adan'. Allowed: ada"):
            train_in_workspace(file, small_experiment(), tiny.data, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_schedule_counts_the_steps(self, tiny: Workbench, tmp_path: Path) -> None:
        """Three steps an epoch: by itself, Keras counts one more at the end of each."""
        rate = {"type": "polynomial_decay", "initial_learning_rate": 0.02, "decay_steps": 4, "end_learning_rate": 0.01}
        history = run(tiny, small_experiment(batch_size=640, learning_rate=rate), tmp_path).progress.history
        np.testing.assert_allclose([one["learning_rate"] for one in history], [0.0125, 0.01], rtol=1e-6)


class TestCallbacks:
    def test_hear_of_one_training(self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script(monkeypatch, [0.7, 0.6, 0.5])
        heard: list[Any] = []

        class Listening(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                heard.append("begin")

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                heard.append(batch)

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                heard.append((epoch, logs["val_auc"], logs["learning_rate"], logs["loss"] > 0))

            def on_train_end(self, logs: Any = None) -> None:
                heard.append("end")

        experiment = small_experiment(epochs=3, batch_size=640, plateau_factor=1.0, learning_rate=0.5)
        data = (tiny.split("train"), tiny.split("valid"), tmp_path)
        stopping = keras.callbacks.EarlyStopping("val_auc", mode="max", patience=1)
        result = run_training(tiny.assets, experiment, *data, callbacks=[Listening(), stopping])
        assert heard == ["begin", 0, 1, 2, (0, 0.7, 0.5, True), 0, 1, 2, (1, 0.6, 0.5, True), "end"]
        assert (result.progress.finished, len(result.progress.history)) == (True, 2)


class TestCodebooks:
    """What a run of DMQN says of its codebooks, and where they stand after a kill."""

    EXPERIMENT: ClassVar[dict[str, Any]] = {
        "preset": "dmqn",
        "model": {"interaction": SMALL},
        "training": {"epochs": 2, "batch_size": BATCH, "jit_compile": False, "seed": 3, "checkpoint_steps": 4},
    }

    def test_the_figures_are_in_the_log_and_in_the_history(
        self, tiny: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = run(tiny, Experiment.model_validate(self.EXPERIMENT), tmp_path)
        said = capsys.readouterr().out
        for entry in result.progress.history:
            figures = {name: entry[f"history/codebook_{name}"] for name in ("agreement", "effective_words", "fit")}
            assert figures["agreement"] == pytest.approx(1.0, abs=1e-5)
            assert 1.0 < figures["effective_words"] < 32.0
            assert 0.0 < figures["fit"] <= 1.0
            assert 1.0 <= entry["history/codebook_used_words"] <= 32.0
            for name, value in figures.items():
                assert f"history/codebook_{name} {value:.3g}" in " ".join(said.split())

    def test_a_resumed_run_starts_with_the_moved_codewords(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment, original, moved = Experiment.model_validate(self.EXPERIMENT), loop._run_epoch, []

        def watching(model: Any, *rest: Any) -> None:
            (interest,) = model.scorer.interests.values()
            moved.append(np.abs(interest.codebook.offset).max())
            original(model, *rest)

        monkeypatch.setattr(loop, "_run_epoch", watching)
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, 6)
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        run(tiny, experiment, tmp_path)
        assert moved[0] == 0.0
        assert moved[1] > 0.01


class TestKilledRun:
    @pytest.mark.parametrize(
        ("epoch", "step", "first_step"),
        [(0, 2, 0), (0, 6, 4), (1, 5, 4), (1, 8, 8)],
        ids=["before any checkpoint", "two steps after a checkpoint", "in the second epoch", "at a checkpoint"],
    )
    def test_continues_and_ends_alike(
        self,
        tiny: Workbench,
        whole: TrainingResult,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        epoch: int,
        step: int,
        first_step: int,
    ) -> None:
        experiment = small_experiment(checkpoint_steps=4)
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, step, epoch)
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        capsys.readouterr()
        done = count_steps(lambda: same_ending(run(tiny, experiment, tmp_path), whole))
        assert done == (2 - epoch) * steps_of_epoch(tiny) - first_step
        said = capsys.readouterr().out
        assert ("resumes in epoch" in said) == (epoch + first_step > 0)
        if first_step:
            assert f"resumes in epoch {epoch + 1} after step {first_step}" in said

    def test_killed_between_the_last_step_and_validation(
        self, tiny: Workbench, whole: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The only checkpoint is written after the last step of the epoch, so no step of this epoch is left to train.
        experiment = small_experiment(checkpoint_steps=steps_of_epoch(tiny))
        with monkeypatch.context() as patch:
            kill_after(patch, steps_of_epoch(tiny))
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        same_ending(run(tiny, experiment, tmp_path), whole)

    def test_killed_between_the_best_weights_and_the_progress_file(
        self, tiny: Workbench, whole: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Checkpoints.save

        def killing(self: Any, progress: Any) -> None:
            if progress.epoch == 2:
                raise Killed
            original(self, progress)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", killing)
            with pytest.raises(Killed):
                run(tiny, small_experiment(checkpoint_steps=4), tmp_path)
        same_ending(run(tiny, small_experiment(checkpoint_steps=4), tmp_path), whole)

    @pytest.mark.parametrize("at", [1, 2], ids=["the first checkpoint", "the second"])
    def test_killed_while_tensorflow_writes_a_checkpoint(
        self, tiny: Workbench, whole: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        original, written = tf.train.Checkpoint.write, []

        def killing(self: Any, path: str) -> str:
            written.append(path)
            if len(written) < at:
                return original(self, path)
            (Path(f"{path}_temp")).mkdir(parents=True)
            (Path(f"{path}_temp") / "part-00000-of-00001.data-00000-of-00001.tempstate1").touch()
            raise Killed

        experiment = small_experiment(checkpoint_steps=4)
        with monkeypatch.context() as patch:
            patch.setattr(tf.train.Checkpoint, "write", killing)
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        same_ending(run(tiny, experiment, tmp_path), whole)
        assert not list(run_directory(tmp_path).rglob("*_temp"))

    def test_best_weights_are_those_the_progress_file_tells_of(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The second epoch is the best. The run is killed after its weights are written and before the progress file is
        # written. When the epoch is trained again, it is worse, which is possible because a GPU adds in another order.
        # The weights of the first epoch must still be there.
        experiment = small_experiment(batch_size=640)
        with monkeypatch.context() as patch:
            seen = script(patch, [0.6, 0.7])
            original = Checkpoints.save
            patch.setattr(
                Checkpoints,
                "save",
                lambda self, progress: original(self, progress) if progress.epoch < 2 else raise_killed(),
            )
            with pytest.raises(Killed):
                run(tiny, experiment, tmp_path)
        script(monkeypatch, [0.5])
        result = run(tiny, experiment, tmp_path)
        assert result.progress.best_epoch == 1
        for left, first in zip(weights_of(result), seen[0], strict=True):
            np.testing.assert_array_equal(left, first)

    def test_dropout_goes_on_where_it_was(self, tiny: Workbench, tmp_path: Path) -> None:
        # The checkpoint has the state of the dropout's random numbers, so that runs with dropout end alike as well.
        ends_alike_after_a_kill(tiny, small_experiment(dropout=0.3, checkpoint_steps=4, epochs=1), tmp_path)

    def test_a_finished_run_does_nothing(
        self, tiny: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        experiment = small_experiment(epochs=1, batch_size=640)
        first = run(tiny, experiment, tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert count_steps(lambda: same_ending(run(tiny, experiment, tmp_path), first, tolerance=0.0)) == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert "already finished after 1 epochs" in capsys.readouterr().out

    def test_a_moved_directory_is_still_a_run(self, tiny: Workbench, tmp_path: Path) -> None:
        experiment = small_experiment(epochs=1, batch_size=640)
        first = run(tiny, experiment, tmp_path / "here")
        (tmp_path / "here").rename(tmp_path / "there")
        assert count_steps(lambda: same_ending(run(tiny, experiment, tmp_path / "there"), first)) == 0

    def test_only_the_newest_and_the_best_checkpoint_stay(self, tiny: Workbench, tmp_path: Path) -> None:
        run(tiny, small_experiment(checkpoint_steps=2), tmp_path)
        names = {path.name.split(".")[0] for path in (run_directory(tmp_path) / "checkpoints").iterdir()}
        progress = json.loads((run_directory(tmp_path) / "progress.json").read_text())
        assert names == {"epoch0002-step00000000", f"best-epoch{progress['best_epoch']:04d}"}

    @pytest.mark.parametrize("damage", ["checkpoint", "progress", "older"])
    def test_damaged_checkpoint(self, tiny: Workbench, tmp_path: Path, damage: str) -> None:
        experiment = small_experiment(epochs=1, batch_size=640)
        run(tiny, experiment, tmp_path)
        directory = run_directory(tmp_path)
        if damage == "checkpoint":
            for path in (directory / "checkpoints").iterdir():
                path.unlink()
        elif damage == "progress":
            (directory / "progress.json").write_text('{"epoch": ')
        else:
            (directory / "progress.json").write_text('{"epoch": 1, "checkpoint": "x", "unheard": 1}')
        with pytest.raises(DiskError, match=r"can't be read; remove .* to train from the start again"):
            run(tiny, experiment, tmp_path)

    @pytest.mark.parametrize("written", ["checkpoint", "summary"])
    def test_a_disk_that_fills_while_tensorflow_writes(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device\nand more")

        if written == "checkpoint":
            monkeypatch.setattr(tf.train.Checkpoint, "write", full)
        else:
            monkeypatch.setattr(tf.summary, "scalar", full)
        with pytest.raises(DiskError, match=r"^cannot write .*: No space left on device$"):
            run(tiny, small_experiment(epochs=1, batch_size=640), tmp_path)

    @pytest.mark.e2e
    def test_sigkill(self, tiny: Workbench, tmp_path: Path, whole: TrainingResult) -> None:
        (tmp_path / "data.pickle").write_bytes(pickle.dumps((tiny, tmp_path / "runs")))
        code = (
            "import pickle, sys\n"
            "from tests.training.runs import run, small_experiment\n"
            "tiny, directory = pickle.load(open(sys.argv[1], 'rb'))\n"
            "experiment = small_experiment(checkpoint_steps=4)\n"
            "from tfctr.training import loop\n"
            "import pathlib, time\n"
            "original = loop._Watch.on_train_batch_end\n"
            "def hang(self, batch, logs=None):\n"
            "    original(self, batch, logs)\n"
            "    if self._progress.step == 6:\n"
            "        pathlib.Path(sys.argv[2]).touch()\n"
            "        time.sleep(600)\n"
            "loop._Watch.on_train_batch_end = hang\n"
            "run(tiny, experiment, directory)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        hangs = tmp_path / "hangs"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data.pickle"), hangs], env=environment)
        while not hangs.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        result: list[TrainingResult] = []
        done = count_steps(lambda: result.append(run(tiny, small_experiment(checkpoint_steps=4), tmp_path / "runs")))
        assert done == 2 * steps_of_epoch(tiny) - 4
        same_ending(result[0], whole)


def raise_killed() -> None:
    raise Killed


def steps_of_epoch(tiny: Workbench) -> int:
    return -(-len(tiny.split("train")) // BATCH)


def count_steps(action: Callable[[], Any]) -> int:
    """Training steps that `action` takes."""
    steps = 0
    original = loop._Watch.on_train_batch_end

    def counting(self: Any, batch: int, logs: dict[str, Any] | None = None) -> None:
        nonlocal steps
        steps += 1
        original(self, batch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Watch, "on_train_batch_end", counting)
        action()
    return steps


def test_tensorboard_reads_the_scalars(tiny: Workbench, tmp_path: Path) -> None:
    result = run(tiny, small_experiment(batch_size=640), tmp_path)
    events = EventAccumulator(str(run_directory(tmp_path) / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["tensors"]) == ["learning_rate", "valid/auc", "valid/gauc", "valid/logloss"]
    # Every epoch has a file. The names of those of one second end in the count of the process, as in 9 and 10.
    found = sorted(events.Tensors("valid/auc"), key=lambda event: event.step)
    read = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in found]
    assert [step for step, _ in read] == [1, 2]
    expected = [entry["auc"] for entry in result.progress.history]
    np.testing.assert_allclose([value for _, value in read], expected, rtol=1e-6)


@pytest.mark.e2e
def test_xla_changes_nothing_but_the_time(tiny: Workbench, tmp_path: Path) -> None:
    plain, compiled = (
        run(tiny, small_experiment(epochs=1, batch_size=150, jit_compile=jit), tmp_path / str(jit))
        for jit in (False, True)
    )
    assert plain.progress.history[0] == pytest.approx(compiled.progress.history[0], abs=1e-4)
    for one, other in zip(weights_of(plain), weights_of(compiled), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.e2e
@pytest.mark.parametrize(("told", "faster", "wanted"), [(None, True, True), (None, False, False), (False, True, False)])
def test_the_model_says_whether_xla_compiles_where_the_experiment_does_not(
    tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool | None, faster: bool, wanted: bool
) -> None:
    monkeypatch.setattr(Mlp, "jit_compile", faster)
    result = run(tiny, small_experiment(epochs=1, jit_compile=told), tmp_path)
    assert result.model.jit_compile == wanted


class TestErrors:
    @pytest.mark.parametrize("checkpoint_steps", [2, 500])
    def test_lost_numbers(self, tiny: Workbench, tmp_path: Path, checkpoint_steps: int) -> None:
        experiment = small_experiment(learning_rate=1e30, clip_norm=None, checkpoint_steps=checkpoint_steps)
        with pytest.raises(UserError, match=r"training loss is (nan|inf) in epoch 1.*lower training.learning_rate"):
            run(tiny, experiment, tmp_path)
        assert not list(tmp_path.rglob("best-*"))

    @pytest.mark.parametrize("jit", [False, True])
    def test_fewer_rows_than_a_batch(self, tiny: Workbench, tmp_path: Path, jit: bool) -> None:
        result = run(tiny, small_experiment(batch_size=100_000, epochs=1, jit_compile=jit), tmp_path)
        assert result.progress.finished

    @pytest.mark.parametrize("split", ["train", "valid"])
    def test_empty_split(self, tiny: Workbench, tmp_path: Path, split: str) -> None:
        with pytest.raises(UserError, match="the split holds no example"):
            run_with(tiny, tmp_path, split, records=[])

    @pytest.mark.parametrize("split", ["train", "valid"])
    def test_damaged_file(self, tiny: Workbench, tmp_path: Path, split: str) -> None:
        path = tmp_path / "cut.tfrecord"
        write(path, list(tiny.serialized(split, 200)))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"cut.tfrecord is damaged or cut off after record \d+"):
            run_with(tiny, tmp_path, split, path=path)

    def test_one_class_in_validation(self, tiny: Workbench, tmp_path: Path) -> None:
        clicks = [r for r in tiny.serialized("valid", 160) if label_of(r) == 1]
        with pytest.raises(UserError, match="every label is 1, and labels of one class only"):
            run_with(tiny, tmp_path, "valid", records=clicks)

    def test_a_validation_without_an_auc_is_a_fault_of_the_data(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script(monkeypatch, [float("nan")])
        with pytest.raises(DataError, match="the validation split has labels of one class only"):
            run(tiny, small_experiment(epochs=1, batch_size=640), tmp_path)


def label_of(record: bytes) -> int:
    return int(tf.train.Example.FromString(record).features.feature["label"].int64_list.value[0])


def write(path: Path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def run_with(
    tiny: Workbench, directory: Path, split: str, records: list[bytes] | None = None, path: Path | None = None
) -> None:
    """A run in which one split is read from another file."""
    if path is None:
        path = directory / "changed.tfrecord"
        write(path, records or [])
    splits = {name: tiny.split(name) for name in ("train", "valid")}
    splits[split] = RankingData.of_log(tiny.file, [str(path)], tiny.function, directory / "rows")
    experiment: Experiment = small_experiment(epochs=1, batch_size=640)
    loop_directory = directory / "run"
    loop.train(make_model(tiny, experiment), experiment.training, splits["train"], splits["valid"], loop_directory)


def make_model(tiny: Workbench, experiment: Experiment) -> Any:
    return build_model(tiny.assets, experiment.model_config_of())
