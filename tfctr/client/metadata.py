"""The metadata of a served version, from which all requests are built."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from google.protobuf.message import DecodeError

from tfctr.client import codec
from tfctr.client.errors import CodecError, UnsupportedModelError
from tfctr.client.protos import wire_pb2 as wire

USER_TOWER = "user_tower"
SCORE = "score"
PROBABILITIES = "probabilities"
LENGTH_SUFFIX = "_length"
MODEL_TAG = "model_tag"
"""The part of every state that says which model made it."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        dtype: DataType number.
        shape: static shape, with -1 for a size that varies; `None` for an unknown rank.
    """

    name: str
    dtype: int
    shape: tuple[int, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, including the batch axis."""
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

    The inputs of `user_tower` are the user features and its outputs the state; a model that reads nothing of a user has
    no such signature. Of the other inputs of `score`, those of rank 2 (`[B, C]`) are candidate features and those of
    rank 1 (`[B]`) context features.

    Attributes:
        groups: sequence -> its fields, from a feature file; without it the names of the inputs decide.
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (SCORE, USER_TOWER):
            needed = name == SCORE or MODEL_TAG in self.signatures[SCORE].inputs
            if needed and name not in self.signatures:
                raise UnsupportedModelError(
                    f"{self.where}: there must be a signature '{name}'; export the model with `tfctr export`. "
                    f"Received: {sorted(self.signatures)}"
                )
        if PROBABILITIES not in self.signatures[SCORE].outputs:
            raise UnsupportedModelError(
                f"{self.where}: the signature '{SCORE}' must have an output '{PROBABILITIES}'. "
                f"Received: {sorted(self.signatures[SCORE].outputs)}"
            )
        wrong = [
            str(spec)
            for name, spec in self.signatures[SCORE].inputs.items()
            if name not in self.state_inputs and spec.rank not in (1, 2)
        ]
        wrong += [str(spec) for spec in self.user_inputs.values() if spec.rank not in (1, 2)]
        if wrong:
            raise UnsupportedModelError(f"{self.where}: inputs must be [B], [B, C] or [B, L]. Received: {wrong}")

    @property
    def where(self) -> str:
        """Name and version of the model, for messages."""
        return f"model '{self.name}' version {self.version}"

    @property
    def _user_tower(self) -> Signature:
        return self.signatures.get(USER_TOWER, Signature({}, {}))

    @property
    def user_inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs of `user_tower`; none for a model that reads nothing of a user."""
        return self._user_tower.inputs

    @cached_property
    def state_inputs(self) -> dict[str, str]:
        """Input of `score` -> the output of `user_tower` that is passed to it.

        TensorFlow keeps `history/events` as the name of an output, but changes it to `history_events` for an input.
        """
        inputs = self.signatures[SCORE].inputs
        found = {}
        for output in self._user_tower.outputs:
            name = output if output in inputs else re.sub(r"[^A-Za-z0-9_]", "_", output)
            if name in inputs:
                found[name] = output
        return found

    @cached_property
    def candidate_inputs(self) -> dict[str, TensorSpec]:
        """Inputs of `score` with one value for each candidate, `[B, C]`."""
        return self._request_inputs(2)

    @cached_property
    def context_inputs(self) -> dict[str, TensorSpec]:
        """Inputs of `score` with one value for each request, `[B]`."""
        return self._request_inputs(1)

    def _request_inputs(self, rank: int) -> dict[str, TensorSpec]:
        inputs = self.signatures[SCORE].inputs
        return {name: spec for name, spec in inputs.items() if name not in self.state_inputs and spec.rank == rank}

    @cached_property
    def sequences(self) -> dict[str, tuple[str, ...]]:
        """Sequence -> its fields. The fields are user inputs `[B, L]`; `<sequence>_length` is an input as well.

        If there is one sequence, all user inputs `[B, L]` are its fields. If there are several, a field belongs to the
        sequence whose name it starts with, unless a feature file says otherwise.
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
            f"{self.where}: the name of a field does not say which of the sequences {sorted(sequences)} it belongs to. "
            f"Give the client the feature file (feature_file=...). Received: '{column}'"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the inputs and outputs of `user_tower` and `score`; a part of the key of a cached state."""
        lines = [
            f"{name} {side} {spec}"
            for name, signature in ((USER_TOWER, self._user_tower), (SCORE, self.signatures[SCORE]))
            for side in ("inputs", "outputs")
            for spec in sorted(getattr(signature, side).values(), key=lambda spec: spec.name)
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def parse_metadata(
    response: wire.GetModelMetadataResponse, name: str, groups: Mapping[str, tuple[str, ...]] | None = None
) -> ServedModel:
    """Reads the reply of GetModelMetadata about the model `name`; for `groups` see `ServedModel`.

    Raises:
        UnsupportedModelError: the reply has no signatures, or not those that this client uses.
        CodecError: the signatures cannot be read.
    """
    if "signature_def" not in response.metadata:
        raise UnsupportedModelError(
            f"model '{name}': the server must send signature_def. Received: {sorted(response.metadata)}"
        )
    try:
        signatures = wire.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    except DecodeError as error:
        raise CodecError(f"model '{name}': the server must send a readable signature_def. Received: {error}") from error
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
