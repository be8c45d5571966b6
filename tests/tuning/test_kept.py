"""A search that is kept in a store goes on on another disk, as in another pod, with the trials it would have had."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.storage.stores import new_place
from tests.tuning.conftest import EXPERIMENT, plan
from tests.workbench import Workbench
from tfctr.errors import DiskError, UserError
from tfctr.storage.places import files
from tfctr.training.splits import read_paths, read_splits
from tfctr.training.workers import ALONE
from tfctr.tuning import Search, trials
from tfctr.tuning.plan import Plan
from tfctr.tuning.search import search_rows
from tfctr.tuning.trials import Rows

pytestmark = pytest.mark.slow

THREE = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "epochs": 3}}
LONGER: dict[str, Any] = {
    "experiment": THREE,
    "search": {"training.learning_rate": {"type": "float", "low": 0.001, "high": 0.1}},
    "method": "hyperband",
}


class Killed(BaseException):
    """A process that ends at once."""


class Machine:
    """Searches on the small log; every search has a disk of its own."""

    def __init__(self, tiny: Workbench, directory: Path) -> None:
        self._directory = directory

        @cache
        def rows() -> Rows:
            assets, splits = read_splits(ALONE, tiny.file, tiny.data, read_paths(tiny.data), directory / "rows")
            return Rows(assets, splits["train"], splits["valid"])

        self._rows = rows

    def search(self, one: Plan, kept: str | None = None) -> Search:
        shutil.rmtree(self._directory / "out", ignore_errors=True)
        return search_rows(one, "rows", self._rows, self._directory / "out", kept)


@pytest.fixture
def machine(tiny: Workbench, tmp_path: Path) -> Machine:
    return Machine(tiny, tmp_path)


def without_seconds(found: Search) -> list[dict[str, Any]]:
    def told(seed: Any) -> dict[str, Any]:
        return {name: value for name, value in vars(seed).items() if name != "seconds"}

    return [{**vars(one), "seconds": None, "seeds": [told(seed) for seed in one.seeds]} for one in found.trials]


def test_another_machine_goes_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    one, kept = plan(**LONGER), new_place("ram")
    whole = machine.search(one)
    assert any(trial.goes_on_from for trial in whole.trials)
    trained: list[str] = []
    run_training = trials.run_training

    def training(*given: Any, **more: Any) -> Any:
        trained.append(str(given[4]))
        if len(trained) == 3:
            raise Killed
        return run_training(*given, **more)

    monkeypatch.setattr(trials, "run_training", training)
    with pytest.raises(Killed):
        machine.search(one, kept)
    found = machine.search(one, kept)

    assert without_seconds(found) == without_seconds(whole)
    assert len(trained) == len(whole.trials) + 1
    left = files(kept)
    assert {"trials.jsonl", "best.yaml", "tune.json"} <= set(left)
    assert not [name for name in left if "checkpoint" in name or name.endswith("progress.json")]

    assert machine.search(one, kept).trials == found.trials
    assert len(trained) == len(whole.trials) + 1


def test_a_store_that_refuses_ends_the_search(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none of the trial's business, which would be passed over as failed."""
    monkeypatch.setattr("tfctr.storage.mirror.send_file", refuse)
    with pytest.raises(DiskError, match="the store refuses: full"):
        machine.search(plan(), new_place("ram"))


def refuse(path: Path, place: str) -> None:
    raise DiskError(f"{place}: the store refuses: full")


def test_the_plan_is_the_same_in_the_store(machine: Machine) -> None:
    kept = new_place("ram")
    machine.search(plan(), kept)
    with pytest.raises(UserError, match="holds a search of another plan"):
        machine.search(plan(search={"training.learning_rate": [0.01]}), kept)
