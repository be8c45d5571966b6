import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import roc_auc_score

from tests.golden_cases import GoldenCase, compare, load
from tests.metrics import naive
from tests.metrics.strategies import impressions
from tfctr.metrics import (
    auc,
    copc,
    ece,
    gauc,
    group_auc,
    logloss,
    normalized_entropy,
    relative_improvement,
)
from tfctr.metrics.table import METRICS

WEIGHTINGS = ["impressions", "clicks", "uniform"]


def close(value, expected):
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def golden(case: GoldenCase, name: str, value):
    compare(case, f"out/{name}", value, atol=1e-9)


@pytest.mark.golden
@pytest.mark.parametrize(
    "name", ["auc_constant", "auc_low_rate", "auc_single_class", "auc_worked_tie", "gauc_mixed", "gauc_ties"]
)
def test_golden_auc(name):
    case = load(f"metric_{name}")
    golden(case, "auc", auc(case["in/label"], case["in/score"]))
    if "out/logloss" in case.tensors:
        golden(case, "logloss", logloss(case["in/label"], case["in/score"], clip=np.finfo(np.float64).eps))


@pytest.mark.golden
def test_golden_weighted_auc():
    case = load("metric_auc_weighted")
    assert (case["in/weight"] == 0).any()
    golden(case, "auc", auc(case["in/label"], case["in/score"], case["in/weight"]))
    golden(case, "auc_unweighted", auc(case["in/label"], case["in/score"]))


@pytest.mark.golden
@pytest.mark.parametrize("name", ["mixed", "ties", "no_valid_group"])
def test_golden_gauc(name):
    case = load(f"metric_gauc_{name}")
    rows = case["in/label"], case["in/score"], case["in/group"]
    golden(case, "gauc", gauc(*rows).value)
    golden(case, "average_auc", gauc(*rows, weighting="uniform").value)
    golden(case, "logloss", logloss(*rows[:2], clip=np.finfo(np.float64).eps))
    table = group_auc(*rows)
    golden(case, "group_id", table.groups)
    golden(case, "group_auc", table.auc)
    golden(case, "group_size", table.impressions)
    result = gauc(*rows)
    valid = ~np.isnan(case["out/group_auc"])
    assert (result.groups_used, result.groups_skipped) == (valid.sum(), (~valid).sum())
    close(result.coverage, case["out/group_size"][valid].sum() / case["out/group_size"].sum())


@pytest.mark.golden
def test_golden_logloss():
    case = load("metric_logloss")
    rows = case["in/label"], case["in/score"]
    golden(case, "logloss_float64_eps", logloss(*rows, clip=np.finfo(np.float64).eps))
    golden(case, "logloss_clip_1e_7", logloss(*rows))
    golden(case, "logloss_clip_1e_7_weighted", logloss(*rows, case["in/weight"]))
    golden(case, "logloss_skip_edge", logloss(case["in/label"][4:], case["in/score"][4:]))


@settings(max_examples=100, deadline=None)
@given(rows=impressions())
def test_auc_and_gauc_equal_the_double_loop(rows):
    close(auc(rows.labels, rows.scores), naive.auc(rows.labels, rows.scores))
    close(auc(rows.labels, rows.scores, rows.weights), naive.auc(rows.labels, rows.scores, rows.weights))
    for weighting in WEIGHTINGS:
        for weights in (None, rows.weights):
            result = gauc(rows.labels, rows.scores, rows.groups, weighting, weights)
            expected = naive.gauc(rows.labels, rows.scores, rows.groups, weighting, weights)
            close(result.value, expected[0])
            assert (result.groups_used, result.groups_skipped) == expected[1:3]
            close(result.coverage, expected[3])


def test_order_monotone_maps_and_group_names_do_not_matter():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 300), generator.integers(0, 20, 300) / 20
    groups, weights = generator.integers(0, 30, 300), generator.random(300)
    order = generator.permutation(300)
    expected = gauc(labels, scores, groups, weights=weights)
    shuffled = gauc(labels[order], np.exp(scores[order]), [f"u{g}" for g in groups[order]], weights=weights[order])
    close(shuffled.value, expected.value)
    close(gauc(labels, scores, groups.astype("S"), weights=weights).value, expected.value)
    close(ece(labels[order], scores[order], weights[order]), ece(labels, scores, weights))


def test_a_weight_of_two_is_the_row_twice_and_zero_is_no_row():
    labels, scores, groups = [1, 0, 1, 0, 0], [0.5, 0.5, 0.2, 0.9, 0.1], [1, 1, 1, 1, 2]
    weights = [2, 1, 1, 1, 0]
    twice = [0, 0, 1, 2, 3]
    for metric in (logloss, copc, ece, normalized_entropy, auc):
        rows = [labels[i] for i in twice], [scores[i] for i in twice]
        close(metric(labels, scores, weights), metric(*rows))
    result = gauc(labels, scores, groups, weights=weights)
    assert (result.groups_used, result.groups_skipped, result.coverage) == (1, 0, 1.0)


