"""Named models are presets: an interest and an interaction, with the papers' settings where they are known."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile


class ModelConfig(BaseModel):
    """What a model is made of.

    Attributes:
        interests: An entry without `sequence` serves every sequence of the feature file that has none of its own. With
            `content: true` the projected frozen vectors of the items are part of events and candidate.
        interaction: The backbone and its options.
        loss: The loss and its options.
        embedding_l2: lambda of lambda / 2 * |table|^2, over whole tables.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    interests: tuple[dict[str, Any], ...] = ({"type": "mean"},)
    interaction: dict[str, Any] = Field(default_factory=lambda: {"type": "mlp"})
    loss: dict[str, Any] = Field(default_factory=lambda: {"type": "binary_crossentropy"})
    embedding_l2: float = Field(0.0, ge=0)

    def interests_of(self, file: FeatureFile) -> dict[str, dict[str, Any]]:
        """The interest entry of every sequence.

        Raises:
            UserError: an unknown sequence, or one that no entry serves.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in self.interests:
            options = {key: value for key, value in entry.items() if key != "sequence"}
            names = [entry["sequence"]] if "sequence" in entry else [n for n in file.sequences if n not in found]
            for name in names:
                if name not in file.sequences:
                    raise UserError(f"interests: no sequence '{name}'. Allowed: {sorted(file.sequences)}")
                found[name] = options
        unserved = [name for name in file.sequences if name not in found]
        if unserved:
            raise UserError(f"interests: no entry for the sequences {unserved}; add one, or one without `sequence`")
        return found


_MLP = {"type": "mlp", "hidden": [256, 128, 64]}
_SELF_ENSEMBLE = {"type": "self_ensemble"}

PRESETS: dict[str, tuple[str, ModelConfig]] = {
    "mlp": ("mean-pooled history, MLP", ModelConfig(interests=({"type": "mean"},), interaction=_MLP)),
    "din": (
        "Deep Interest Network: DIN unit with Dice, MLP",
        ModelConfig(interests=({"type": "din"},), interaction=_MLP),
    ),
    "dmf": (
        "Decoupled Multimodal Fusion: CMM of DTA and SimTier, MLP",
        ModelConfig(interests=({"type": "cmm"},), interaction=_MLP),
    ),
    "qnn-alpha": (
        "QNN-alpha as in the paper, per-head weights, Self-Ensemble loss",
        ModelConfig(interests=({"type": "mean"},), interaction={"type": "qnn_alpha"}, loss=_SELF_ENSEMBLE),
    ),
    "qnn-alpha-released": (
        "QNN-alpha as in the released code, one full matrix whatever the heads",
        ModelConfig(interests=({"type": "mean"},), interaction={"type": "qnn_alpha_released"}, loss=_SELF_ENSEMBLE),
    ),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a preset.

    Raises:
        UserError: an unknown name.
    """
    if name not in PRESETS:
        raise UserError(f"preset: no preset '{name}'. Allowed: {', '.join(PRESETS)}")
    return PRESETS[name][1]
