"""The kind of given vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from typing_extensions import override

from tfctr.errors import UserError
from tfctr.features.columns import InputSpec
from tfctr.features.kinds.base import Feature, FrozenTable, Kind, Lookups, Reference, Summary, feature_kind, key_token
from tfctr.features.kinds.fields import FieldSpec, FrozenRow
from tfctr.features.yaml_file import Name

if TYPE_CHECKING:
    from tfctr.features.assets import FeatureAssets


@feature_kind
class Frozen(Kind):
    """A row of a table of given vectors (text, image ...), chosen by the key feature; never trained.

    `vectors` names an .npz with `ids` [n] and `vectors` [n, width], relative to the data directory. Rows are
    L2-normalised once; a key without a vector gets the zero row. A sequence with a field that shares the key of a
    candidate's table has the rows of its events too.
    """

    kind: Literal["frozen"]
    key: Name
    vectors: str = "item_vectors.npz"
    dtype: Literal["float32", "float16"] = "float32"

    places: ClassVar[tuple[str, ...]] = ("user", "candidate", "context")

    @classmethod
    @override
    def suggest_vectors(cls, key: str, vectors: str) -> dict[str, Any]:
        return {"kind": "frozen", "key": key, "vectors": vectors}

    @property
    @override
    def reference(self) -> Reference:
        return Reference("key", self.key, "a single-valued feature of the same side")

    @override
    def may_refer_to(self, at: Feature, other: Feature) -> bool:
        return other.kind.is_key and (other.side, other.sequence) == (at.side, at.sequence)

    @override
    def along(self, at: Feature, fields: Sequence[Feature]) -> Feature | None:
        keys = [field for field in fields if field.shares is not None and field.shares is at.refers]
        if not keys:
            return None
        key = keys[-1]
        return replace(key, name=f"{key.sequence}_{at.name}", kind=self, refers=key, along=at)

    @override
    def files(self, at: Feature) -> tuple[str, ...]:
        return () if at.along else (self.vectors,)

    def frozen_table(self, at: Feature, data_directory: Path) -> FrozenTable | None:
        """The keys, and the L2-normalised vectors behind a zero row.

        Raises:
            UserError: a missing file, repeated ids, a wrong shape, values that are not finite.
        """
        if at.along:
            return None
        path = data_directory / self.vectors
        where = f"{at.path}.vectors: {path}"
        if not path.is_file():
            raise UserError(f"{where}: no such file. It must be an .npz with `ids` [n] and `vectors` [n, width]")
        try:
            with np.load(path) as archive:
                ids, given = archive["ids"], archive["vectors"]
                if given.dtype.kind not in "fiu":
                    raise ValueError(f"`vectors` holds {given.dtype}")
                vectors = given.astype(np.float32)
        except (KeyError, ValueError, OSError, EOFError, BadZipFile, TypeError, AttributeError) as error:
            raise UserError(f"{where}: must be an .npz with `ids` [n] and `vectors` [n, width] ({error})") from None
        if vectors.ndim != 2 or ids.shape != vectors.shape[:1] or not vectors.shape[1]:
            shapes = f"{vectors.shape}, {ids.shape}"
            raise UserError(f"{where}: `vectors` must be [n, width] and `ids` [n]. Received: {shapes}")
        if not len(ids) or ids.dtype.kind not in "iuSUO":
            raise UserError(f"{where}: `ids` must hold integers or texts. Received: {len(ids)} of {ids.dtype}")
        if not np.isfinite(vectors).all():
            bad = ids[~np.isfinite(vectors).all(axis=1)][0]
            raise UserError(f"{where}: holds values that are not finite. Received: those of id {bad}")
        values, counts = np.unique(ids, return_counts=True)
        if len(values) != len(ids):
            raise UserError(f"{where}: id {values[counts > 1][0]} stands twice")
        keys = [key_token(one) for one in ids.tolist()]
        if b"" in keys:
            raise UserError(f"{where}: id number {keys.index(b'') + 1} is empty, which stands for a missing key")
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        table = np.concatenate([np.zeros_like(vectors[:1]), vectors / np.maximum(norms, 1e-12)])
        return FrozenTable(keys, table.astype(self.dtype))

    @override
    def inputs(self, at: Feature) -> tuple[InputSpec, ...]:
        return (InputSpec(at.name, at.side, "int32", at.shape),)

    @override
    def to_model(self, at: Feature, raw: Mapping[str, Any], lookups: Lookups) -> dict[str, Any]:
        import tensorflow as tf

        assert at.refers is not None
        key = raw[at.refers.name]
        tokens = key if key.dtype == tf.string else tf.strings.as_string(key)
        return {at.name: tf.cast(lookups.rows(_table(at), tokens), tf.int32)}

    @override
    def fields(self, at: Feature) -> tuple[FieldSpec, ...]:
        return (FrozenRow(at.name, _table(at), self.dtype),)

    @override
    def events(self, at: Feature) -> dict[str, str]:
        return {} if at.along is None else {f"rows/{at.along.name}": at.name}

    @override
    def summary(self, at: Feature, assets: FeatureAssets | None) -> Summary:
        width = None if assets is None else assets.frozen_shape(at.name)[1]
        return Summary(f"{self.vectors} by {self.key}", self.kind, width)


def _table(at: Feature) -> str:
    return at.name if at.along is None else at.along.name
