"""Training in several processes: real ones, which find one another on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from tests.ports import free_ports
from tests.training.runs import BATCH, SMALL
from tests.workbench import ROOT, Workbench
from tfctr.errors import UserError
from tfctr.training.callbacks import UserCallbacks
from tfctr.training.cluster import cluster_of, refuse_several
from tfctr.training.dataset import Parts, RankingData
from tfctr.training.experiment import Experiment
from tfctr.training.requests import RequestData
from tfctr.training.workers import connected
from tfctr.training.workspace import finished_run, train_in_workspace

TWO = ["a:1", "b:1"]
# Plain gradients: Adam makes a step of rounding where a gradient is nothing else.
TRAINING = {
    "epochs": 4,
    "patience": 4,
    "batch_size": BATCH + 1,
    "checkpoint_steps": 4,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "jit_compile": False,
    "seed": 3,
}

EXPERIMENT = {"preset": "mlp", "model": {"interaction": SMALL}, "training": TRAINING}


def config(cluster: Any = None, task: Any = None) -> str:
    return json.dumps({"cluster": cluster or {"worker": TWO}, "task": task or {"type": "worker", "index": 0}})


class TestConfig:
    def test_not_set(self) -> None:
        assert cluster_of(None) is None
        assert cluster_of("") is None

    @pytest.mark.parametrize(
        ("cluster", "task", "number"),
        [
            ({"worker": TWO}, {"type": "worker", "index": 1}, 1),
            ({"chief": ["c:1"], "worker": TWO}, {"type": "chief", "index": 0}, 0),
            ({"chief": ["c:1"], "worker": TWO}, {"type": "worker", "index": 0}, 1),
            ({"chief": ["c:1"], "worker": TWO}, {"type": "worker", "index": "1"}, 2),
        ],
    )
    def test_the_chief_is_number_0(self, cluster: Any, task: Any, number: int) -> None:
        found = cluster_of(config(cluster, task))
        assert found is not None
        assert (found.number, found.count) == (number, sum(map(len, cluster.values())))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"must be JSON; .*line 1"),
            ("[]", r'must be {"cluster": {"worker"'),
            ('{"cluster": {"worker": ["a:1"]}}', r'must be {"cluster"'),
            (config(task={"type": "worker", "index": "x"}), r'must be {"cluster"'),
            (config(task={"type": "worker", "index": 0.5}), r'must be {"cluster"'),
            (config(task={"type": "worker", "index": True}), r'must be {"cluster"'),
            (config(task={"type": "worker", "index": float("inf")}), r'must be {"cluster"'),
            (config({"worker": "a:1"}), r'must be {"cluster"'),
            ("[" * 100_000, r'must be {"cluster"'),
            (config({"worker": TWO, "ps": ["p:1"]}), r"holds `ps`; there are no parameter servers"),
            (config({"worker": TWO, "evaluator": ["p:1"]}), r"holds `evaluator`; the chief evaluates"),
            (
                config(task={"type": "evaluator", "index": 0}),
                r"`task` is of type `evaluator`, and `cluster` has worker",
            ),
            (config(task={"type": "worker", "index": 2}), r"`task` has index 2, and `cluster` has 2 of type `worker`"),
            (config(task={"type": "worker", "index": -1}), r"`task` has index -1"),
            (config({"chief": TWO}, {"type": "chief", "index": 0}), r"one chief at most. Received: 2"),
            (config({"worker": ["a:1", "a:1"]}), r"two tasks have the same address"),
            (config({"worker": ["a", "b:1"]}), r"an address must be HOST:PORT, .*\. Received: a"),
            (config({"worker": ["a:0", "b:1"]}), r"the port from 1 to 65535\. Received: a:0"),
            (config({"worker": ["a:1", "b:99999"]}), r"Received: b:99999"),
            (config({"worker": ["http://a:1", "b:1"]}), r"Received: http://a:1"),
            (config({"worker": ["a b:1", "b:1"]}), r"Received: a b:1"),
        ],
    )
    def test_broken(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=rf"^TF_CONFIG \(an environment variable\): .*{message}"):
            cluster_of(text)

    def test_one_worker_trains_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1"]}))
        refuse_several("nobody")
        with connected() as workers:
            assert workers.chief
            assert workers.count == 1

    def test_a_program_must_ask_for_them(
        self, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TF_CONFIG", config())
        with pytest.raises(UserError, match=r"names 2 workers, and a program that .* trains in one process"):
            train_in_workspace(tiny.file, None, tiny.data, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [RankingData, RequestData])
@pytest.mark.parametrize("batch_size", [7, 640])
def test_the_parts_of_a_batch_are_the_batch(tiny: Workbench, kind: type[RankingData], batch_size: int) -> None:
    split = tiny.split("valid")
    data = kind(split.copy, split.file)
    parts = [list(data.batches(batch_size, 5, 1, parts=Parts(part, 1, 3))) for part in range(3)]
    two = list(data.batches(batch_size, 5, 1, parts=Parts(1, 2, 3)))
    assert len(two) == 2 * len(parts[0])
    for number, (inputs, labels, weights) in enumerate(data.batches(batch_size, 5, 1)):
        assert max(len(part[number][1]) for part in parts) == -(-len(labels) // 3)
        for name, whole in named(inputs, labels, weights).items():
            read = [named(*part[number])[name] for part in parts]
            np.testing.assert_array_equal(np.concatenate(read), whole)
        np.testing.assert_array_equal(two[2 * number][1], parts[1][number][1])
        np.testing.assert_array_equal(two[2 * number + 1][1], parts[2][number][1])


def named(inputs: dict[str, Any], labels: Any, weights: Any) -> dict[str, Any]:
    return {**inputs, "labels": labels, "weights": weights}


class Team:
    """`tfctr train` in two processes."""

    def __init__(self, tiny: Workbench, directory: Path) -> None:
        self._data, self.directory = tiny.data, directory
        self.features, self.experiment = directory / "features.yaml", directory / "experiment.yaml"
        self.features.write_text(yaml.safe_dump(tiny.file.model_dump(mode="json", exclude_unset=True)))
        self.experiment.write_text(yaml.safe_dump(EXPERIMENT))
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *outs: str, options: tuple[tuple[str, ...], ...] = ((), ())) -> None:
        """One process for each workspace."""
        ports = free_ports(len(outs))
        self.running = []
        for index, (out, more) in enumerate(zip(outs, options, strict=False)):
            cluster = {"worker": [f"localhost:{port}" for port in ports]}
            own = config(cluster, {"type": "worker", "index": index})
            # Else the level is that of an import of this process, and libraries say more.
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
            environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "TF_CONFIG": own}
            given = ["--features", self.features, "--data", self._data, "--experiment", self.experiment]
            command = [sys.executable, "-c", "from tfctr.cli import main; main()", "train", *given]
            self.running.append(
                subprocess.Popen(
                    [*command, "--out", self.directory / out, *more],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def ended(self, *statuses: int) -> list[str]:
        """What they printed, after all have ended with these statuses."""
        printed = [one.communicate(timeout=300)[0] for one in self.running]
        assert [one.returncode for one in self.running] == list(statuses), "\n---\n".join(printed)
        assert not any("Traceback" in one for one in printed)
        return printed

    def wait_for(self, there: Callable[[], bool]) -> None:
        """Until something is there while all of them run."""
        while not there():
            assert all(one.poll() is None for one in self.running), self.running[0].communicate()[0]
            time.sleep(0.02)

    def progress(self, out: str) -> dict[str, Any]:
        (found,) = (self.directory / out / "runs").rglob("progress.json")
        return dict(json.loads(found.read_text()))

    def has_checkpoint(self, out: str) -> bool:
        return any((self.directory / out).glob("runs/*/*/progress.json"))


def history(out: Path) -> list[dict[str, float]]:
    return list(json.loads((out / "run.json").read_text())["history"])


def weights(out: Path) -> list[Any]:
    return [np.asarray(weight) for weight in finished_run(out).model.weights]


@pytest.fixture
def team(tiny: Workbench, tmp_path: Path) -> Iterator[Team]:
    made = Team(tiny, tmp_path)
    yield made
    for one in made.running:
        one.kill()
        one.wait()


@pytest.fixture(scope="module")
def one(tiny: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a run of one process."""
    out = tmp_path_factory.mktemp("one") / "out"
    train_in_workspace(tiny.file, Experiment.model_validate(EXPERIMENT), tiny.data, out)
    return out


