"""Rows that the signatures are compared on."""

from pathlib import Path

import numpy as np
import pytest

from tests.workbench import Workbench

ROWS = 64


@pytest.fixture(scope="session")
def rows(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz with the same rows twice: serialized, and as raw dense tensors. Bytes are hexadecimal digits in it."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    columns = {"examples": workbench.serialized("test", ROWS), **workbench.raw("test", ROWS)}
    return save_rows(path, columns)


def save_rows(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """Writes columns as tests/export/served.py reads them."""
    np.savez(path, allow_pickle=False, **{name: _plain(values) for name, values in columns.items()})
    return path


def _plain(values: np.ndarray) -> np.ndarray:
    """An array without Python objects, which only a pickle could hold. NumPy's own bytes lose their last zeros."""
    return np.vectorize(bytes.hex, otypes=[str])(values) if values.dtype == object else values
