import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2

from pipeline.evaluation import (
    BEAM_MODULES,
    DEFAULT_SLICES,
    blessing_reasons,
    eval_config,
    load_slices,
)
from tests.pipeline.evaluator_run import Data, evaluate, make_data
from tfctr.errors import UserError
from tfctr.metrics import auc, copc, ece, gauc, logloss, tfma_gauc
from tfctr.training.demands import Demand, Evaluation

SLICES = ["gender", "hour", "item_popularity", "age"]


def served_scores(directory, data, model="model"):
    """The probabilities of a SavedModel for the examples of the file, in the order of the rows."""
    serve = tf.saved_model.load(str(directory / model / "Format-Serving")).signatures["serving_default"]
    records = tf.data.TFRecordDataset(str(directory / "examples" / "Split-eval" / "data-0.gz"), "GZIP")
    scores = serve(examples=tf.constant(list(records.as_numpy_iterator())))["probabilities"].numpy()
    assert scores.shape == data["label"].shape
    return scores


def check_rows(rows, data, scores, weights=None, baseline=None):
    """Compares every metric of every slice with NumPy."""
    assert rows[0].key == ()
    assert [row.name for row in rows] == [
        "overall",
        "age=0",
        "age=1",
        "age=2",
        "gender=F",
        "gender=M",
        "hour=0",
        "hour=1",
        "hour=2",
        "item_popularity=head",
        "item_popularity=tail",
    ]
    for row in rows:
        chosen = np.ones(scores.shape, bool)
        for column, value in row.key:
            chosen = data[column].astype("U") == value
        for metrics, probabilities in ((row.metrics, scores), (row.baseline, baseline)):
            if probabilities is None:
                assert metrics == {}
                continue
            mine = data["label"][chosen], probabilities[chosen]
            weight = None if weights is None else weights[chosen]
            grouped = gauc(*mine, data["user_id"][chosen], weights=weight)
            expected = {
                "auc": auc(*mine, weight),
                "gauc": grouped.value,
                "gauc_coverage": grouped.coverage,
                "gauc_groups": grouped.groups_used,
                "gauc_groups_skipped": grouped.groups_skipped,
                "gauc_ungrouped": grouped.ungrouped,
                "logloss": logloss(*mine, weight),
                "copc": copc(*mine, weight),
                "ece": ece(*mine, weight),
                "calibration": 1 / copc(*mine, weight),
                "examples": chosen.sum() if weight is None else (weight > 0).sum(),
            }
            assert metrics.keys() == expected.keys()
            for name, value in expected.items():
                assert metrics[name] == pytest.approx(value, abs=1e-9, rel=1e-9), (row.name, name)


@pytest.mark.e2e
def test_metrics_of_every_slice_equal_numpy_and_open_with_tfma(tmp_path):
    data = make_data()
    outcome = evaluate(tmp_path, data, eval_config(Evaluation(), slices=SLICES), scale=1.0)
    assert outcome.blessed
    assert blessing_reasons(outcome.evaluation) == []
    check_rows(load_slices(outcome.evaluation), data, served_scores(tmp_path, data))
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(outcome.evaluation)
    by_slice = {key: metrics[""][""] for key, metrics in result.slicing_metrics}
    scores = served_scores(tmp_path, data)
    assert by_slice[()]["gauc"]["doubleValue"] == gauc(data["label"], scores, data["user_id"]).value
    assert (("hour", "1"),) in by_slice


@pytest.mark.e2e
def test_a_model_as_good_as_the_blessed_one_is_blessed_with_weights(tmp_path):
    data = make_data(seed=1)
    demand = Demand(column="hour", metric="auc", minimum=0.5)
    config = eval_config(Evaluation(max_auc_fall=0.005, demands=(demand,)), slices=SLICES, weight="weight")
    outcome = evaluate(tmp_path, data, config, scale=1.0, baseline=1.5)
    assert blessing_reasons(outcome.evaluation) == []
    assert outcome.blessed
    scores, baseline = served_scores(tmp_path, data), served_scores(tmp_path, data, "blessed_model")
    check_rows(load_slices(outcome.evaluation), data, scores, data["weight"], baseline)


@pytest.mark.e2e
def test_a_worse_model_is_refused_in_words(tmp_path):
    data = make_data()
    evaluation = Evaluation(
        min_auc=0.1,
        min_gauc=0.4,
        max_auc_fall=0.005,
        max_gauc_fall=0.005,
        demands=(
            Demand(column="gender", value="F", metric="auc", minimum=0.6),
            Demand(column="item_popularity", metric="gauc", max_fall=0.1),
            Demand(column="hour", value="2", metric="logloss", maximum=0.5),
            Demand(column="hour", value="23", metric="gauc", minimum=0.5),
            Demand(metric="calibration", maximum=0.1),
        ),
    )
    config = eval_config(evaluation, slices=SLICES)
    outcome = evaluate(tmp_path, data, config, scale=-1.0, baseline=1.0)
    assert not outcome.blessed
    reasons = blessing_reasons(outcome.evaluation)
    rows = {row.name: row for row in load_slices(outcome.evaluation)}
    overall = rows["overall"]
    assert set(reasons) == {
        f"overall: gauc is {overall.metrics['gauc']:.4f}; at least 0.4000 is needed",
        fell(overall, "auc", "0.0050"),
        fell(overall, "gauc", "0.0050"),
        f"gender=F: auc is {rows['gender=F'].metrics['auc']:.4f}; at least 0.6000 is needed",
        fell(rows["item_popularity=head"], "gauc", "0.1000"),
        fell(rows["item_popularity=tail"], "gauc", "0.1000"),
        f"hour=2: logloss is {rows['hour=2'].metrics['logloss']:.4f}; at most 0.5000 is allowed",
        "hour=23: the experiment makes a demand on this slice, but it has no examples",
        f"overall: calibration is {overall.metrics['calibration']:.4f}; at most 0.1000 is allowed",
    }
    # The reasons about all examples come first.
    assert [reason.startswith("overall") for reason in reasons[:4]] == [True] * 4


