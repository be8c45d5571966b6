"""The two towers that every signature is made of: user -> state, and state + candidates + context -> logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfctr.features.inputs import AGE_BUCKETS, hour_name, length_name, newest_name, rows_name, weekday_name
from tfctr.features.spec import Categorical
from tfctr.interactions.base import Interaction
from tfctr.interests.base import Interest
from tfctr.models.embeddings import FeatureEmbeddings

USER_FIELDS = "user/fields"
_AGE_BINS = [2**power for power in range(1, AGE_BUCKETS - 1)]


class UserTower(keras.layers.Layer):
    """Encodes everything that is known of a user before a candidate is: state = encode(histories), user fields.

    Args:
        embeddings: The shared embeddings.
        interests: One interest module by sequence.

    Call arguments:
        inputs: The user's model inputs by name, [B, ...].

    Output: the state, a dict of tensors [B, ...]: `user/fields` [B, F, E], `<sequence>/<tensor>` of the interest's
    state, `<sequence>/newest_time` int64 [B].
    """

    def __init__(self, embeddings: FeatureEmbeddings, interests: dict[str, Interest], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.interests = dict(interests)
        self.side_projections: dict[str, keras.layers.Dense] = {}
        for sequence in self.interests:
            if self._side_fields(sequence):
                self.side_projections[sequence] = keras.layers.Dense(
                    self._event_width(sequence), name=f"{sequence}_side", dtype=self.dtype_policy
                )

    def _event_width(self, sequence: str) -> int:
        return len(self.embeddings.file.shared_fields(sequence)) * self.embeddings.width

    def _side_fields(self, sequence: str) -> list[str]:
        file = self.embeddings.file
        return [name for name in file.sequences[sequence].fields if name not in file.shared_fields(sequence)]

    def build(self, input_shape: Any = None) -> None:
        """Its parts build themselves on the first call, which the model makes when it is built."""
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """See the class."""
        file = self.embeddings.file
        state = {}
        fields = [self.embeddings.field(name, inputs[name]) for name in file.user]
        if fields:
            state[USER_FIELDS] = ops.stack(fields, axis=-2)
        for sequence, interest in self.interests.items():
            encoded = interest.encode(self._sequence(sequence, inputs), training=training)
            state |= {f"{sequence}/{name}": tensor for name, tensor in encoded.items()}
            if file.sequences[sequence].time_field is not None:
                state[f"{sequence}/newest_time"] = inputs[newest_name(sequence)]
        return state

    def _sequence(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """What an interest reads: events [B, L, d] in the candidate's space, length, ages and rows of frozen tables."""
        file = self.embeddings.file
        entry = file.sequences[name]
        shared = [self.embeddings.field(field, inputs[field]) for field in file.shared_fields(name)]
        events = ops.concatenate(shared, axis=-1)
        side = [self.embeddings.field(field, inputs[field]) for field in self._side_fields(name)]
        if side:
            # What a candidate has no counterpart of (rating, age ...) shifts the event inside the candidate's space.
            events = events + self.side_projections[name](ops.concatenate(side, axis=-1))
        sequence = {"events": events, "length": inputs[length_name(name)]}
        if entry.time_field is not None:
            sequence["ages"] = inputs[entry.time_field]
        for table in file.frozen_of_sequence(name):
            sequence[f"rows/{table}"] = inputs[rows_name(name, table)]
        return sequence


