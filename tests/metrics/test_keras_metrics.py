import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from tests.golden_cases import load
from tests.metrics.strategies import impressions
from tfctr.metrics import auc, gauc
from tfctr.metrics.keras_metrics import GAUC, ExactAUC


def batches(count, size=7):
    return [slice(start, start + size) for start in range(0, count, size)]


@settings(max_examples=40, deadline=None)
@given(rows=impressions())
def test_batches_give_the_reference_value(rows):
    for weighting in ("impressions", "clicks", "uniform"):
        metric, overall = GAUC(weighting), ExactAUC()
        for batch in batches(len(rows.labels)):
            metric.update_state(rows.labels[batch], rows.scores[batch], rows.groups[batch], rows.weights[batch])
            overall.update_state(rows.labels[batch], rows.scores[batch], rows.weights[batch])
        expected = gauc(rows.labels, rows.scores, rows.groups, weighting, rows.weights).value
        assert float(metric.result()) == pytest.approx(expected, abs=1e-9, nan_ok=True)
        expected = auc(rows.labels, rows.scores, rows.weights)
        assert float(overall.result()) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["mixed", "ties", "no_valid_group"])
def test_golden(name):
    case = load(f"metric_gauc_{name}")
    metric, overall = GAUC(), ExactAUC()
    for batch in batches(case["in/label"].size):
        metric.update_state(case["in/label"][batch], case["in/score"][batch], case["in/group"][batch])
        overall.update_state(case["in/label"][batch], case["in/score"][batch])
    assert float(metric.result()) == pytest.approx(float(case["out/gauc"]), abs=1e-9, nan_ok=True)
    assert float(overall.result()) == pytest.approx(float(case["out/auc"]), abs=1e-9)


def rows(count=600):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 3)).astype(np.float32)
    labels = (generator.random(count) < 1 / (1 + np.exp(-x[:, 0]))).astype(np.float32)
    return x, labels, generator.integers(0, 25, count), generator.choice([0.0, 1.0, 3.0], count).astype(np.float32)


class Grouped(keras.Model):
    """A model that feeds its metrics as the ranking model does."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, activation="sigmoid")
        self.grouped, self.overall = GAUC(), ExactAUC()

    def call(self, inputs):
        return self.dense(inputs["x"])[:, 0]

    @property
    def metrics(self):
        return [self.grouped, self.overall]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.losses.binary_crossentropy(y[:, None], y_pred[:, None]))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.grouped.update_state(y, y_pred, x["user"], sample_weight)
        self.overall.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()


@pytest.mark.slow
@pytest.mark.parametrize("names", [np.asarray, lambda users: np.array([f"u{user}" for user in users])])
def test_fit_and_evaluate_in_graph_mode(names):
    x, labels, users, weights = rows()
    model = Grouped()
    model.compile(optimizer="sgd", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(({"x": x, "user": names(users)}, labels, weights)).batch(64)
    model.fit(data, epochs=2, verbose=0)
    for _ in range(2):
        result = model.evaluate(data, return_dict=True, verbose=0)
        scores = model({"x": x}).numpy()
        assert result["gauc"] == pytest.approx(gauc(labels, scores, users, weights=weights).value, abs=1e-5)
        assert result["auc"] == pytest.approx(auc(labels, scores, weights), abs=1e-5)
        # The metric is reset between epochs and calls, so it holds only the rows of one pass.
        assert model.grouped._buffer.rows == x.shape[0]


def test_the_value_at_the_end_of_a_pass_is_exact_though_the_one_in_the_graph_lags():
    x, labels, users, _ = rows()
    scores = np.round(1 / (1 + np.exp(-x[:, 0])), 2)
    metric = GAUC()

    @tf.function
    def step(labels, scores, users):
        metric.update_state(labels, scores, users)
        return metric.result()

    # Inside the graph the value is computed at 500 rows and next at 600, so at 550 rows it lags.
    for batch in batches(550, 50):
        lagging = step(labels[batch], scores[batch], users[batch])
    assert lagging.dtype == tf.float64
    assert float(lagging) == gauc(labels[:500], scores[:500], users[:500]).value
    assert float(metric.result()) == gauc(labels[:550], scores[:550], users[:550]).value != float(lagging)


def test_reset_nan_scores_bad_labels_and_config():
    metric = GAUC("clicks", name="g")
    assert np.isnan(float(metric.result()))
    metric.update_state([1, 0], [np.nan, 0.5], [1, 1])
    assert np.isnan(float(metric.result()))
    metric.reset_state()
    metric.update_state([[1], [0]], [[0.7], [0.5]], [[1], [1]])
    assert float(metric.result()) == 1.0
    metric.update_state([0.5], [0.5], [1])
    with pytest.raises(ValueError, match="`labels` must be 0 or 1"):
        metric.result()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert (copy.name, copy.weighting) == ("g", "clicks")
    with pytest.raises(ValueError, match="`weighting` must be one of"):
        GAUC("sessions")
