"""The user tower, the first half of every model: a user's inputs -> the state."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.features.columns import length_name
from tfctr.features.kinds.base import Feature
from tfctr.models.embeddings import FeatureEmbeddings
from tfctr.models.first_order import FirstOrderWeights
from tfctr.models.interest_entry import InterestEntry

USER_FIELDS = "user/fields"
USER_LINEAR = "user/linear"


class UserTower(keras.layers.Layer):
    """Encodes what is known of a user without a candidate: histories by the interests, and the user's fields.

    Args:
        embeddings: The shared embeddings.
        interests: The interest modules by name, see `ModelConfig.interests_of`.
        first_order: The weights of a wide model.

    Call arguments:
        inputs: The user's model inputs by name, [B, ...].

    Output: the state, a dict of tensors [B, ...]: `user/fields` [B, F, E], `user/linear` [B] of a wide model,
    `<interest>/<tensor>` of an interest's state, `<sequence>/newest_time` int64 [B].
    """

    def __init__(
        self,
        embeddings: FeatureEmbeddings,
        interests: dict[str, InterestEntry],
        first_order: FirstOrderWeights | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.entries = dict(interests)
        # Keras tracks layers in a dict, but not inside the entries.
        self.interests = {name: entry.interest for name, entry in interests.items()}
        self.first_order = first_order
        self.side_projections: dict[str, keras.layers.Dense] = {}
        for name, entry in self.entries.items():
            if entry.interest.reads_events and self._side_features(entry.sequence):
                self.side_projections[name] = keras.layers.Dense(
                    entry.width, name=f"{name}_side", dtype=self.dtype_policy
                )

    def _side_features(self, sequence: str) -> list[Feature]:
        """The features of events that candidates do not have, such as a rating or the age of the event."""
        events = self.embeddings.file.of_sequence(sequence)
        return [feature for feature in events if feature.shares is None and feature.along is None]

    def build(self, input_shape: Any = None) -> None:
        """Its parts build themselves on the first call, which the model makes when it is built."""
        self.built = True

    @override
    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        file = self.embeddings.file
        state = {}
        users = file.of_side("user")
        fields = self._fields(users, inputs)
        if fields:
            state[USER_FIELDS] = ops.stack(fields, axis=-2)
            if self.first_order is not None:
                names = [spec.name for feature in users for spec in feature.kind.inputs(feature)]
                state[USER_LINEAR] = self.first_order({name: inputs[name] for name in names})
        for interest, entry in self.entries.items():
            # One that is not trained acts as it is served.
            own = training and entry.interest.trainable
            encoded = entry.interest.encode(self._sequence(interest, inputs), training=own)
            state |= {f"{interest}/{name}": tensor for name, tensor in encoded.items()}
            for feature in file.of_sequence(entry.sequence):
                state |= {name: inputs[source] for name, source in feature.kind.state(feature).items()}
        return state

    def _sequence(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of an interest: events [B, L, d], their length, and what the feature kinds add."""
        entry, file = self.entries[name], self.embeddings.file
        sequence, rows = entry.sequence, file.frozen_of_sequence(entry.sequence)
        features = file.of_sequence(sequence)
        shared = [feature for feature in features if feature.shares and feature.shares.name in entry.features]
        parts = self._fields(shared, inputs)
        parts += [self.embeddings.content(table, inputs[rows[table]], entry.raw) for table in entry.content]
        events = ops.concatenate(parts, axis=-1)
        if name in self.side_projections:
            side = self._fields(self._side_features(sequence), inputs)
            # Features that candidates do not have are added to the event by a linear map, so that its width stays.
            events = events + self.side_projections[name](ops.concatenate(side, axis=-1))
        found = {"events": events, "length": inputs[length_name(sequence)]}
        for feature in features:
            found |= {key: inputs[source] for key, source in feature.kind.events(feature).items()}
        return found

    def _fields(self, features: list[Feature], inputs: dict[str, Any]) -> list[Any]:
        return [field for feature in features for field in self.embeddings.fields_of(feature, inputs)]
