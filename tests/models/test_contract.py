"""What the model hands to interests and backbones beyond fields: ids, request fields, content, first-order weights."""

from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.models.test_model import batch
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.export.fold import served_scorer
from tfctr.features.inputs import model_inputs
from tfctr.interactions import INTERACTIONS, Interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.interests import INTERESTS, Interest, SequenceFacts
from tfctr.losses import AUXILIARY_LOSSES, AuxiliaryLoss
from tfctr.models import ModelConfig, RankingModel, build_model
from tfctr.training.experiment import Experiment, changed

pytestmark = pytest.mark.slow


class Probe(Interest):
    """An interest that keeps what it is given, and whose auxiliary logit is one weight."""

    seen: ClassVar[dict[str, Any]] = {}
    auxiliary: ClassVar[dict[str, float]] = {"own": 0.5}

    def __init__(self, category: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.id_names = (category,)

    @classmethod
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        return {"category": sequence.category, **options}

    def diagnostics(self) -> dict[str, float]:
        return {"level": float(ops.convert_to_numpy(self.level))}

    def build(self, input_shape: dict[str, Any]) -> None:
        self.seen["shapes"] = input_shape
        super().build(input_shape)

    def build_width(self, width: int) -> None:
        self.level = self.add_weight(name="level", shape=(), initializer="ones")

    def encode(self, sequence: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        self.seen["sequence"] = sequence
        events, state = self.start(sequence)
        return {**state, "sum": ops.sum(events, axis=1)}

    def attend(self, state: dict[str, Any], candidate: Any, context: Any, training: bool | None = None) -> Any:
        self.seen.update(state=state, candidate=candidate, context=context)
        target = self.target(candidate)
        logits = ops.ones_like(target[..., 0]) * self.level
        return target + state["sum"][:, None, :], {"own": logits}


class Wide(Interaction):
    """An interaction whose logit is the linear term alone."""

    @property
    def wide(self) -> bool:
        return True

    def call(self, inputs: Any, linear: Any = None, mask: Any = None, training: bool | None = None) -> Any:
        return linear


class Branches(Interaction):
    """An interaction with two logits, which are one weight and its double, and which keeps the facts of its fields."""

    eats = "fields"
    branches = 2

    def __init__(self, fields: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.facts = fields

    @classmethod
    def complete(cls, options: dict[str, Any], fields: Any) -> dict[str, Any]:
        return {"fields": fields, **options}

    def build(self, input_shape: Any) -> None:
        self.level = self.add_weight(name="level", shape=(), initializer="ones")

    def branch_logits(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        one = ops.ones_like(inputs[..., 0, 0]) * self.level
        return ops.stack([one, 2.0 * one])

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return ops.mean(self.branch_logits(inputs), axis=0)


class Whole(Branches, HeadedInteraction):
    """The same as the deep part of another backbone."""

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return ops.ones_like(inputs[..., 0])

    def logit(self, hidden: Any, linear: Any = None) -> Any:
        return 1.5 * self.level * hidden[..., 0]


class Norm(AuxiliaryLoss):
    """A loss on the fields with a weight of its own."""

    def build(self, input_shape: Any) -> None:
        self.level = self.add_weight(name="level", shape=(), initializer="ones")

    def total(self, fields: Any, mask: Any) -> Any:
        return self.level * ops.mean(ops.square(fields))


@pytest.fixture
def probe(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> RankingModel:
    monkeypatch.setitem(INTERESTS, "probe", Probe)
    return build_model(workbench.assets, ModelConfig(interests=({"type": "probe", "content": True},)))


def test_an_interest_sees_the_ids_it_compares(workbench: Workbench, probe: RankingModel) -> None:
    inputs = batch(workbench, candidates=2)
    probe(inputs)
    # Where none is configured, the category is the shared feature with the smallest vocabulary: genres, not items.
    assert probe.scorer.interests["history"].id_names == ("genres",)
    seen = Probe.seen
    np.testing.assert_array_equal(seen["candidate"]["ids/genres"], inputs["genres"])
    real = np.arange(workbench.file.sequences["history"].max_length) < inputs["history_length"][:, None]
    np.testing.assert_array_equal(seen["state"]["ids/genres"], np.where(real[..., None], inputs["history_genres"], 0))


def test_an_interest_sees_the_request(workbench: Workbench, probe: RankingModel) -> None:
    probe(batch(workbench))
    fields = Probe.seen["context"]["fields"]
    assert (None, None, *fields.shape[2:]) == Probe.seen["shapes"]["context"]["fields"]
    assert fields.shape[1:] == (1, 3, 8), "hour, weekday, time since the newest event"


def test_each_candidate_may_have_a_request_of_its_own(workbench: Workbench, probe: RankingModel) -> None:
    names = [spec.name for spec in model_inputs(workbench.file) if spec.side == "context"]
    inputs = batch(workbench, rows=30)
    later = {name: inputs[name] // 2 for name in names} | {"timestamp": inputs["timestamp"] + 10**9}
    assert len(np.unique(inputs["history_newest_time"])) > 1

    def alone(row: int, context: dict[str, Any]) -> Any:
        probe({name: value[row : row + 1] for name, value in (inputs | context).items()})
        return Probe.seen["context"]["fields"]

    expected = np.concatenate(
        [np.concatenate([alone(row, context) for row in range(30)]) for context in ({}, later)], axis=1
    )
    different = [not np.array_equal(expected[:, 0, field], expected[:, 1, field]) for field in range(3)]
    assert different == [True] * 3, "hour, weekday, time since the newest event"
    both = {name: np.stack([inputs[name], later[name]], axis=1) for name in names}
    probe(batch(workbench, rows=30, candidates=2) | both)
    np.testing.assert_array_equal(Probe.seen["context"]["fields"], expected)


def test_content_is_part_of_events_and_candidates(workbench: Workbench, probe: RankingModel) -> None:
    inputs = batch(workbench)
    probe(inputs)
    events, target = Probe.seen["sequence"]["events"], Probe.seen["candidate"]["target"]
    assert events.shape[-1] == target.shape[-1] == 3 * 8, "item, genres and the projected text vector"
    projected = probe.embeddings.field("item_vector", inputs["item_vector"])
    np.testing.assert_array_equal(target[..., 16:], projected)
    plain = build_model(workbench.assets, ModelConfig(interests=({"type": "probe"},)))
    assert plain.scorer.entries["history"].fields == 2


def test_auxiliary_logits_are_trained_with_their_weight(workbench: Workbench, probe: RankingModel) -> None:
    inputs, labels = batch(workbench), np.array([[1.0], [0], [0], [1], [0], [0]], np.float32)
    outputs = probe(inputs, training=True)
    assert set(outputs) == {"logits", "history/own"}
    assert probe(inputs).shape == (6, 1)
    loss = float(probe.compute_loss(x=inputs, y=labels, y_pred=outputs))
    main = float(probe.compute_loss(x=inputs, y=labels, y_pred=outputs["logits"]))
    p = 1 / (1 + np.exp(-1.0))
    assert loss == pytest.approx(main - 0.5 * (2 * np.log(p) + 4 * np.log(1 - p)) / 6, rel=1e-5)
    assert probe.diagnostics() == {"history/level": 1.0}
    probe.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=True)
    probe.train_on_batch(inputs, labels)
    # The derivative of 0.5 * (mean cross-entropy) by the level is 0.5 * (p - mean label).
    assert probe.diagnostics()["history/level"] == pytest.approx(1 - 0.5 * (p - 2 / 6), rel=1e-5)


def test_a_category_that_the_history_lacks_is_told(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERESTS, "probe", Probe)
    config = ModelConfig(interests=({"type": "probe", "category": "year"},))
    with pytest.raises(UserError, match=r"'history' shares no candidate feature \['year'\]\. Allowed: item_id, genres"):
        build_model(workbench.assets, config)


def test_first_order_weights_are_summed_over_all_sides(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERACTIONS, "wide", Wide)
    model = build_model(workbench.assets, ModelConfig(interaction={"type": "wide"}))
    inputs = batch(workbench, candidates=3)
    assert not model(inputs).numpy().any(), "weights start at zero"
    first_order = model.scorer.first_order
    generator = np.random.default_rng(0)
    for weight in first_order.weights:
        weight.assign(generator.normal(size=weight.shape))

    def by_hand(inputs: dict[str, Any]) -> np.ndarray:
        total = np.zeros((6, 3))
        for name, table in first_order.tables.items():
            weights = np.asarray(table.embeddings)[inputs[name]][..., 0]
            if name == "genres":
                weights = (weights * (inputs[name] != 0)).sum(-1)
            total += weights if weights.ndim == 2 else weights[:, None]
        for name, slope in first_order.slopes.items():
            total += inputs[name] * float(np.asarray(slope.kernel)[0, 0])
        return total

    expected = by_hand(inputs)
    assert {"user_id", "item_id", "genres", "timestamp_hour"} <= set(first_order.tables)
    assert not any(name.startswith(("history", "position", "item_vector")) for name in first_order.tables)
    np.testing.assert_allclose(model(inputs).numpy(), expected, rtol=1e-5, atol=1e-5)
    state = model.user_tower(model._pick("user", inputs))
    assert state["user/linear"].shape == (6,)
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    np.testing.assert_allclose(compiled(inputs).numpy(), expected, rtol=1e-5, atol=1e-5)
    for spec in model_inputs(workbench.file):
        if spec.side == "context":
            inputs[spec.name] = np.stack([inputs[spec.name] // (1 + place) for place in range(3)], axis=1)
    assert not np.allclose(by_hand(inputs), expected), "each candidate has a request of its own"
    np.testing.assert_allclose(model(inputs).numpy(), by_hand(inputs), rtol=1e-5, atol=1e-5)


def test_an_interest_with_positions_gets_as_many_as_the_history_has(workbench: Workbench) -> None:
    for kind in ("sasrec", "hstu"):
        model = build_model(workbench.assets, ModelConfig(interests=({"type": kind},)))
        assert model.scorer.interests["history"].max_length == workbench.file.sequences["history"].max_length
        model = build_model(workbench.assets, ModelConfig(interests=({"type": kind, "max_length": 99},)))
        assert model.scorer.interests["history"].max_length == 99


def test_a_backbone_learns_what_its_fields_are(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERACTIONS, "branches", Branches)
    monkeypatch.setitem(INTERACTIONS, "whole", Whole)
    config = ModelConfig(interests=({"type": "mean", "content": True},), interaction={"type": "branches"})
    model = build_model(workbench.assets, config)
    facts = model.scorer.interaction.facts
    inputs = batch(workbench)
    seen = model.scorer._fields(*_sides(model, inputs), None, False)[0]
    assert len(facts) == seen.shape[-2]
    for name in {one.name for one in facts if one.side != "history" and one.source != "elapsed"}:
        places = [i for i, one in enumerate(facts) if one.name == name and one.source != "elapsed"]
        fields = model.embeddings.fields_of(model.file.feature(name), inputs)
        for place, field in zip(places, fields, strict=True):
            expected = field[:, 0] if facts[place].side == "candidate" else field
            np.testing.assert_allclose(seen[:, 0, place], expected, atol=1e-7, err_msg=name)
    assert [one.source for one in facts if one.name == "item_vector"] == ["vector"]
    assert [one for one in facts if one.side == "history"] == [("history", "history", "interest")] * 3
    assert {one.source for one in facts} == {"table", "number", "vector", "interest", "elapsed"}
    inside = ModelConfig(interaction={"type": "wide_deep", "deep": "whole"})
    assert build_model(workbench.assets, inside).scorer.interaction.deep.facts[0] == facts[0]


def test_a_loss_may_be_over_the_branches_of_a_backbone(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERACTIONS, "branches", Branches)
    over = {"type": "self_ensemble", "over": "branches", "mean": "logit"}
    model = build_model(workbench.assets, ModelConfig(interaction={"type": "branches"}, loss=over))
    inputs, labels = batch(workbench), np.array([[1.0], [0], [0], [1], [0], [0]], np.float32)
    outputs = model(inputs, training=True)
    np.testing.assert_allclose(outputs[:, 0, 0], [1.0, 2.0])
    np.testing.assert_allclose(model(inputs)[:, 0], np.full(6, 1.5))
    p, q, m = (1 / (1 + np.exp(-logit)) for logit in (1.0, 2.0, 1.5))
    share, expected = 2 / 6, 0.0
    for target, one in ((share, m), (m, p), (m, q)):
        expected -= target * np.log(one) + (1 - target) * np.log(1 - one)
    assert float(model.compute_loss(x=inputs, y=labels, y_pred=outputs)) == pytest.approx(expected, rel=1e-5)
    # Outside training the one logit stands for each branch.
    entropy = -(m * np.log(m) + (1 - m) * np.log(1 - m))
    hard = -(share * np.log(m) + (1 - share) * np.log(1 - m))
    found = float(model.compute_loss(x=inputs, y=labels, y_pred=model(inputs)))
    assert found == pytest.approx(hard + 2 * entropy, rel=1e-5)
    with pytest.raises(UserError, match="loss self_ensemble: `over: branches` needs a backbone with several logits"):
        build_model(workbench.assets, ModelConfig(loss=over))
    with pytest.raises(UserError, match="interaction mlp has one; take `over: passes`"):
        changed(Experiment(preset="mlp"), ["model.loss={type: tri_bce, over: branches}"])


def test_an_auxiliary_loss_is_part_of_training_only(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUXILIARY_LOSSES, "norm", Norm)
    inputs, labels = batch(workbench), np.array([[1.0], [0], [0], [1], [0], [0]], np.float32)
    model = build_model(workbench.assets, ModelConfig(auxiliary=({"type": "norm"},)))
    (own,) = model.scorer.auxiliary_losses
    loss = float(model.compute_loss(inputs, labels, model(inputs, training=True)))
    without = float(model.compute_loss(inputs, labels, model(inputs)))
    assert not model.losses, "nothing is added outside training"
    fields = model.scorer._fields(*_sides(model, inputs), None, False)[0]
    assert loss == pytest.approx(without + float(ops.mean(ops.square(fields))), rel=1e-6)
    model.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=True)
    model.train_on_batch(inputs, labels)
    assert float(own.level) < 1.0
    for fold in (True, False):
        served = served_scorer(model, fold)
        assert own.level.path not in {weight.path for weight in served.weights}
        assert len(served.weights) == len(model.scorer.weights) - 1
        packed = dict(zip(("state", "candidate", "context"), _sides(model, inputs), strict=True))
        np.testing.assert_array_equal(served(packed, training=False), model(inputs))
    with pytest.raises(UserError, match=r"auxiliary: unknown type 'norms'\. Allowed: .*norm"):
        changed(Experiment(preset="mlp"), ["model.auxiliary=[norms]"])


def _sides(model: RankingModel, inputs: dict[str, Any]) -> tuple[Any, Any, Any]:
    state = model.user_tower(model._pick("user", inputs))
    return state, model._pick("candidate", inputs), model.scorer._context(model._pick("context", inputs))
