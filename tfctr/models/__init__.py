"""The composed model and its presets; the model, which needs Keras, is imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from tfctr.models.config import ModelConfig
from tfctr.models.presets import PRESETS, preset

if TYPE_CHECKING:
    from tfctr.models.model import RankingModel, build_model

__all__ = ["PRESETS", "ModelConfig", "RankingModel", "build_model", "preset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("tfctr.models.model"), name)
