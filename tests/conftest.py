"""Fixtures that several packages share, and the order of the tests."""

from pathlib import Path

import pytest

from tests.backends import BACKEND
from tests.workbench import PRESETS, Workbench, make_workbench
from tfctr.export.saved_model import export_model
from tfctr.training.experiment import Experiment


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Fast tests first, so that a plain mistake is told within a minute; the sort is stable: files keep their order.
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)
    if BACKEND != "tensorflow":
        # JAX compiles every operation anew for every shape that Hypothesis draws: minutes, for arithmetic that the
        # other lane has proven.
        kept = [item for item in items if not _only_for_tensorflow(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _only_for_tensorflow(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("tensorflow") or item.get_closest_marker("one_backend")
    return bool(marked) or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A small synthetic data set, analyzed once a session."""
    directory: Path = tmp_path_factory.mktemp("workbench")
    return make_workbench(directory)


@pytest.fixture(scope="session")
def exported(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModel directories of the presets, with random weights, exported once a session."""
    directory = tmp_path_factory.mktemp("exported")
    example = bytes(workbench.serialized("test", 1)[0])
    return {
        name: export_model(
            workbench.model(name), workbench.assets, Experiment(preset=name), directory / name / "1", example
        )
        for name in PRESETS
    }
