"""The composed model: embeddings -> user interest -> interaction backbone -> logit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.errors import user_errors
from tfctr.features.assets import FeatureAssets
from tfctr.features.columns import CANDIDATE_MASK, InputSpec
from tfctr.features.inputs import model_inputs
from tfctr.features.kinds.fields import Table
from tfctr.features.spec import FeatureFile
from tfctr.interactions import create_interaction
from tfctr.interactions.base import INTERACTIONS
from tfctr.interests.base import INTERESTS
from tfctr.layers.export import tfctr_export
from tfctr.layers.replicas import replicas, share
from tfctr.losses import BinaryCrossentropy, create_auxiliary_loss, create_loss
from tfctr.models.config import ModelConfig
from tfctr.models.embeddings import FeatureEmbeddings
from tfctr.models.field_facts import field_facts
from tfctr.models.first_order import FirstOrderWeights
from tfctr.models.interest_entry import entry_shapes, make_entry
from tfctr.models.scorer import LOGITS, Scorer
from tfctr.models.user_tower import UserTower


@tfctr_export
class RankingModel(keras.Model):
    """A click-through-rate model over any interest and any interaction.

    call(inputs) = scorer(user_tower(inputs), inputs): the served signatures are these two towers, there is no second
    implementation. The model holds no weight of its own.

    Args:
        features: The feature file.
        table_rows: Embedding rows by feature that owns a table.
        frozen_shapes: [rows, width] by frozen table.
        config: Interests, interaction, loss and regularisation.

    Call arguments:
        inputs: model inputs by name: user [B, ...], candidate [B, C, ...], context [B, ...], or [B, C, ...] where each
            candidate has its own, bias [B, C] (training), and optionally `candidate_mask` bool [B, C].
        training: Whether dropout and several passes act.

    Output: logits [B, C]; in training with a loss of several passes or branches [k, B, C], and where an interest has
    auxiliary logits `{"logits": those, "<interest>/<name>": [B, C]}`.
    """

    def __init__(
        self,
        features: FeatureFile | dict[str, Any],
        table_rows: dict[str, int],
        frozen_shapes: dict[str, Any],
        config: ModelConfig | dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file = features if isinstance(features, FeatureFile) else FeatureFile.model_validate(features)
        self.model_config = config if isinstance(config, ModelConfig) else ModelConfig.model_validate(config)
        self.embeddings = FeatureEmbeddings(
            self.file,
            table_rows,
            frozen_shapes,
            self.model_config.embedding_start,
            name="embeddings",
            dtype=self.dtype_policy,
        )
        self.loss_function = create_loss(self.model_config.loss)
        interests = {
            name: make_entry(self.file, self.embeddings, sequence, entry)
            for name, (sequence, entry) in self.model_config.interests_of(self.file).items()
        }
        interaction = create_interaction(
            self.model_config.interaction, field_facts(self.file, interests), dtype=self.dtype_policy.name
        )
        self.loss_function.check_backbone(INTERACTIONS.name_of(type(interaction)), interaction.branches)
        first_order = None
        if interaction.wide:
            first_order = FirstOrderWeights(self.file, table_rows, name="first_order", dtype=self.dtype_policy)
        self.user_tower = UserTower(self.embeddings, interests, first_order, name="user_tower", dtype=self.dtype_policy)
        self.scorer = Scorer(
            self.embeddings,
            interests,
            interaction,
            passes=self.loss_function.passes,
            branches=self.loss_function.branches,
            first_order=first_order,
            auxiliary_losses=[
                create_auxiliary_loss(one, name=f"auxiliary{i}", dtype=self.dtype_policy.name)
                for i, one in enumerate(self.model_config.auxiliary)
            ],
            name="scorer",
            dtype=self.dtype_policy,
        )
        self.auxiliary_weights = {
            f"{interest}/{name}": weight
            for interest, entry in interests.items()
            for name, weight in entry.interest.auxiliary.items()
        }
        self._penalized_elsewhere: frozenset[str] = frozenset()
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._auc = keras.metrics.AUC(num_thresholds=1000, name="auc")

    @override
    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        state = self.user_tower(self._pick("user", inputs), training=training)
        return self.score(state, inputs, inputs, inputs, training=training)

    def score(
        self,
        state: dict[str, Any],
        candidate: dict[str, Any],
        context: dict[str, Any],
        bias: dict[str, Any] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Logits [B, C] of candidates for users of whom only the state is known."""
        packed = {
            "state": state,
            "candidate": self._pick("candidate", candidate),
            "context": self._pick("context", context),
            "bias": self._pick("bias", bias or {}),
        }
        if CANDIDATE_MASK in candidate:
            packed["mask"] = candidate[CANDIDATE_MASK]
        return self.scorer(packed, training=training)

    def _pick(self, side: str, inputs: dict[str, Any]) -> dict[str, Any]:
        names = [spec.name for spec in model_inputs(self.file) if spec.side == side]
        if side == "bias":
            names = [name for name in names if name in inputs]
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ValueError(f"`inputs` must hold every {side} input. Missing: {missing}. Received: {sorted(inputs)}")
        return {name: inputs[name] for name in names}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
        **_: Any,
    ) -> Any:
        """The loss over all valid (b, c) pairs, weighted, divided by the sum of weights; plus regularisation.

        On several devices it is what one of them adds to the loss of the whole batch.
        """
        labels, logits, weights = self._pairs(x, y, y_pred, sample_weight)
        loss = self.loss_function(labels, logits, weights)
        if isinstance(y_pred, dict):
            for name, weight in self.auxiliary_weights.items():
                own = ops.reshape(y_pred[name], (1, -1))
                loss = loss + weight * BinaryCrossentropy()(labels, own, weights)
        loss = loss * share(weights)
        # Keras shows the mean over the devices, and adds up their gradients.
        self._loss_mean.update_state(loss * replicas())
        for penalty in (*self.losses, *self._penalties()):
            loss = loss + ops.cast(penalty, loss.dtype) / replicas()
        return loss

    @property
    def faster_compiled(self) -> bool:
        """Whether XLA makes the training step faster: what the classes of backbone and interests say of themselves."""
        return all(part.jit_compile for part in (self.scorer.interaction, *self.scorer.interests.values()))

    def _penalties(self) -> list[Any]:
        """lambda / 2 * |w|^2 of every trained weight, with the lambda of the features' weights or of all others."""
        own = [self.embeddings, self.scorer.first_order, *self.scorer.bias_tables.values()]
        of_features = {id(weight) for part in own if part is not None for weight in part.trainable_weights}
        config = self.model_config
        rated = (
            (config.embedding_l2 if id(weight) in of_features else config.network_l2, weight)
            for weight in self.trainable_weights
            if weight.path not in self._penalized_elsewhere
        )
        return [rate / 2 * ops.sum(ops.square(weight)) for rate, weight in rated if rate]

    def leave_penalties(self, weights: Iterable[Any]) -> None:
        """Leave the penalty on some weights to their optimizer, which knows the rows of the batch."""
        self._penalized_elsewhere = frozenset(weight.path for weight in weights)

    def trained_tables(self) -> list[tuple[Table, Any]]:
        """The weights that are looked up by id, each with the table that the feature file describes."""
        found = [(table, self.embeddings.tables[table.name].embeddings) for table in self.embeddings.looked_up]
        if self.scorer.first_order is not None:
            found += self.scorer.first_order.looked_up()
        bias = self.scorer.bias_tables
        return found + [(field.table, bias[name].embeddings) for name, field in self.scorer.bias_fields.items()]

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Loss without penalties and a binned AUC, for the progress line; reports use the exact one."""
        labels, logits, weights = self._pairs(x, y, y_pred, sample_weight)
        self._auc.update_state(labels, ops.mean(ops.sigmoid(logits), axis=0), sample_weight=weights)
        return {metric.name: metric.result() for metric in (self._loss_mean, self._auc)}

    def _pairs(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Flat labels [n], logits [passes or branches, n] and weights [n]; the weight of a masked candidate is 0."""
        if isinstance(y_pred, dict):
            y_pred = y_pred[LOGITS]
        found = y_pred.shape[0] if len(y_pred.shape) == 3 else 1
        logits = ops.reshape(y_pred, (found, -1))
        wanted = self.scorer.interaction.branches if self.loss_function.branches else self.loss_function.passes
        if found < wanted:
            # Outside training there is one logit. Without dropout all passes are equal, so it is repeated.
            logits = ops.repeat(logits, wanted, axis=0)
        labels = ops.reshape(ops.cast(y, "float32"), (-1,))
        weights = ops.ones_like(labels) if sample_weight is None else ops.reshape(sample_weight, (-1,))
        weights = ops.cast(weights, "float32")
        if isinstance(x, dict) and CANDIDATE_MASK in x:
            mask = ops.reshape(x[CANDIDATE_MASK], (-1,))
            weights, labels, logits = (ops.where(mask, value, 0.0) for value in (weights, labels, logits))
        return labels, logits, weights

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights, by scoring a candidate for a user, with all features missing."""
        self.embeddings.build()
        if self.scorer.first_order is not None:
            self.scorer.first_order.build()
        for entry in self.scorer.entries.values():
            with user_errors(f"interest {INTERESTS.name_of(type(entry.interest))} of sequence '{entry.sequence}'"):
                entry.interest.build(entry_shapes(self.file, self.embeddings, entry))
        inputs = dummy_inputs(self.file)
        state = self.user_tower(self._pick("user", inputs))
        self.score(state, inputs, inputs)
        self.built = True

    def freeze(self, interest: str) -> None:
        """Keeps the weights of an interest: in training it acts as it is served, and has no loss of its own."""
        self.scorer.interests[interest].trainable = False
        own = {name: weight for name, weight in self.auxiliary_weights.items() if not name.startswith(f"{interest}/")}
        self.auxiliary_weights = own

    def diagnostics(self) -> dict[str, float]:
        """The diagnostics of the interests: `<interest>/<name>` -> number."""
        return {
            f"{own}/{name}": value
            for own, interest in self.scorer.interests.items()
            for name, value in interest.diagnostics().items()
        }

    @override
    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": self.file.model_dump(mode="json", exclude_unset=True),
            "table_rows": self.embeddings.table_rows,
            "frozen_shapes": {name: list(shape) for name, shape in self.embeddings.frozen_shapes.items()},
            "config": self.model_config.model_dump(mode="json"),
        }


def dummy_inputs(file: FeatureFile, batch: int = 1, candidates: int = 1) -> dict[str, Any]:
    """Model inputs full of zeros (everything missing), to build a model or trace a graph."""

    def zeros(spec: InputSpec) -> Any:
        lead = (batch, candidates) if spec.side in ("candidate", "bias") else (batch,)
        return ops.zeros((*lead, *spec.shape), dtype=spec.dtype)

    return {spec.name: zeros(spec) for spec in model_inputs(file)}


def build_model(assets: FeatureAssets, config: ModelConfig, dtype: str | None = None) -> RankingModel:
    """Makes a model for a feature assets directory: sizes from the vocabularies, frozen vectors filled in.

    Args:
        assets: Vocabularies, statistics and vectors, with the feature file they were made for.
        config: Interests, interaction, loss, regularisation.
        dtype: A Keras dtype policy, "mixed_bfloat16" for instance.
    """
    file = assets.file
    vectors = {name: assets.frozen_vectors(name) for name in assets.frozen_tables()}
    model = RankingModel(
        file, assets.trained_tables(), {name: v.shape for name, v in vectors.items()}, config, dtype=dtype
    )
    model.build()
    for name, table in vectors.items():
        model.embeddings.frozen_tables[name].assign(table)
    return model
