import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.evaluators import metrics_plots_and_validations_evaluator as evaluator
from tensorflow_model_analysis.metrics.calibration import Calibration
from tensorflow_model_analysis.metrics.metric_types import StandardMetricInputs
from tensorflow_model_analysis.proto import config_pb2

from tests.golden_cases import load
from tests.metrics.strategies import impressions
from tfctr.metrics import auc, copc, ece, gauc, logloss
from tfctr.metrics.table import METRICS
from tfctr.metrics.tfma_gauc import COPC, ECE, GAUC, ExactAUC, LogLoss, TableMetric

pytestmark = pytest.mark.slow

CONFIG = config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec(label_key="label", prediction_key="probabilities")])


def extracts(label, score, group, weight=1.0, slices=((),)):
    """One example as TFMA's extractors leave it, with features that no metric asks for."""
    return {
        constants.LABELS_KEY: np.array([label]),
        constants.PREDICTIONS_KEY: np.array([score]),
        constants.EXAMPLE_WEIGHTS_KEY: np.array([weight]),
        constants.FEATURES_KEY: {"user_id": np.array([group]), "history_item_id": np.arange(50), "title": [b"x"]},
        constants.SLICE_KEY_TYPES_KEY: np.array([None, *slices], dtype=object)[1:],
        constants.SLICE_KEYS_KEY: None,
    }


def computed(metrics, examples, cuts=(), weighted=True):
    """Combine the examples in the bundles between `cuts`, pickled as between workers, and derive all metrics."""
    computations = [
        computation
        for metric in metrics
        for computation in metric.computations(eval_config=CONFIG, model_names=[""], example_weighted=weighted)
    ]
    values = {}
    for computation in computations[::2]:
        combiner = pickle.loads(pickle.dumps(computation.combiner))
        parts = []
        for start, end in zip([0, *cuts], [*cuts, len(examples)], strict=True):
            part = combiner.create_accumulator()
            for example in examples[start:end]:
                for row in computation.preprocessors[0].process(example):
                    part = combiner.add_input(part, row)
            parts.append(pickle.loads(pickle.dumps(combiner.compact(part))))
        values.update(combiner.extract_output(combiner.merge_accumulators(parts)))
    results = {}
    for computation in computations[1::2]:
        results.update({key.name: value for key, value in computation.result(values).items()})
    return results


GAUC_NAMES = {"gauc", "gauc_coverage", "gauc_groups", "gauc_groups_skipped", "gauc_ungrouped"}
ALL = [ExactAUC("user_id"), LogLoss("user_id"), COPC("user_id"), ECE("user_id")]


@settings(max_examples=40, deadline=None)
@given(rows=impressions(), data=st.data())
def test_any_split_into_workers_gives_the_reference_value(rows, data):
    count = len(rows.labels)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    columns = rows.labels, rows.scores, rows.groups, rows.weights
    examples = [extracts(*row) for row in zip(*columns, strict=True)]
    grouped = [
        GAUC("user_id", weighting=weighting, name=weighting) for weighting in ("impressions", "clicks", "uniform")
    ]
    results = computed([*grouped, *ALL], examples, cuts)
    for weighting in ("impressions", "clicks", "uniform"):
        expected = gauc(*columns[:3], weighting, rows.weights)
        close(results[weighting], expected.value)
        close(results[f"{weighting}_coverage"], expected.coverage)
        counts = results[f"{weighting}_groups"], results[f"{weighting}_groups_skipped"]
        assert counts == (expected.groups_used, expected.groups_skipped)
    for metric in (auc, logloss, copc, ece):
        close(results[metric.__name__], metric(rows.labels, rows.scores, rows.weights))
    # Without weights the weight column is not read.
    close(computed(grouped[:1], examples, cuts, weighted=False)["impressions"], gauc(*columns[:3]).value)


def close(value, expected):
    assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["mixed", "ties", "no_valid_group"])
def test_golden(name):
    case = load(f"metric_gauc_{name}")
    rows = zip(case["in/label"], case["in/score"], case["in/group"], strict=True)
    results = computed([GAUC("user_id"), ExactAUC("user_id")], [extracts(*row) for row in rows], cuts=(10, 40))
    close(results["gauc"], float(case["out/gauc"]))
    close(results["auc"], float(case["out/auc"]))


@pytest.mark.golden
def test_golden_weighted_auc_and_logloss():
    case = load("metric_auc_weighted")
    rows = zip(case["in/label"], case["in/score"], [0] * 80, case["in/weight"], strict=True)
    close(computed(ALL[:1], [extracts(*row) for row in rows])["auc"], float(case["out/auc"]))
    case = load("metric_logloss")
    rows = zip(case["in/label"], case["in/score"], [0] * 24, case["in/weight"], strict=True)
    results = computed(ALL, [extracts(*row) for row in rows])
    close(results["logloss"], float(case["out/logloss_clip_1e_7_weighted"]))


def test_only_label_score_group_and_weight_are_kept():
    preprocessor = GAUC("user_id").computations(CONFIG, model_names=[""], example_weighted=True)[0].preprocessors[0]
    assert list(preprocessor.process(extracts(1, 0.25, b"u7", 2.0))) == [(1, 0.25, b"u7", 2.0)]


