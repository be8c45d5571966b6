"""The four presets, exported once a session."""

from pathlib import Path

import numpy as np
import pytest

from tests.workbench import PRESETS, Workbench
from tfctr.export.saved_model import export_model
from tfctr.training.experiment import Experiment

ROWS = 64


@pytest.fixture(scope="session")
def exported(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModel directories by preset, of models with random weights."""
    directory = tmp_path_factory.mktemp("exported")
    example = bytes(workbench.serialized("test", 1)[0])
    return {
        name: export_model(
            workbench.model(name), workbench.assets, Experiment(preset=name), directory / name / "1", example
        )
        for name in PRESETS
    }


@pytest.fixture(scope="session")
def rows(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz with the same rows twice: serialized, and as raw dense tensors."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, examples=workbench.serialized("test", ROWS), **workbench.raw("test", ROWS))
    return path
