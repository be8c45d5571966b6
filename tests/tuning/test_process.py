"""Searches that really train: killed, going on from shorter trials, and their best experiment trained again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Ran
from tests.training.runs import run
from tests.tuning.conftest import EXPERIMENT, RATES, plan
from tests.workbench import ROOT, Workbench
from tfctr.errors import UserError
from tfctr.training.experiment import Experiment, load_experiment
from tfctr.training.workspace import train_in_workspace
from tfctr.tuning import Search, load_plan, read_search, search, trials, tune
from tfctr.tuning import plan as plans

pytestmark = pytest.mark.e2e

Tuned = Callable[..., Search]
_CODE = "from tfctr.cli import main; main()"
_SECONDS = 300
OFTEN = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "checkpoint_steps": 1}}


@pytest.fixture
def files(tiny: Workbench, tmp_path: Path) -> list[str]:
    """The arguments of a search of the small log, without its test split and with no --out yet."""
    shutil.copytree(tiny.data, tmp_path / "data", ignore=shutil.ignore_patterns("test"))
    assert not (tmp_path / "data" / "test").exists()
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(tiny.file.model_dump(mode="json", exclude_unset=True)))
    _write(tmp_path / "plan.yaml", {"experiment": OFTEN, "search": RATES, "method": "grid"})
    names = {"features": "features.yaml", "data": "data", "plan": "plan.yaml"}
    return [part for option, name in names.items() for part in (f"--{option}", str(tmp_path / name))]


def _write(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _started(files: list[str], out: Path, told: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CODE, "tune", *files, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=told.open("w"), stderr=subprocess.STDOUT, env=environment)


def _without_times(search: Search) -> list[Any]:
    """All that a killed search must have in common with one that wasn't."""
    return [
        (one.trial, one.values, one.status, one.objective, [vars(seed) | {"seconds": 0} for seed in one.seeds])
        for one in search.trials
    ]


def _ended(files: list[str], out: Path, told: Path, trial: int, number: int) -> int:
    """The status of a search that gets a signal in the middle of a trial."""
    process, until = _started(files, out, told), time.monotonic() + _SECONDS
    while not list((out / "trials" / f"{trial:04d}").glob("seed-3/*/progress.json")):
        assert process.poll() is None, told.read_text()
        assert time.monotonic() < until, told.read_text()
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait(_SECONDS)