class Scorer(keras.layers.Layer):
    """Scores candidates: interests attend to them, all fields meet in the interaction backbone.

    Args:
        embeddings: The shared embeddings.
        interests: One interest module by sequence, the same objects as in the user tower.
        interaction: The backbone.
        passes: Forward passes of the backbone in training (an n-pass loss asks for more than one).

    Call arguments:
        inputs: {"state": ..., "candidate": model inputs [B, C, ...], "context": [B, ...], "bias": [B, C]
            (training only), "mask": bool [B, C], optional: real candidates}.

    Output: logits [B, C]; in training with several passes [passes, B, C].
    """

    def __init__(
        self,
        embeddings: FeatureEmbeddings,
        interests: dict[str, Interest],
        interaction: Interaction,
        passes: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.interests = dict(interests)
        self.interaction = interaction
        self.passes = passes
        self.interest_projections = {
            sequence: keras.layers.Dense(
                self._interest_fields(sequence) * embeddings.width, name=f"{sequence}_fields", dtype=self.dtype_policy
            )
            for sequence in self.interests
        }
        self.bias_tables = {
            name: keras.layers.Embedding(
                embeddings.table_rows[name],
                1,
                embeddings_initializer="zeros",
                name=f"{name}_bias",
                dtype=self.dtype_policy,
            )
            for name in embeddings.file.bias
        }

    def _interest_fields(self, sequence: str) -> int:
        """An interest counts for as many fields as its history shares with the candidate."""
        return len(self.embeddings.file.shared_fields(sequence))

    def build(self, input_shape: Any = None) -> None:
        """Creates the bias tables; the other parts build themselves on the first call."""
        for table in self.bias_tables.values():
            table.build()
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """See the class."""
        state, candidate, context = inputs["state"], inputs["candidate"], inputs["context"]
        mask = inputs.get("mask")
        fields = self._fields(state, candidate, context, mask, training)
        x = fields
        if self.interaction.eats == "flat":
            x = ops.reshape(fields, (*ops.shape(fields)[:2], fields.shape[-2] * fields.shape[-1]))
        passes = self.passes if training else 1
        logits = [self.interaction(x, mask=mask, training=training) for _ in range(passes)]
        bias = self._bias(inputs.get("bias", {}), training)
        logits = [ops.cast(one, "float32") + bias for one in logits]
        return logits[0] if passes == 1 else ops.stack(logits)

    def _fields(
        self, state: dict[str, Any], candidate: dict[str, Any], context: dict[str, Any], mask: Any, training: Any
    ) -> Any:
        """All fields [B, C, F, E]: candidate, interests; user and context broadcast over C, here and nowhere else."""
        file, field = self.embeddings.file, self.embeddings.field
        per_candidate = [field(name, candidate[name]) for name in file.candidate]
        count = ops.shape(per_candidate[0])[1]
        for sequence, interest in self.interests.items():
            seen = self._attend(sequence, interest, state, candidate, context, mask, training)
            parts = ops.split(self.interest_projections[sequence](seen), self._interest_fields(sequence), axis=-1)
            per_candidate += parts
        per_user = [field(name, context[name]) for name in file.context]
        if file.timestamp is not None:
            per_user += [
                field(name, context[name]) for name in (hour_name(file.timestamp), weekday_name(file.timestamp))
            ]
        for sequence in self.interests:
            if file.timestamp is not None and file.sequences[sequence].time_field is not None:
                recency = self._recency(context[file.timestamp], state[f"{sequence}/newest_time"])
                per_user.append(field(f"{sequence}_recency", recency))
        shared = [ops.stack(per_user, axis=-2)] if per_user else []
        if USER_FIELDS in state:
            shared.append(ops.cast(state[USER_FIELDS], self.compute_dtype))
        fields = [ops.stack(per_candidate, axis=-2)]
        fields += [ops.repeat(ops.expand_dims(one, 1), count, axis=1) for one in shared]
        return ops.concatenate(fields, axis=-2)

    def _attend(
        self,
        sequence: str,
        interest: Interest,
        state: dict[str, Any],
        candidate: dict[str, Any],
        context: dict[str, Any],
        mask: Any,
        training: Any,
    ) -> Any:
        file = self.embeddings.file
        shared = file.shared_fields(sequence).values()
        target = ops.concatenate([self.embeddings.field(name, candidate[name]) for name in shared], axis=-1)
        known = {"target": target} if mask is None else {"target": target, "mask": mask}
        prefix = f"{sequence}/"
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for table in file.frozen_of_sequence(sequence):
            if f"rows/{table}" in own:
                own[f"vectors/{table}"] = self.embeddings.vectors(table, own[f"rows/{table}"])
                known[f"rows/{table}"] = candidate[table]
                known[f"vectors/{table}"] = self.embeddings.vectors(table, candidate[table])
        return interest.attend(own, known, context, training=training)

    @staticmethod
    def _recency(now: Any, newest: Any) -> Any:
        """Log bucket of the seconds since the newest event: 0 unknown, 1 + floor(log2(1 + seconds))."""
        known = ops.logical_and(ops.greater(now, 0), ops.greater(newest, 0))
        seconds = ops.where(known, ops.maximum(now - newest, 0), 0)
        return ops.where(known, ops.digitize(seconds + 1, _AGE_BINS) + 1, 0)

    def _bias(self, inputs: dict[str, Any], training: Any) -> Any:
        """The position's logit: real positions in training, the declared default everywhere else."""
        total = ops.zeros((), dtype="float32")
        for name, table in self.bias_tables.items():
            feature = self.embeddings.file.bias[name]
            assert isinstance(feature, Categorical)
            assert isinstance(feature.default, int)
            ids = inputs[name] if training and name in inputs else ops.full((1, 1), feature.default + 1, dtype="int32")
            total = total + ops.cast(ops.squeeze(table(ids), -1), "float32")
        return total
