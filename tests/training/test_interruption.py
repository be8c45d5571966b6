"""What Ctrl-C and SIGTERM leave of a training run."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import run, small_experiment
from tests.training.test_loop import count_steps, same_ending, steps_of_epoch
from tests.workbench import Workbench
from tfctr.training import loop
from tfctr.training.interruption import held_back
from tfctr.training.run import TrainingResult

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tiny: Workbench, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run that nobody interrupts."""
    return run(tiny, small_experiment(checkpoint_steps=4), tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_under_way_is_saved(number: int, tiny: Workbench, whole: TrainingResult, tmp_path: Path) -> None:
    original = loop._Watch.on_train_batch_end

    def interrupted(self: Any, batch: int, logs: dict[str, Any] | None = None) -> None:
        if (self._progress.epoch, self._progress.step) == (0, 5):
            os.kill(os.getpid(), number)  # the weights have moved, and the step is not yet counted
        original(self, batch, logs)

    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Watch, "on_train_batch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, small_experiment(checkpoint_steps=4), tmp_path)
    assert [signal.getsignal(one) for one in SIGNALS] == before

    resumed: list[TrainingResult] = []
    done = count_steps(lambda: resumed.append(run(tiny, small_experiment(checkpoint_steps=4), tmp_path)))
    assert done == 2 * steps_of_epoch(tiny) - 6
    same_ending(resumed[0], whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["validate", "_finish_epoch"])
def test_a_trained_epoch_is_not_trained_again(
    moment: str, tiny: Workbench, whole: TrainingResult, tmp_path: Path
) -> None:
    original = getattr(loop, moment)
    calls: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if moment == "validate":
            os.kill(os.getpid(), signal.SIGTERM)  # no step of validation is done
            return original(*arguments)
        original(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)  # the epoch has ended
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, small_experiment(checkpoint_steps=10_000), tmp_path)
    assert len(calls) == 1

    resumed: list[TrainingResult] = []
    done = count_steps(lambda: resumed.append(run(tiny, small_experiment(checkpoint_steps=10_000), tmp_path)))
    assert done == steps_of_epoch(tiny)
    same_ending(resumed[0], whole)


@pytest.mark.parametrize("number", SIGNALS)
def test_only_the_first_signal_waits(number: int) -> None:
    with held_back() as interruption:
        assert not interruption.came
        os.kill(os.getpid(), number)
        assert interruption.came
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_another_thread_holds_nothing_back() -> None:
    handlers: list[Any] = []

    def hold() -> None:
        with held_back() as interruption:
            handlers.append(signal.getsignal(signal.SIGINT) == interruption.note)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert handlers == [False]
