"""The raw function: raw dense tensors to ids and floats. Transform, training and all signatures apply this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from typing_extensions import override

from tfctr.features.assets import FeatureAssets
from tfctr.features.columns import Side, length_name
from tfctr.features.kinds.base import Lookups
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import indices, lookup_table


class FileLookups(tf.Module, Lookups):
    """Look-ups from a feature assets directory; tracks its tables, so that an export takes them along.

    Args:
        assets: The directory.
    """

    def __init__(self, assets: FeatureAssets) -> None:
        super().__init__()
        self._assets = assets
        self._tables: dict[str, Any] = {}

    @override
    def vocabulary(self, owner: str, tokens: Any) -> Any:
        return indices(self._table(f"vocabulary/{owner}", str(self._assets.vocabulary_path(owner))), tokens)

    @override
    def rows(self, table: str, tokens: Any) -> Any:
        return self._table(f"frozen/{table}", str(self._assets.frozen_keys_path(table))).lookup(tokens) + 1

    @override
    def statistics(self, column: str) -> Mapping[str, Any]:
        return self._assets.statistics[column]

    def _table(self, key: str, path: str) -> Any:
        if key not in self._tables:
            with tf.init_scope():
                self._tables[key] = lookup_table(path)
        return self._tables[key]


class RawFunction:
    """Maps raw dense tensors to model inputs, one side at a time, so that user and candidate never mix.

    Args:
        file: The feature file.
        lookups: Where vocabularies and statistics come from.
    """

    def __init__(self, file: FeatureFile, lookups: Lookups) -> None:
        self.file = file
        self.lookups = lookups

    def user(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """User features [B] and sequences [B, L] to ids and floats."""
        out = self._side("user", raw)
        for name in self.file.sequences:
            out |= self._sequence(name, raw)
        return out

    def candidate(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Candidate features [B, C] (or any leading axes) to ids, floats and rows of frozen tables."""
        return self._side("candidate", raw)

    def context(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Context features [B] to ids and floats; the timestamp also gives hour and weekday (UTC)."""
        return self._side("context", raw)

    def bias(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Bias features (position ...) to ids; only training feeds them."""
        return self._side("bias", raw)

    def all_sides(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Every side of a log's rows, one impression each."""
        return {**self.user(raw), **self.candidate(raw), **self.context(raw), **self.bias(raw)}

    def _side(self, side: Side, raw: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for feature in self.file.of_side(side):
            out |= feature.kind.to_model(feature, raw, self.lookups)
        return out

    def _sequence(self, name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        steps = self.file.sequences[name].max_length
        length = tf.cast(tf.clip_by_value(raw[length_name(name)], 0, steps), tf.int32)
        real = tf.sequence_mask(length, steps)
        out = {length_name(name): length}
        for feature in self.file.of_sequence(name):
            values = feature.kind.to_model(feature, raw, self.lookups)
            for spec in feature.kind.inputs(feature):
                value = values[spec.name]
                if spec.shape:
                    # Padded steps get 0, so that their content can't reach a table or a sum.
                    mask = tf.reshape(real, [-1, steps, *(1 for _ in spec.shape[1:])])
                    value = tf.where(mask, value, tf.zeros_like(value))
                out[spec.name] = value
        return out
