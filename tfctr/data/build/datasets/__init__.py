"""Public data sets: one build file each, named as `tfctr data prepare` takes it."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

_FILES = resources.files(__package__ or __name__)


def dataset_names() -> list[str]:
    """The public data sets that there is a build file of."""
    return sorted(file.name.removesuffix(".yaml") for file in _FILES.iterdir() if file.name.endswith(".yaml"))


def build_file(name: str) -> dict[str, Any]:
    """What the build file of a public data set says.

    Args:
        name: One of `dataset_names`.
    """
    content: dict[str, Any] = yaml.safe_load((_FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    return content
