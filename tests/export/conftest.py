"""Rows that the signatures are compared on."""

from pathlib import Path

import numpy as np
import pytest

from tests.workbench import Workbench

ROWS = 64


@pytest.fixture(scope="session")
def rows(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz with the same rows twice: serialized, and as raw dense tensors."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, examples=workbench.serialized("test", ROWS), **workbench.raw("test", ROWS))
    return path
