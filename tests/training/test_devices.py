"""Training on several devices; what needs two of them is in `two_devices`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.training.runs import small_experiment
from tests.workbench import ROOT, small_features
from tfctr.errors import UserError
from tfctr.training.devices import strategy_of
from tfctr.training.experiment import Training
from tfctr.training.workspace import train_in_workspace


@pytest.mark.slow
def test_on_two_devices() -> None:
    tests = Path(__file__).with_name("two_devices.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]


def test_one_device_has_no_strategy() -> None:
    with strategy_of(Training(devices=1)).scope():
        assert not tf.distribute.has_strategy()


def test_more_devices_than_there_are() -> None:
    with pytest.raises(UserError, match=r"devices: 99 are asked for, and there are: \d+ .*; set it to at most \d+, or"):
        strategy_of(Training(devices=99))


def test_they_are_counted_before_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"devices: 99 are asked for"):
        train_in_workspace(small_features(), small_experiment(devices=99), tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("devices", [0, -1, 1.5, "some"])
def test_what_is_no_number_of_devices(devices: Any) -> None:
    with pytest.raises(ValidationError, match=r"devices"):
        Training(devices=devices)


def test_a_run_goes_on_with_other_devices() -> None:
    assert small_experiment(devices="all").fingerprint() == small_experiment().fingerprint()


def test_keras_distribution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.distribution, "distribution", lambda: "set by a user")
    with pytest.raises(UserError, match=r"keras.distribution: it does nothing .* set training.devices"):
        strategy_of(Training(devices=1))


def test_a_strategy_of_the_caller_is_refused() -> None:
    scope = tf.distribute.OneDeviceStrategy("/cpu:0").scope()
    with scope, pytest.raises(UserError, match=r"leave the scope and set training.devices"):
        strategy_of(Training(devices=1))