def same(left: Path, right: Path, tolerance: float) -> None:
    assert len(history(left)) == TRAINING["epochs"]
    for one, other in zip(history(left), history(right), strict=True):
        assert one == pytest.approx(other, abs=tolerance)
    for ours, theirs in zip(weights(left), weights(right), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


@pytest.mark.e2e
def test_two_workers_make_the_steps_of_one_and_a_killed_run_resumes(team: Team, one: Path) -> None:
    team.start("two", "two")
    chief, other = team.ended(0, 0)
    assert chief.count(": validation AUC") == TRAINING["epochs"]
    assert len(other.splitlines()) == 1
    assert "worker 2 of 2" in other
    same(team.directory / "two", one, tolerance=1e-5)

    team.start("killed", "killed")
    team.wait_for(lambda: team.has_checkpoint("killed"))
    team.running[1].send_signal(signal.SIGKILL)
    chief, _ = team.ended(2, -signal.SIGKILL)
    assert "worker 1 of 2 (the chief): can't reach the worker at localhost:" in chief
    assert "Start all workers again" in chief
    assert not team.progress("killed")["finished"]
    team.start("killed", "killed")
    chief, _ = team.ended(0, 0)
    assert "training: resumes in epoch" in chief
    same(team.directory / "killed", team.directory / "two", tolerance=1e-7)


@pytest.mark.e2e
def test_each_in_a_workspace_of_its_own_and_one_goes_on(tiny: Workbench, team: Team, one: Path) -> None:
    team.start("chief", "other")
    team.wait_for(lambda: team.has_checkpoint("chief"))
    team.running[0].send_signal(signal.SIGKILL)
    _, other = team.ended(-signal.SIGKILL, 2)
    assert "worker 2 of 2: can't reach the worker at localhost:" in other
    assert not (team.directory / "other" / "runs").exists()

    killed = team.progress("chief")
    team.start("chief", "other")
    team.wait_for(lambda: team.progress("chief") != killed)
    team.running[1].send_signal(signal.SIGTERM)
    for printed in team.ended(130, 130):
        assert "interrupted; the same command resumes" in printed
    left = team.progress("chief")
    assert (left["epoch"], left["step"]) > (killed["epoch"], killed["step"])

    train_in_workspace(tiny.file, Experiment.model_validate(EXPERIMENT), tiny.data, team.directory / "chief")
    same(team.directory / "chief", one, tolerance=1e-5)


@pytest.mark.e2e
def test_workers_of_another_experiment(team: Team) -> None:
    team.start("out", "out", options=((), ("--batch-size", "7")))
    chief, other = team.ended(2, 2)
    assert "worker 2 of 2: the experiment or the feature file is not that of the chief" in other
    assert "can't reach the worker at localhost:" in chief


def test_a_callback_that_stops_lets_the_others_end_the_epoch() -> None:
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    model: Any = keras.Sequential()
    model.stop_training = False
    told = UserCallbacks([Stops()], model, epochs=9, ends_epochs=False)
    told.on_train_batch_end(0, {})
    assert not model.stop_training
    assert told.validated(0, {})
