"""Reads the description of a SavedModel directory without loading the model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import dtypes

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.metrics.reference import Weighting

DESCRIPTION = "assets.extra/tfctr.json"

COST_TITLES = {
    "parameters": "parameters",
    "backbone_parameters": "of the backbone",
    "flops_per_candidate": "FLOPs a candidate",
    "flops_per_request": "a request",
    "flops_per_user": "a user",
}
"""What tables call the attributes of a cost."""


@dataclass(frozen=True)
class TensorDescription:
    """A tensor of a signature. -1 in its shape stands for any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, that is, without the first dimension; 0 for strings."""
        dtype = dtypes.as_dtype(self.dtype)
        return 0 if self.dtype == "string" else int(np.prod(self.shape[1:], dtype=np.int64)) * dtype.size


@dataclass(frozen=True)
class ModelDescription:
    """What `tfctr inspect` prints: signatures, sizes in bytes, and how the model was trained."""

    directory: Path
    inputs: dict[str, list[TensorDescription]]
    outputs: dict[str, list[TensorDescription]]
    bytes_by_part: dict[str, int]
    made: dict[str, Any]

    @property
    def feature_file(self) -> FeatureFile:
        """The feature file that the model was trained with.

        Raises:
            UserError: The SavedModel has no description of ours.
        """
        if not self.made:
            raise UserError(f"{self.directory}: was not written by tfctr ({DESCRIPTION} is missing)")
        return FeatureFile.of_json(json.dumps(self.made["features"]), f"{self.directory}: its feature file")

    @property
    def state(self) -> list[TensorDescription]:
        """The tensors of a user's state."""
        return self.outputs.get("user_tower", [])

    @property
    def state_bytes(self) -> int:
        """Bytes of one user's state."""
        return sum(tensor.row_bytes for tensor in self.state)

    @property
    def weighting(self) -> Weighting:
        """The weight of a group in the GAUC of its experiment."""
        found: Weighting = self.made["experiment"]["evaluation"]["weighting"]
        return found

    @property
    def sliced_by(self) -> list[str]:
        """The columns that its experiment slices metrics by, or makes a demand on."""
        evaluation = self.made["experiment"]["evaluation"]
        return [*evaluation["slices"], *(demand["column"] for demand in evaluation["demands"] if demand["column"])]

    @property
    def costs(self) -> dict[str, dict[str, Any]]:
        """The cost of the model, counted at export: `trained` and, if the served form differs, `served`.

        The keys are the attributes of `tfctr.export.cost.Cost`. Empty if the SavedModel has no such description.
        """
        costs: dict[str, dict[str, Any]] = self.made.get("cost", {})
        return costs


def describe(directory: str | Path) -> ModelDescription:
    """Reads the signatures, sizes and training description of a SavedModel directory.

    Raises:
        UserError: The directory has no SavedModel, or it or its description cannot be parsed.
    """
    directory = Path(directory)
    meta_graph = read_meta_graphs(directory)[0]
    signatures = {name: found for name, found in meta_graph.signature_def.items() if not name.startswith("__")}
    return ModelDescription(
        directory,
        {name: _tensors(signature.inputs) for name, signature in signatures.items()},
        {name: _tensors(signature.outputs) for name, signature in signatures.items()},
        {part: _size(directory / part) for part in ("saved_model.pb", "variables", "assets", "assets.extra")},
        _made(directory / DESCRIPTION),
    )


def _made(path: Path) -> dict[str, Any]:
    """How a model was made, as its description says; empty where it has none."""
    if not path.is_file():
        return {}
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: can't be read ({error}); export the model again") from None
    if not isinstance(made, dict):
        raise UserError(f"{path}: must be a mapping. Received: a {type(made).__name__}; export the model again")
    return made


def read_meta_graphs(directory: Path) -> list[Any]:
    """The graphs in `saved_model.pb` of a SavedModel directory.

    Raises:
        UserError: The directory has no SavedModel, or it cannot be parsed.
    """
    path = directory / "saved_model.pb"
    if not path.is_file():
        versions = sorted(p.name for p in directory.glob("*") if (p / "saved_model.pb").is_file())
        hint = f"; name one of its versions: {', '.join(versions)}" if versions else ""
        raise UserError(f"{directory}: holds no SavedModel (saved_model.pb is missing){hint}")
    try:
        graphs = list(saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs)
    except DecodeError:
        graphs = []
    if not graphs:
        raise UserError(f"{path}: is not a SavedModel that can be parsed; export the model again")
    return graphs


def _tensors(infos: Any) -> list[TensorDescription]:
    return [
        TensorDescription(name, str(dtypes.as_dtype(info.dtype).name), tuple(dim.size for dim in info.tensor_shape.dim))
        for name, info in sorted(infos.items())
    ]


def _size(path: Path) -> int:
    return sum(found.stat().st_size for found in (path, *path.rglob("*")) if found.is_file())
