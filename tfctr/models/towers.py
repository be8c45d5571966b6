"""The two towers that every signature is made of: user -> state, and state + candidates + context -> logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfctr.features.inputs import AGE_BUCKETS, hour_name, length_name, newest_name, rows_name, weekday_name
from tfctr.features.spec import Categorical
from tfctr.interactions.base import Interaction
from tfctr.interests.base import Interest
from tfctr.models.embeddings import FeatureEmbeddings
from tfctr.models.first_order import FirstOrderWeights

USER_FIELDS = "user/fields"
USER_LINEAR = "user/linear"
LOGITS = "logits"
_AGE_BINS = [2**power for power in range(1, AGE_BUCKETS - 1)]


@dataclass(frozen=True)
class InterestEntry:
    """One interest module and the sequence it reads.

    Attributes:
        interest: The module.
        features: Candidate features that events share, in order; an event is their fields side by side.
        content: Frozen tables whose projected vectors follow them in events and candidates.
    """

    interest: Interest
    features: tuple[str, ...]
    content: tuple[str, ...] = ()

    @property
    def fields(self) -> int:
        """How many fields an event has, and for how many the interest counts."""
        return len(self.features) + len(self.content)


class UserTower(keras.layers.Layer):
    """Encodes everything that is known of a user before a candidate is: state = encode(histories), user fields.

    Args:
        embeddings: The shared embeddings.
        interests: One interest module by sequence.
        first_order: The weights of a wide model.

    Call arguments:
        inputs: The user's model inputs by name, [B, ...].

    Output: the state, a dict of tensors [B, ...]: `user/fields` [B, F, E], `user/linear` [B] of a wide model,
    `<sequence>/<tensor>` of the interest's state, `<sequence>/newest_time` int64 [B].
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
        # Keras tracks layers, not the entries that hold them.
        self.interests = {sequence: entry.interest for sequence, entry in interests.items()}
        self.first_order = first_order
        self.side_projections: dict[str, keras.layers.Dense] = {}
        for sequence, entry in self.entries.items():
            if self._side_fields(sequence):
                self.side_projections[sequence] = keras.layers.Dense(
                    entry.fields * embeddings.width, name=f"{sequence}_side", dtype=self.dtype_policy
                )

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
            if self.first_order is not None:
                state[USER_LINEAR] = self.first_order({name: inputs[name] for name in file.user})
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
        shared += [self.embeddings.field(table, inputs[rows_name(name, table)]) for table in self.entries[name].content]
        events = ops.concatenate(shared, axis=-1)
        side = [self.embeddings.field(field, inputs[field]) for field in self._side_fields(name)]
        if side:
            # What a candidate has no counterpart of (rating, age ...) shifts the event inside the candidate's space.
            events = events + self.side_projections[name](ops.concatenate(side, axis=-1))
        sequence = {"events": events, "length": inputs[length_name(name)]}
        if entry.time_field is not None:
            sequence["ages"] = inputs[entry.time_field]
        for field, feature in file.shared_fields(name).items():
            if feature in self.interests[name].id_names:
                sequence[f"ids/{feature}"] = inputs[field]
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
        first_order: The weights of a wide model.

    Call arguments:
        inputs: {"state": ..., "candidate": model inputs [B, C, ...], "context": [B, ...], "bias": [B, C]
            (training only), "mask": bool [B, C], optional: real candidates}.

    Output: logits [B, C]; in training with several passes [passes, B, C]. In training, where an interest has auxiliary
    logits, {"logits": those, "<sequence>/<name>": [B, C]}.
    """

    def __init__(
        self,
        embeddings: FeatureEmbeddings,
        interests: dict[str, InterestEntry],
        interaction: Interaction,
        passes: int = 1,
        first_order: FirstOrderWeights | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.entries = dict(interests)
        self.interests = {sequence: entry.interest for sequence, entry in interests.items()}
        self.interaction = interaction
        self.passes = passes
        self.first_order = first_order
        self.interest_projections = {
            sequence: keras.layers.Dense(
                entry.fields * embeddings.width, name=f"{sequence}_fields", dtype=self.dtype_policy
            )
            for sequence, entry in self.entries.items()
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

    def with_interaction(self, interaction: Interaction) -> Scorer:
        """This scorer with another, built backbone: for inference, sharing every other weight."""
        scorer = Scorer(
            self.embeddings,
            self.entries,
            interaction,
            first_order=self.first_order,
            name=self.name,
            dtype=self.dtype_policy,
        )
        scorer.interest_projections = self.interest_projections
        scorer.bias_tables = self.bias_tables
        # What it would build now is there.
        scorer.built = True
        return scorer

    def build(self, input_shape: Any = None) -> None:
        """Creates the bias tables; the other parts build themselves on the first call."""
        for table in self.bias_tables.values():
            table.build()
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """See the class."""
        state, candidate, context = inputs["state"], inputs["candidate"], inputs["context"]
        mask = inputs.get("mask")
        fields, auxiliary = self._fields(state, candidate, context, mask, training)
        x = self.interaction.eaten(fields)
        wide = {} if self.first_order is None else {"linear": self._linear(state, candidate, context)}
        passes = self.passes if training else 1
        logits = [self.interaction(x, mask=mask, training=training, **wide) for _ in range(passes)]
        bias = self._bias(inputs.get("bias", {}), training)
        logits = [ops.cast(one, "float32") + bias for one in logits]
        result = logits[0] if passes == 1 else ops.stack(logits)
        return {LOGITS: result, **auxiliary} if training and auxiliary else result

    def _fields(
        self, state: dict[str, Any], candidate: dict[str, Any], context: dict[str, Any], mask: Any, training: Any
    ) -> tuple[Any, dict[str, Any]]:
        """All fields [B, C, F, E]: candidate, interests; user and context broadcast over C, here and nowhere else.

        And the auxiliary logits of the interests.
        """
        file, field = self.embeddings.file, self.embeddings.field
        per_candidate = [field(name, candidate[name]) for name in file.candidate]
        count = ops.shape(per_candidate[0])[1]
        of_request = self._request_fields(state, context)
        auxiliary: dict[str, Any] = {}
        for sequence, interest in self.interests.items():
            seen = self._attend(sequence, interest, state, candidate, of_request, mask, training)
            if interest.auxiliary:
                seen, logits = seen
                auxiliary |= {f"{sequence}/{name}": one for name, one in logits.items()}
            parts = ops.split(self.interest_projections[sequence](seen), self.entries[sequence].fields, axis=-1)
            per_candidate += parts
        shared = list(of_request.values())
        if USER_FIELDS in state:
            shared.append(ops.cast(state[USER_FIELDS], self.compute_dtype))
        fields = [ops.stack(per_candidate, axis=-2)]
        fields += [ops.repeat(ops.expand_dims(one, 1), count, axis=1) for one in shared]
        return ops.concatenate(fields, axis=-2), auxiliary

    def _request_fields(self, state: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        """What is known of the request: {"fields": [B, F, E]}, or {} where nothing is."""
        file, field = self.embeddings.file, self.embeddings.field
        found = [field(name, context[name]) for name in file.context]
        if file.timestamp is not None:
            found += [field(name, context[name]) for name in (hour_name(file.timestamp), weekday_name(file.timestamp))]
        for sequence in self.interests:
            if file.timestamp is not None and file.sequences[sequence].time_field is not None:
                recency = self._recency(context[file.timestamp], state[f"{sequence}/newest_time"])
                found.append(field(f"{sequence}_recency", recency))
        return {"fields": ops.stack(found, axis=-2)} if found else {}

    def _linear(self, state: dict[str, Any], candidate: dict[str, Any], context: dict[str, Any]) -> Any:
        """First-order weights of candidate, request and user, [B, C]."""
        assert self.first_order is not None
        file = self.embeddings.file
        total = self.first_order({name: candidate[name] for name in file.candidate})
        per_request = [USER_LINEAR] if USER_LINEAR in state else []
        terms = [ops.cast(state[name], self.compute_dtype) for name in per_request]
        if file.context or file.timestamp is not None:
            terms.append(self.first_order(context))
        return sum((term[:, None] for term in terms), total)

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
        file, entry = self.embeddings.file, self.entries[sequence]
        target = ops.concatenate(
            [self.embeddings.field(name, candidate[name]) for name in (*entry.features, *entry.content)], axis=-1
        )
        known = {"target": target} if mask is None else {"target": target, "mask": mask}
        known |= {f"ids/{name}": candidate[name] for name in interest.id_names}
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
