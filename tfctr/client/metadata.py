"""What the served version says about itself: the one source a request is built from."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tfctr.client import codec
from tfctr.client.errors import UnsupportedModelError
from tfctr.client.protos import wire_pb2 as wire

USER_TOWER = "user_tower"
SCORE = "score"
PROBABILITIES = "probabilities"
LENGTH_SUFFIX = "_length"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: its name in the signature.
        dtype: DataType number on the wire.
        shape: static shape with -1 for what varies; `None` for an unknown rank.
    """

    name: str
    dtype: int
    shape: tuple[int, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, the batch axis included."""
        return None if self.shape is None else len(self.shape)

    def __str__(self) -> str:
        shape = "?" if self.shape is None else list(self.shape)
        return f"{self.name}: {codec.dtype_name(self.dtype)} {shape}"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one signature by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class ServedModel:
    """One served version, as its metadata describes it.

    User inputs are the inputs of `user_tower`, state is its outputs; of the other inputs of `score`, those of rank 2
    (`[B, C]`) belong to candidates and those of rank 1 (`[B]`) to the context.

    Attributes:
        name: model name on the server.
        version: served version.
        signatures: by name.
        groups: sequence -> its fields, where the caller knows better than the naming rules (a feature file).
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (USER_TOWER, SCORE):
            if name not in self.signatures:
                raise UnsupportedModelError(
                    f"{self.where}: there is no signature '{name}'. It has: {sorted(self.signatures)}. "
                    "Export the model with tfctr (tfctr export)."
                )
        if PROBABILITIES not in self.signatures[SCORE].outputs:
            raise UnsupportedModelError(
                f"{self.where}: signature '{SCORE}' has no output '{PROBABILITIES}'. "
                f"It has: {sorted(self.signatures[SCORE].outputs)}."
            )
        odd = [
            str(spec)
            for name, spec in self.signatures[SCORE].inputs.items()
            if name not in self.state_inputs and spec.rank not in (1, 2)
        ]
        odd += [str(spec) for spec in self.signatures[USER_TOWER].inputs.values() if spec.rank not in (1, 2)]
        if odd:
            raise UnsupportedModelError(f"{self.where}: inputs must be [B], [B, C] or [B, L]. Received: {odd}")

    @property
    def where(self) -> str:
        """Model and version for messages."""
        return f"model '{self.name}' version {self.version}"

    @property
    def user_inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs of `user_tower`."""
        return self.signatures[USER_TOWER].inputs

    @cached_property
    def state_inputs(self) -> dict[str, str]:
        """Input of `score` -> the output of `user_tower` it is fed with.

        TensorFlow allows `history/events` as the name of an output but turns it into `history_events` as an input.
        """
        inputs = self.signatures[SCORE].inputs
        found = {}
        for output in self.signatures[USER_TOWER].outputs:
            name = output if output in inputs else re.sub(r"[^A-Za-z0-9_]", "_", output)
            if name in inputs:
                found[name] = output
        return found

    @cached_property
    def candidate_inputs(self) -> dict[str, TensorSpec]:
        """Inputs of `score` that are one value a candidate, `[B, C]`."""
        return self._request_inputs(2)

    @cached_property
    def context_inputs(self) -> dict[str, TensorSpec]:
        """Inputs of `score` that are one value a request, `[B]`."""
        return self._request_inputs(1)

    def _request_inputs(self, rank: int) -> dict[str, TensorSpec]:
        inputs = self.signatures[SCORE].inputs
        return {name: spec for name, spec in inputs.items() if name not in self.state_inputs and spec.rank == rank}

    @cached_property
    def sequences(self) -> dict[str, tuple[str, ...]]:
        """Sequence -> its fields: user inputs `[B, L]`, and an input `<sequence>_length`.

        With one sequence all such inputs are its fields. With several, a field belongs to the sequence whose name it
        begins with; a feature file settles what that leaves open.
        """
        lengths = {
            name.removesuffix(LENGTH_SUFFIX): spec
            for name, spec in self.user_inputs.items()
            if name.endswith(LENGTH_SUFFIX) and spec.rank == 1
        }
        columns = [name for name, spec in self.user_inputs.items() if spec.rank == 2]
        owners = {name: self._owner(name, list(lengths)) for name in columns} if lengths else {}
        return {s: fields for s in lengths if (fields := tuple(sorted(n for n in columns if owners.get(n) == s)))}

    def _owner(self, column: str, sequences: list[str]) -> str:
        for sequence, fields in self.groups.items():
            if column in fields and sequence in sequences:
                return sequence
        if len(sequences) == 1:
            return sequences[0]
        prefixes = [s for s in sequences if column.startswith((f"{s}_", f"{s}/"))]
        if prefixes:
            return max(prefixes, key=len)
        raise UnsupportedModelError(
            f"{self.where}: cannot tell which of the sequences {sorted(sequences)} has the field '{column}'. "
            "Give the client the feature file (feature_file=...)."
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what user_tower eats and makes and what score eats: part of the key of a cached state."""
        lines = [
            f"{name} {side} {spec}"
            for name in (USER_TOWER, SCORE)
            for side in ("inputs", "outputs")
            for spec in sorted(getattr(self.signatures[name], side).values(), key=lambda spec: spec.name)
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def parse_metadata(
    response: wire.GetModelMetadataResponse, name: str, groups: Mapping[str, tuple[str, ...]] | None = None
) -> ServedModel:
    """Reads the reply of GetModelMetadata.

    Args:
        response: the reply, with `signature_def`.
        name: the model that was asked for.
        groups: sequence -> its fields, from a feature file.

    Raises:
        UnsupportedModelError: no signatures, or not the ones that this client speaks.
    """
    if "signature_def" not in response.metadata:
        raise UnsupportedModelError(f"model '{name}': the server sent no signature_def.")
    signatures = wire.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    return ServedModel(
        name=name,
        version=response.model_spec.version.value,
        signatures={
            name: Signature(_specs(signature.inputs), _specs(signature.outputs))
            for name, signature in signatures.signature_def.items()
            if not name.startswith("__")
        },
        groups=groups or {},
    )


def _specs(tensors: Mapping[str, wire.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, info.dtype, _shape(info.tensor_shape)) for name, info in tensors.items()}


def _shape(proto: wire.TensorShapeProto) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)
