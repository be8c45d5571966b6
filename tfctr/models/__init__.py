"""The composed model and its presets."""

from tfctr.models.model import RankingModel, build_model
from tfctr.models.presets import PRESETS, ModelConfig, preset

__all__ = ["PRESETS", "ModelConfig", "RankingModel", "build_model", "preset"]
