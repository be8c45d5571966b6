"""The scorer, the second half of every model: state, candidates and context -> logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.errors import user_errors
from tfctr.features.inputs import model_inputs
from tfctr.interactions.base import INTERACTIONS, Interaction
from tfctr.layers.embedding import Embedding
from tfctr.losses.auxiliary import AUXILIARY_LOSSES, AuxiliaryLoss
from tfctr.models.embeddings import FeatureEmbeddings
from tfctr.models.first_order import FirstOrderWeights
from tfctr.models.interest_entry import InterestEntry
from tfctr.models.user_tower import USER_FIELDS, USER_LINEAR

LOGITS = "logits"


class Scorer(keras.layers.Layer):
    """Scores candidates: interests attend to them, all fields meet in the interaction backbone.

    Args:
        embeddings: The shared embeddings.
        interests: The interest modules by name, the same objects as in the user tower.
        interaction: The backbone.
        passes: Forward passes of the backbone in training (an n-pass loss asks for more than one).
        branches: Whether training wants the logits of the backbone's branches, not their mean.
        first_order: The weights of a wide model.
        auxiliary_losses: Losses on the fields, in training.

    Call arguments:
        inputs: {"state": ..., "candidate": model inputs [B, C, ...], "context": [B, ...], or [B, C, ...] where each
            candidate has its own, "bias": [B, C] (training only), "mask": bool [B, C], optional: real candidates}.

    Output: logits [B, C]; in training with several passes or branches [k, B, C]. In training, where an interest has
    auxiliary logits, `{"logits": those, "<interest>/<name>": [B, C]}`.
    """

    def __init__(
        self,
        embeddings: FeatureEmbeddings,
        interests: dict[str, InterestEntry],
        interaction: Interaction,
        passes: int = 1,
        branches: bool = False,
        first_order: FirstOrderWeights | None = None,
        auxiliary_losses: Sequence[AuxiliaryLoss] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.entries = dict(interests)
        self.interests = {name: entry.interest for name, entry in interests.items()}
        self.interaction = interaction
        self.passes = passes
        self.branches = branches
        self.first_order = first_order
        self.auxiliary_losses = list(auxiliary_losses)
        self.interest_projections = {
            name: keras.layers.Dense(entry.fields * embeddings.width, name=f"{name}_fields", dtype=self.dtype_policy)
            for name, entry in self.entries.items()
            if entry.project
        }
        bias = [f for feature in embeddings.file.of_side("bias") for f in feature.kind.fields(feature)]
        self.bias_fields = {field.input: field for field in bias if field.table is not None}
        self.bias_tables = {
            name: Embedding(
                embeddings.rows(field.table),
                1,
                embeddings_initializer="zeros",
                name=f"{name}_bias",
                dtype=self.dtype_policy,
            )
            for name, field in self.bias_fields.items()
        }

    def with_interaction(self, interaction: Interaction) -> Scorer:
        """Return a scorer for inference with another backbone, which is built, and all other weights of this one.

        It has no auxiliary losses. If nothing changes, it is this scorer.
        """
        if interaction is self.interaction and not self.auxiliary_losses:
            return self
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
        # All its parts are built already.
        scorer.built = True
        return scorer

    def build(self, input_shape: Any = None) -> None:
        """Creates the bias tables; the other parts build themselves on the first call."""
        for table in self.bias_tables.values():
            table.build()
        self.built = True

    @override
    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        state, candidate, context = inputs["state"], inputs["candidate"], self._context(inputs["context"])
        mask = inputs.get("mask")
        fields, auxiliary = self._fields(state, candidate, context, mask, training)
        for one in self.auxiliary_losses:
            if not one.built:
                with user_errors(f"auxiliary {AUXILIARY_LOSSES.name_of(type(one))}"):
                    one.build(tuple(fields.shape))
            fields = one(fields, mask=mask, training=training)
        x = self.interaction.eaten(fields)
        if not self.interaction.built:
            with user_errors(f"interaction {INTERACTIONS.name_of(type(self.interaction))}"):
                self.interaction.build(tuple(x.shape))
        wide = {} if self.first_order is None else {"linear": self._linear(state, candidate, context)}
        arguments = {"mask": mask, "training": training, **wide}
        if training and self.branches:
            logits = self.interaction.branch_logits(x, **arguments)
        elif training and self.passes > 1:
            logits = self.interaction.pass_logits(x, self.passes, **arguments)
        else:
            logits = self.interaction(x, **arguments)
        result = ops.cast(logits, "float32") + self._bias(inputs.get("bias", {}), training)
        return {LOGITS: result, **auxiliary} if training and auxiliary else result

    def _context(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the request with an axis of candidates, [B, 1, ...] where all share one context."""
        axes = {spec.name: 1 + len(spec.shape) for spec in model_inputs(self.embeddings.file)}
        return {
            name: ops.expand_dims(value, 1) if len(value.shape) == axes[name] else value
            for name, value in inputs.items()
        }

    def _fields(
        self, state: dict[str, Any], candidate: dict[str, Any], context: dict[str, Any], mask: Any, training: Any
    ) -> tuple[Any, dict[str, Any]]:
        """All fields [B, C, F, E] of candidate, interests, context and user, and the auxiliary logits of the interests.

        Only here are the fields of context and user repeated over C.
        """
        features = self.embeddings.file.of_side("candidate")
        per_candidate = [field for feature in features for field in self.embeddings.fields_of(feature, candidate)]
        of_request = self._request_fields(state, context)
        auxiliary: dict[str, Any] = {}
        for interest, entry in self.entries.items():
            seen = self._attend(interest, state, candidate, of_request, mask, training)
            if entry.interest.auxiliary:
                seen, logits = seen
                auxiliary |= {f"{interest}/{name}": one for name, one in logits.items()}
            if entry.project:
                seen = self.interest_projections[interest](seen)
            per_candidate += ops.split(seen, entry.fields, axis=-1)
        shared = list(of_request.values())
        if USER_FIELDS in state:
            shared.append(ops.expand_dims(ops.cast(state[USER_FIELDS], self.compute_dtype), 1))
        fields = [ops.stack(per_candidate, axis=-2)]
        pairs = ops.shape(fields[0])[:2]
        fields += [ops.broadcast_to(one, (*pairs, *one.shape[2:])) for one in shared]
        return ops.concatenate(fields, axis=-2), auxiliary

    def _request_fields(self, state: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        """The fields of the request, {"fields": [B, 1 or C, F, E]}; {} where there are none."""
        embeddings = self.embeddings
        found = [
            field for feature in embeddings.file.of_side("context") for field in embeddings.fields_of(feature, context)
        ]
        for feature in embeddings.file.features:
            for elapsed in feature.kind.request_fields(feature):
                found.append(embeddings.elapsed(elapsed, context[elapsed.now], state[elapsed.since][:, None]))
        return {"fields": ops.stack(found, axis=-2)} if found else {}

    def _linear(self, state: dict[str, Any], candidate: dict[str, Any], context: dict[str, Any]) -> Any:
        """First-order weights of candidate, request and user, [B, C]."""
        assert self.first_order is not None
        total = self.first_order(candidate) + self.first_order(context)
        if USER_LINEAR in state:
            total = total + ops.cast(state[USER_LINEAR], self.compute_dtype)[:, None]
        return total

    def _attend(
        self,
        name: str,
        state: dict[str, Any],
        candidate: dict[str, Any],
        context: dict[str, Any],
        mask: Any,
        training: Any,
    ) -> Any:
        file, entry = self.embeddings.file, self.entries[name]
        parts = [self.embeddings.field(one, candidate[one]) for one in entry.features]
        parts += [self.embeddings.content(table, candidate[table], entry.raw) for table in entry.content]
        target = ops.concatenate(parts, axis=-1)
        known = {"target": target} if mask is None else {"target": target, "mask": mask}
        known |= {f"ids/{one}": candidate[one] for one in entry.interest.id_names}
        prefix = f"{name}/"
        own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        for table in file.frozen_of_sequence(entry.sequence):
            if f"rows/{table}" in own:
                own[f"vectors/{table}"] = self.embeddings.vectors(table, own[f"rows/{table}"])
                known[f"rows/{table}"] = candidate[table]
                known[f"vectors/{table}"] = self.embeddings.vectors(table, candidate[table])
        return entry.interest.attend(own, known, context, training=training and entry.interest.trainable)

    def _bias(self, inputs: dict[str, Any], training: Any) -> Any:
        """The logit of the bias features: of their values in training, and of their defaults otherwise."""
        total = ops.zeros((), dtype="float32")
        for name, field in self.bias_fields.items():
            given = training and name in inputs
            ids = inputs[name] if given else ops.full((1, 1), field.serving_row, dtype="int32")
            total = total + ops.cast(ops.squeeze(self.bias_tables[name](ids), -1), "float32")
        return total
