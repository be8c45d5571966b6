"""Fixtures that several packages share, and the order of the tests.

TensorFlow is imported only inside the fixtures that need it, since the tests on another backend run without it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import pytest
from hypothesis import HealthCheck, settings

from tests import golden_cases
from tests.backends import BACKEND, forget_compiled

if TYPE_CHECKING:
    from tests.workbench import Workbench


FUZZ_INPUTS = 7_500
"""Inputs of each test of tests/fuzz: over 100,000 in all, and over 10,000 at each of the five doors."""

# Hypothesis must not judge how long an example takes, which says nothing on a loaded machine.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `make test-fuzz`; some of its inputs are tried in every run.
settings.register_profile(
    "fuzz",
    settings.get_profile("tests"),
    max_examples=FUZZ_INPUTS,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Fast tests run first, so that a simple mistake shows within a minute; in several processes the files of the slow
    # ones, so that at the end no process is left alone with one. The stable sort keeps the order of files.
    first = hasattr(config, "workerinput")
    for mark in ("slow", "e2e"):
        items.sort(key=lambda item, mark=mark: (item.get_closest_marker(mark) is not None) != first)
    if first:  # Those of the pipeline are the longest of all.
        items.sort(key=lambda item: not item.nodeid.startswith("tests/pipeline/"))
    kept = [item for item in items if BACKEND == "tensorflow" or not item.get_closest_marker("tensorflow")]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    _keep_what_lives()


def _keep_what_lives() -> None:
    """Takes all that lives now, such as TensorFlow's modules, out of later garbage collections.

    A collection looks at every object. Where the machine has put away memory that was long unused, looking at gigabytes
    of it stopped a test for a minute.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Makes the initial weights of layers, and so the rounding errors of float32, the same in every run."""
    keras.utils.set_random_seed(17)


@pytest.fixture(autouse=True)
def _golden_cases_are_read_in_marked_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that reads golden cases without the mark by which `make golden` and `make test-jax` select tests."""
    reader = _Reader()
    golden_cases.OBSERVERS.append(reader)
    yield
    golden_cases.OBSERVERS.remove(reader)
    assert not reader.names or request.node.get_closest_marker("golden"), f"mark it golden: it reads {reader.names}"


class _Reader:
    """Collects the names of the golden cases that a test reads; see `tests.golden_cases.Observer`."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def loaded(self, name: str) -> None:
        self.names.append(name)

    def compared(self, name: str, key: str, passed: bool) -> None:
        pass


@pytest.fixture(autouse=True, scope="module")
def _tidy_memory() -> Iterator[None]:
    yield
    forget_compiled()
    _keep_what_lives()


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A small synthetic data set, made and analyzed once a session."""
    from tests.workbench import make_workbench

    directory: Path = tmp_path_factory.mktemp("workbench")
    return make_workbench(directory)


@pytest.fixture(scope="session")
def exported(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModel directories of the presets, with random weights, exported once a session."""
    from tests.workbench import PRESETS
    from tfctr.export.saved_model import export_model
    from tfctr.training.experiment import Experiment

    directory = tmp_path_factory.mktemp("exported")
    return {
        name: export_model(workbench.model(name), workbench.assets, Experiment(preset=name), directory / name / "1")
        for name in PRESETS
    }
