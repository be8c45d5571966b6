"""What a model is called: its preset, and which parts of it are others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfctr.models.presets import PRESETS

_PARTS = ("interests", "interaction", "loss", "auxiliary")


def model_name(preset: str, config: Mapping[str, Any]) -> str:
    """The name of a preset, with the types of the parts that are not the preset's; other options change no name.

    Args:
        preset: The preset that the model started from; one of another version is called by its name alone.
        config: What the model is made of: `ModelConfig` as a mapping, which the description of a SavedModel has too.

    Example:
        >>> model_name("din", {"interests": [{"type": "din"}], "interaction": {"type": "qnn_alpha"}})
        'din with interaction qnn_alpha'
    """
    if preset not in PRESETS:
        return preset
    own = PRESETS[preset][1].model_dump()
    changed = [f"{part} {found}" for part in _PARTS if (found := _types(part, config)) != _types(part, own)]
    return f"{preset} with {', '.join(changed)}" if changed else preset


def _types(part: str, config: Mapping[str, Any]) -> str:
    """The types of a part of a model; a part that is left out is the usual one."""
    usual: dict[str, Any] = {"interests": [{"type": "mean"}], "loss": {"type": "binary_crossentropy"}}
    found: Any = config.get(part) if config.get(part) is not None else usual.get(part, ())
    entries = [found] if isinstance(found, Mapping) else found
    return " + ".join(entry["type"] for entry in entries) or "none"