def test_slices_through_users_on_beam():
    generator = np.random.default_rng(0)
    users, hours = generator.integers(0, 30, 400), generator.integers(0, 5, 400)
    scores, labels = generator.integers(0, 10, 400) / 10, generator.integers(0, 2, 400)
    examples = [
        extracts(label, score, user, slices=[(), (("hour", int(hour)),)])
        for label, score, user, hour in zip(labels, scores, users, hours, strict=True)
    ]
    spec = config_pb2.MetricsSpec(
        metrics=[
            config_pb2.MetricConfig(class_name=name, module="tfctr.metrics.tfma_gauc", config='{"group": "user_id"}')
            for name in ("GAUC", "ExactAUC")
        ]
    )
    config = config_pb2.EvalConfig(model_specs=CONFIG.model_specs, metrics_specs=[spec])

    def check(sliced):
        found = {key: {metric.name: value for metric, value in metrics.items()} for key, metrics in sliced}
        assert len(found) == 6
        for key, metrics in found.items():
            rows = hours == key[0][1] if key else slice(None)
            close(metrics["gauc"], gauc(labels[rows], scores[rows], users[rows]).value)
            close(metrics["auc"], auc(labels[rows], scores[rows]))
            # The gathered rows themselves are never written.
            assert set(metrics) == {*GAUC_NAMES, "auc"}

    with beam.Pipeline() as pipeline:
        evaluation = (
            pipeline
            | beam.Create(examples)
            | evaluator.MetricsPlotsAndValidationsEvaluator(eval_config=config).ptransform
        )
        assert_that(evaluation[constants.METRICS_KEY], check)


@settings(max_examples=20, deadline=None)
@given(rows=impressions())
def test_calibration_is_that_of_tfma(rows):
    examples = [extracts(*row) for row in zip(rows.labels, rows.scores, rows.groups, rows.weights, strict=True)]
    computations = Calibration().computations(eval_config=CONFIG, model_names=[""], example_weighted=True)
    combiner = computations[0].combiner
    total = combiner.create_accumulator()
    for example in examples:
        total = combiner.add_input(total, StandardMetricInputs(example))
    (expected,) = computations[1].result(combiner.extract_output(total)).values()
    close(computed([TableMetric(metric="calibration")], examples)["calibration"], expected)


def test_every_metric_of_the_table_is_made_by_its_name():
    rows = [extracts(1, 0.5, 1), extracts(0, 0.25, 1)]
    for name, metric in METRICS.items():
        results = computed([TableMetric("user_id", metric=name)], rows)
        assert set(results) == {name, *(f"{name}_{end}" for _, end in metric.columns.values())}


def test_nan_scores_give_nan_metrics():
    results = computed([GAUC("user_id"), *ALL], [extracts(1, np.nan, 1), extracts(0, 0.5, 1)])
    assert set(results) == {*GAUC_NAMES, "auc", "logloss", "copc", "ece"}
    assert np.isnan(list(results.values())).all()


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="query_key must be empty"):
        GAUC("user_id").computations(CONFIG, model_names=[""], query_key="user_id")
    with pytest.raises(ValueError, match="`weighting` must be one of"):
        GAUC("user_id", weighting="sessions")
    with pytest.raises(ValueError, match="`group` must name the feature that gauc groups by"):
        GAUC()
    with pytest.raises(ValueError, match=r"no such metric\. Allowed: auc, .* Received: 'ndcg'"):
        TableMetric(metric="ndcg")
    with pytest.raises(ValueError, match=r"ece has no such option\. Allowed: bins\. Received: clip"):
        ECE(clip=0.1)


@pytest.mark.parametrize(
    "metric", [GAUC("user_id", weighting="clicks", name="g"), ECE("user_id", bins=5), LogLoss(clip=1e-3), *ALL]
)
def test_config_round_trip(metric):
    copy = type(metric).from_config(metric.get_config())
    assert copy.get_config() == metric.get_config()
    rows = [extracts(1, 0.5, 1), extracts(0, 0.25, 1)]
    assert computed([copy], rows) == computed([metric], rows)


@pytest.mark.parametrize("names", [[1, 1, 2, 2, None, -(2**63)], [b"a", b"a", b"b", b"b", None, b""]])
@pytest.mark.parametrize("cuts", [(), (1, 5), (4,), (2, 4, 5)])
def test_rows_without_a_group_are_left_out_and_counted(names, cuts):
    rows = [extracts(*row) for row in zip([0, 1, 0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.1, 0.2], names, strict=True)]
    rows[4][constants.FEATURES_KEY]["user_id"] = None
    found = computed([GAUC("user_id"), ExactAUC("user_id")], rows, cuts)
    assert (found["gauc"], found["gauc_ungrouped"], found["gauc_groups"]) == (1.0, 2.0, 2.0)
    assert found["auc"] == auc([0, 1, 0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.1, 0.2])
    found = computed([GAUC("user_id")], rows[4:])
    assert np.isnan(found["gauc"])
    assert found["gauc_ungrouped"] == 2.0


def test_a_missing_weight_is_one():
    rows = [extracts(*row) for row in zip([0, 1, 1, 0], [0.2, 0.4, 0.3, 0.3], [1, 1, 2, 2], strict=True)]
    for row, weight in zip(rows, [np.array([2.0]), None, np.array([]), np.array([0.0])], strict=True):
        row[constants.FEATURES_KEY]["importance"] = weight
    del rows[1][constants.FEATURES_KEY]["importance"]
    metrics = [type(metric)("user_id", "importance") for metric in (GAUC("user_id"), *ALL)]
    found = computed(metrics, rows, weighted=False)
    mine = [0, 1, 1, 0], [0.2, 0.4, 0.3, 0.3]
    weights = [2.0, 1.0, 1.0, 0.0]
    close(found["gauc"], gauc(*mine, [1, 1, 2, 2], weights=weights).value)
    for metric in (auc, logloss, copc, ece):
        close(found[metric.__name__], metric(*mine, weights))
