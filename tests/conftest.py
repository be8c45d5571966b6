"""Fixtures that several packages share, and the order of the tests."""

from pathlib import Path

import pytest

from tests.workbench import Workbench, make_workbench


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Fast tests first, so that a plain mistake is told within a minute; the sort is stable: files keep their order.
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A small synthetic data set, analyzed once a session."""
    directory: Path = tmp_path_factory.mktemp("workbench")
    return make_workbench(directory)