def fell(row, metric, allowed):
    fall = row.baseline[metric] - row.metrics[metric]
    return f"{row.name}: {metric} fell by {fall:.4f} against the latest blessed model; {allowed} is allowed"


@pytest.mark.e2e
def test_an_undefined_metric_is_no_blessing(tmp_path):
    data = make_data(60)
    data["label"][:] = 0
    outcome = evaluate(tmp_path, data, eval_config(Evaluation(), slices=[]), scale=1.0)
    assert not outcome.blessed
    assert [reason.split(":")[0] for reason in blessing_reasons(outcome.evaluation)] == ["overall"] * 2
    assert all("NaN" in reason for reason in blessing_reasons(outcome.evaluation))


def test_config_has_the_default_slices_and_demands_overall_only():
    config = eval_config(Evaluation())
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], *([name] for name in DEFAULT_SLICES)]
    for metric in config.metrics_specs[0].metrics:
        # `threshold` would apply to every slice.
        assert not metric.HasField("threshold")
        for demand in metric.per_slice_thresholds:
            assert [str(spec) for spec in demand.slicing_specs] == [""]
    assert not config.metrics_specs[0].query_key
    assert BEAM_MODULES == ("tfctr.metrics.tfma_gauc",)
    # TFX passes the configuration on as JSON.
    assert json_format.Parse(json_format.MessageToJson(config), config_pb2.EvalConfig()) == config


def test_the_columns_of_the_demands_are_sliced_by():
    demands = Demand(column="age", minimum=0.5), Demand(column="hour", value="3", minimum=0.5)
    config = eval_config(Evaluation(demands=demands), slices=["hour"])
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], ["hour"], ["age"]]


def test_without_groups_nothing_is_called_gauc():
    config = eval_config(Evaluation(), group="")
    names = [json.loads(metric.config)["metric"] for metric in config.metrics_specs[0].metrics if metric.config]
    assert names == ["auc", "logloss", "copc", "ece", "examples", "calibration"]
    assert "gauc" not in str(config).replace(tfma_gauc.__name__, "")
    for asked in (Evaluation(min_gauc=0.6), Evaluation(demands=(Demand(column="hour", metric="gauc", minimum=0.6),))):
        with pytest.raises(UserError, match="a demand on gauc needs a `group` in the feature file"):
            eval_config(asked, group="")


@pytest.mark.parametrize("read", [load_slices, blessing_reasons])
def test_a_directory_without_an_evaluation_is_an_error(read, tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        read(str(tmp_path))


@pytest.mark.e2e
@pytest.mark.parametrize("group", ["user_id", "session", ""])
def test_missing_weights_and_groups(group, tmp_path):
    """`session` is the user as a string, which no model reads."""
    data = make_data(300)
    generator = np.random.default_rng(5)
    lost = generator.random(300) < 0.2
    users = data["user_id"].astype(object)
    users[lost] = None
    sessions = np.array([None if gone else b"s%d" % user for gone, user in zip(lost, users, strict=True)], object)
    weights = data["weight"].astype(object)
    weights[generator.random(300) < 0.3] = None
    data = Data({**data.columns, "user_id": users, "session": sessions, "weight": weights})
    config = eval_config(Evaluation(), slices=["gender"], group=group, weight="weight")
    outcome = evaluate(tmp_path, data, config, scale=1.0)
    assert outcome.blessed, blessing_reasons(outcome.evaluation)
    scores = served_scores(tmp_path, data)
    filled = np.where(np.equal(weights, None), 1.0, weights).astype(float)
    for row in load_slices(outcome.evaluation):
        chosen = np.ones(300, bool) if row.key == () else data["gender"] == row.key[0][1].encode()
        mine = data["label"][chosen], scores[chosen]
        assert row.metrics["auc"] == pytest.approx(auc(*mine, filled[chosen]), abs=1e-9)
        assert row.metrics["logloss"] == pytest.approx(logloss(*mine, filled[chosen]), abs=1e-9)
        assert row.metrics["examples"] == (filled[chosen] > 0).sum()
        if not group:
            assert not [name for name in row.metrics if "gauc" in name]
            continue
        expected = gauc(*mine, np.where(lost, -(2**63), users)[chosen].astype(int), weights=filled[chosen])
        assert row.metrics["gauc"] == pytest.approx(expected.value, abs=1e-9)
        assert row.metrics["gauc_ungrouped"] == (lost & (filled > 0))[chosen].sum() == expected.ungrouped