def test_a_killed_process_goes_on(files: list[str], tiny: Workbench, tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "told.txt"

    assert _ended(files, out, told, 2, signal.SIGKILL) == -signal.SIGKILL
    assert [trial.trial for trial in read_search(out).trials] == [1]
    assert _ended(files, out, told, 3, signal.SIGTERM) == 130
    assert told.read_text().endswith("interrupted; the same command resumes\n")
    assert [trial.trial for trial in read_search(out).trials] == [1, 2]
    assert "training: resumes in epoch 1 after step" in told.read_text()
    assert _started(files, out, told).wait(_SECONDS) == 0

    words = told.read_text()
    assert "search: 2 trials of 3 have ended before" in words
    assert "training: resumes in epoch 1 after step" in words
    assert words.count("epoch 1: validation") == 1
    whole = tune(tiny.file, load_plan(tmp_path / "plan.yaml"), tmp_path / "data", tmp_path / "whole")
    assert _without_times(read_search(out)) == _without_times(whole)
    assert (out / "best.yaml").read_bytes() == (tmp_path / "whole" / "best.yaml").read_bytes()
    assert not list(out.rglob("checkpoints"))


def test_the_best_experiment_trains_as_its_trial_did(
    tfctr: Callable[..., Ran], files: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _write(tmp_path / "plan.yaml", {"experiment": EXPERIMENT, "search": RATES, "method": "grid"})

    ran = tfctr("tune", *files, "--out", out)

    best = read_search(out).best
    assert best is not None
    rows = [line for line in ran.output.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert f"{best.objective:.5f}" in rows[0]
    assert f"next: tfctr train --experiment {out / 'best.yaml'}" in ran.output
    again = tfctr("train", *files[:4], "--experiment", out / "best.yaml", "--out", tmp_path / "run")
    assert f"best validation AUC {best.objective:.5f}" in again.output
    assert "already finished; nothing to do" in tfctr("tune", *files, "--out", out).output


def test_mistakes_are_one_line_and_nothing_is_written(
    tfctr: Callable[..., Ran], files: list[str], tmp_path: Path
) -> None:
    _write(tmp_path / "plan.yaml", {"experiment": EXPERIMENT, "search": {"training.rate": [1]}})
    wrong = str(tfctr("tune", *files, "--out", tmp_path / "out").error)
    assert wrong.startswith(f"{tmp_path / 'plan.yaml'}: search.training.rate: 1: training.rate: unknown key. Allowed: ")
    assert "\n" not in wrong
    (tmp_path / "file").write_text("mine")
    assert str(tfctr("tune", *files, "--out", tmp_path / "file").error).endswith("is a file; --out names a directory")
    assert not (tmp_path / "out").exists()


def test_the_values_of_a_plan_are_tried_once(
    tfctr: Callable[..., Ran], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise UserError("stopped")

    tried, original = [], plans._accepted
    monkeypatch.setattr(search, "check_devices", stop)
    monkeypatch.setattr(plans, "_accepted", lambda *given: tried.append(given[-1]) or original(*given))
    assert tfctr("tune", *files, "--out", tmp_path / "out").error == "stopped"
    assert [one.removeprefix(f"{tmp_path / 'plan.yaml'}: ") for one in tried] == [
        "experiment", *(f"search.training.learning_rate: {rate}" for rate in (0.01, 0.02, 0.05))
    ]  # fmt: skip


def test_a_longer_run_becomes_what_all_its_epochs_give(
    tuned: Tuned, tiny: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {**EXPERIMENT["training"], "epochs": 3, "patience": 3}
    search = {"training.learning_rate": [0.01, 0.02, 0.05], "model.interaction.dropout": [0.2, 0.3]}

    found = tuned(plan(experiment={**EXPERIMENT, "training": training}, search=search, method="hyperband"))

    longer = [trial for trial in found.trials if trial.goes_on_from is not None]
    assert [trial.epochs for trial in longer] == [3]
    assert capsys.readouterr().out.count("epoch 1: validation") == len(found.trials) - len(longer)
    whole = run(tiny, Experiment.model_validate(found.content_of(longer[0])), tmp_path / "whole")
    (seed,) = longer[0].seeds
    assert (seed.best_epoch, seed.epochs) == (whole.progress.best_epoch, 3)
    assert seed.metrics == whole.progress.history[whole.progress.best_epoch - 1]
    assert not list((tmp_path / "out").rglob("checkpoints"))


def test_two_stages_can_be_searched(
    tuned: Tuned, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trained model of `start_from` is given to each trial that names it."""
    given, read = [], []
    original, found_run = trials.run_training, search.finished_run

    def noted(*arguments: Any, **more: Any) -> Any:
        given.append(arguments[5])
        return original(*arguments, **more)

    def reading(place: Any) -> Any:
        read.append(place)
        return found_run(place)

    monkeypatch.setattr(trials, "run_training", noted)
    monkeypatch.setattr(search, "finished_run", reading)
    base: dict[str, Any] = {"preset": "din", "training": {**EXPERIMENT["training"], "epochs": 1}}
    first = plan(experiment=base, search={"training.learning_rate": [0.01]})
    train_in_workspace(tiny.file, first.experiment, tiny.data, tmp_path / "first")
    start = {"run": str(tmp_path / "first"), "parts": ["din"]}

    two_stages = plan(
        experiment=base, search={"training.start_from": [None, start], "training.seed": [3, 4]}, objective="logloss"
    )
    absent = plan(experiment=base, search={"training": [{"start_from": {**start, "run": "nowhere"}}]})
    with pytest.raises(UserError, match="nowhere: holds no finished run; train one with"):
        tune(tiny.file, absent, tiny.data, tmp_path / "absent")

    found = tune(tiny.file, two_stages, tiny.data, tmp_path / "out")

    assert [trial.status for trial in found.trials] == ["finished"] * 4
    assert [source is None for source in given] == [True, True, False, False]
    assert given[2] is given[3]
    assert read == [str(tmp_path / "first")]
    written = load_experiment(tmp_path / "out" / "best.yaml").training
    assert written.learning_rate == 0.001
    lines = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert json.loads(lines[2])["values"] == {"training.start_from": start, "training.seed": 3}

    # The search goes on with these weights alone.
    again = Experiment.model_validate({**base, "training": {**base["training"], "seed": 9}})
    train_in_workspace(tiny.file, again, tiny.data, tmp_path / "first")
    with pytest.raises(UserError, match="holds a search on other data, with another feature file, other code or anot"):
        tune(tiny.file, two_stages, tiny.data, tmp_path / "out")