def test_hand_computed_calibration():
    labels, scores = [0, 1, 1, 1], [0.1, 0.3, 0.6, 0.6]
    close(copc(labels, scores), 3 / 1.6)
    # Two bins of two rows: |1/2 - 0.4/2| and |1 - 0.6|, each half of the data.
    close(ece(labels, scores, bins=2), 0.5 * 0.3 + 0.5 * 0.4)
    assert np.isnan(copc([0, 1], [0.0, 0.0]))
    close(normalized_entropy([0, 1, 0, 1], [0.5] * 4), 1.0)
    close(relative_improvement(0.7, 0.6), 100.0)
    assert np.isnan(relative_improvement(0.7, 0.5))


def test_undefined_values_are_nan():
    for metric in (auc, logloss, copc, ece, normalized_entropy):
        assert np.isnan(metric([], []))
    assert np.isnan(auc([1, 1], [0.1, 0.2]))
    result = gauc([], [], [])
    assert np.isnan(result.value)
    assert np.isnan(result.coverage)
    result = gauc([1, 0], [0.1, 0.2], ["a", "b"])
    assert np.isnan(result.value)
    assert (result.groups_used, result.groups_skipped, result.coverage) == (0, 2, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 2], [0.1, 0.2], [1, 1]), "`labels` must be 0 or 1. Received: .*2.* in row 1"),
        (([0, np.nan], [0.1, 0.2], [1, 1]), "`labels` must be 0 or 1"),
        (([0, 1], [np.nan, 0.2], [1, 1]), "`scores` must not be NaN. Received: 1 NaN, the first in row 0"),
        (([0, 1], [0.2], [1, 1]), "`scores` must have one value per label"),
        (([0, 1], [0.2, 0.3], [1]), "`groups` must have one value per label"),
        (([0, 1], [0.2, 0.3], [1, 1], "clicks", [1, -1]), "`weights` must be finite and not negative"),
        (([0, 1], [0.2, 0.3], [1, 1], "clicks", [1]), "`weights` must have one value per label"),
        (([0, 1], [0.2, 0.3], [1, 1], "sessions"), "`weighting` must be one of impressions, clicks, uniform"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gauc(*arguments)


@pytest.mark.slow
def test_a_million_rows_are_quick_and_right():
    generator = np.random.default_rng(1)
    rows = 1_000_000
    groups, scores = generator.integers(0, 6000, rows), generator.random(rows).astype(np.float32)
    labels = (generator.random(rows) < scores * 0.3).astype(np.int64)
    start = time.process_time()
    value = gauc(labels, scores, groups).value
    overall = auc(labels, scores)
    assert time.process_time() - start < 5.0
    close(overall, roc_auc_score(labels, scores))
    assert abs(value - overall) < 0.01


def test_importing_the_reference_needs_numpy_only():
    code = (
        "import sys; import tfctr.metrics, tfctr.metrics.reference; "
        "bad = {'tensorflow', 'keras', 'apache_beam', 'tensorflow_model_analysis'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "column",
    [
        np.array([1, 1, 2, 2, -(2**63), -(2**63)]),
        np.array([1.0, 1.0, 2.0, 2.0, np.nan, np.nan]),
        np.array(["a", "a", "b", "b", "", ""]),
        np.array([b"a", b"a", b"b", b"b", b"", b""]),
        np.array([b"a", b"a", b"b", b"b", b"", b""], object),
    ],
    ids=["integers", "floats", "strings", "bytes", "objects"],
)
def test_rows_without_a_group_are_left_out_and_counted(column):
    # As one group, the last two rows would have an AUC of 0.
    found = gauc([0, 1, 0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.1, 0.2], column, weights=[1, 1, 1, 1, 0.5, 3.5])
    assert (found.value, found.groups_used, found.groups_skipped, found.ungrouped) == (1.0, 2, 0, 2)
    assert found.coverage == 0.5
    # A row of weight zero is no row.
    assert gauc([0, 1, 1], [0.1, 0.2, 0.3], column[3:], weights=[1, 0, 1]).ungrouped == 1


def test_rows_without_weight_change_nothing():
    rows = {"labels": [0, 1, 1, 0], "scores": [0.2, 0.4, 0.3, 0.3], "weights": [1, 2, 3, 4]}
    more = {"labels": [1, 0], "scores": [0.01, 0.99], "weights": [0, 0]}
    both = {name: rows[name] + more[name] for name in rows}
    for metric in METRICS.values():
        groups, other = ([1, 1, 2, 2], [1, 3]) if metric.needs_group else (None, None)
        expected = metric.measure(**rows, groups=groups)
        assert metric.measure(**both, groups=groups + other if metric.needs_group else None) == expected
        nothing = metric.measure(**more, groups=other)
        assert np.isnan(nothing[0]) or (metric.name == "examples" and nothing == (0,))
