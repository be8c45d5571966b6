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
from tfctr.interactions import INTERACTIONS, Interaction
from tfctr.interests import INTERESTS, Interest, SequenceFacts
from tfctr.models import ModelConfig, RankingModel, build_model

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
    assert (None, *fields.shape[1:]) == Probe.seen["shapes"]["context"]["fields"]
    assert fields.shape[1:] == (3, 8), "hour, weekday, time since the newest event"


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
    expected = np.zeros((6, 3))
    for name, table in first_order.tables.items():
        weights = np.asarray(table.embeddings)[inputs[name]][..., 0]
        if name == "genres":
            weights = (weights * (inputs[name] != 0)).sum(-1)
        expected += weights if weights.ndim == 2 else weights[:, None]
    for name, slope in first_order.slopes.items():
        expected += inputs[name] * float(np.asarray(slope.kernel)[0, 0])
    assert {"user_id", "item_id", "genres", "timestamp_hour"} <= set(first_order.tables)
    assert not any(name.startswith(("history", "position", "item_vector")) for name in first_order.tables)
    np.testing.assert_allclose(model(inputs).numpy(), expected, rtol=1e-5, atol=1e-5)
    state = model.user_tower(model._pick("user", inputs))
    assert state["user/linear"].shape == (6,)
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    np.testing.assert_allclose(compiled(inputs).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_an_interest_with_positions_gets_as_many_as_the_history_has(workbench: Workbench) -> None:
    for kind in ("sasrec", "hstu"):
        model = build_model(workbench.assets, ModelConfig(interests=({"type": kind},)))
        assert model.scorer.interests["history"].max_length == workbench.file.sequences["history"].max_length
        model = build_model(workbench.assets, ModelConfig(interests=({"type": kind, "max_length": 99},)))
        assert model.scorer.interests["history"].max_length == 99
