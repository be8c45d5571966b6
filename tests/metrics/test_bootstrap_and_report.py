import numpy as np
import pytest

from tfctr.metrics import auc, bootstrap_difference, copc, ece, gauc, logloss, report


def rows(count=4000, users=200, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.random(count)
    labels = (generator.random(count) < truth).astype(np.int64)
    return labels, truth, generator.integers(0, users, count), generator


@pytest.mark.parametrize("metric", ["auc", "gauc"])
def test_a_better_model_is_seen_and_the_same_model_is_not(metric):
    labels, truth, users, generator = rows()
    worse = truth + generator.normal(0, 0.5, truth.size)
    result = bootstrap_difference(labels, worse, truth, users, metric, replicates=300)
    assert result.low > 0
    assert result.p_value < 0.01
    assert result.low < result.difference < result.high
    same = bootstrap_difference(labels, truth, truth, users, metric, replicates=50)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("weighting", ["impressions", "clicks", "uniform"])
@pytest.mark.parametrize("metric", ["auc", "gauc"])
def test_a_replicate_is_the_metric_of_the_resampled_rows(metric, weighting):
    labels, truth, users, generator = rows(300, 12)
    scores = np.round(truth, 1), np.round(truth + generator.normal(0, 0.3, 300), 1)
    weights = generator.choice([0.0, 0.5, 2.0], 300)
    result = bootstrap_difference(labels, *scores, users, metric, weighting, weights, replicates=1, seed=3)
    # Repeat the draw that the bootstrap makes. A user drawn several times counts as several users.
    names = np.unique(users[weights > 0])
    drawn = names[np.random.default_rng(3).integers(0, names.size, names.size)]
    picked = np.concatenate([np.flatnonzero(users == user) for user in drawn])
    copies = np.concatenate([np.full((users == user).sum(), copy) for copy, user in enumerate(drawn)])

    def value(score):
        if metric == "auc":
            return auc(labels[picked], score[picked], weights[picked])
        return gauc(labels[picked], score[picked], copies, weighting, weights[picked]).value

    assert result.low == pytest.approx(value(scores[1]) - value(scores[0]), abs=1e-12)


def test_the_seed_decides_and_bad_arguments_are_refused():
    labels, truth, users, generator = rows(500, 40)
    other = truth + generator.normal(0, 0.2, truth.size)
    first = bootstrap_difference(labels, truth, other, users, replicates=50, seed=1)
    assert first == bootstrap_difference(labels, truth, other, users, replicates=50, seed=1)
    assert first != bootstrap_difference(labels, truth, other, users, replicates=50, seed=2)
    for argument in ({"metric": "ndcg"}, {"replicates": 0}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(argument))}` must be"):
            bootstrap_difference(labels, truth, other, users, **argument)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(40):
        labels, truth, users, generator = rows(1000, 100, seed)
        # Two equally noisy scores: the true difference is zero.
        noisy = [truth + generator.normal(0, 0.5, truth.size) for _ in range(2)]
        result = bootstrap_difference(labels, *noisy, users, "auc", replicates=200, confidence=0.9, seed=seed)
        inside += result.low <= 0 <= result.high
    assert 31 <= inside <= 40


def test_no_valid_group_gives_nan():
    result = bootstrap_difference([1, 0], [0.1, 0.2], [0.2, 0.1], [1, 2], replicates=5)
    assert np.isnan([result.difference, result.low, result.high, result.p_value]).all()
    assert result.replicates == 0


def test_report_is_the_metrics_of_each_slice():
    labels, scores, users, generator = rows(600, 30)
    hours, genders = generator.integers(0, 4, 600), generator.choice([b"F", b"M"], 600)
    weights = generator.random(600)
    table = report(labels, scores, users, weights, {"hour": hours, "gender": genders})
    assert [(row.slice, row.value) for row in table] == [
        ("overall", ""),
        *[("hour", str(hour)) for hour in range(4)],
        ("gender", "F"),
        ("gender", "M"),
    ]
    for row, chosen in [(table[0], slice(None)), (table[2], hours == 1), (table[5], genders == b"F")]:
        mine = labels[chosen], scores[chosen], weights[chosen]
        grouped = gauc(*mine[:2], users[chosen], weights=mine[2])
        assert row.auc == auc(*mine)
        assert row.gauc == grouped.value
        assert (row.groups_used, row.coverage) == (grouped.groups_used, grouped.coverage)
        assert (row.logloss, row.copc, row.ece) == (logloss(*mine), copc(*mine), ece(*mine))
        assert row.calibration == pytest.approx(1 / row.copc, rel=1e-12)
        assert (row.examples, row.clicks) == (mine[0].size, mine[0].sum())
    with pytest.raises(ValueError, match="slice `hour` must have one value per label"):
        report(labels, scores, users, slices={"hour": hours[:5]})


def test_report_without_groups_has_nothing_that_needs_them():
    labels, scores, _, generator = rows(100, 10)
    hours = generator.integers(0, 2, 100)
    for row in report(labels, scores, None, slices={"hour": hours}):
        assert set(vars(row)) == {
            *("slice", "value", "examples", "clicks"),
            *("auc", "logloss", "copc", "ece", "calibration"),
        }


@pytest.mark.parametrize(
    ("values", "missing"),
    [([b"a", b"b"], b""), (["a", "b"], ""), ([1, 2], np.iinfo(np.int64).min), ([1.5, 2.5], np.nan)],
)
def test_a_row_without_a_value_is_in_no_slice(values, missing):
    labels, scores, users, _ = rows(90, 10)
    column = np.array([*values, missing] * 30, object if isinstance(missing, bytes) else None)
    table = report(labels, scores, users, slices={"place": column})
    assert [(row.slice, row.examples) for row in table] == [("overall", 90), ("place", 30), ("place", 30)]


def test_without_groups_the_bootstrap_draws_rows():
    labels, truth, _, generator = rows(300)
    scores = np.round(truth, 1), np.round(truth + generator.normal(0, 0.3, 300), 1)
    single = bootstrap_difference(labels, *scores, np.arange(300), "auc", replicates=20)
    assert bootstrap_difference(labels, *scores, None, "auc", replicates=20) == single
    # Rows without a group are no group: each is drawn by itself.
    assert bootstrap_difference(labels, *scores, np.full(300, b""), "auc", replicates=20) == single
    with pytest.raises(ValueError, match="`groups` must be given"):
        bootstrap_difference(labels, *scores, None, "gauc")


def test_the_bootstrap_of_gauc_leaves_rows_without_a_group_out():
    labels, truth, users, generator = rows(300, 12)
    other = truth + generator.normal(0, 0.3, 300)
    names = users.astype("U")
    names[users == 3] = ""
    kept = users != 3
    expected = bootstrap_difference(labels[kept], truth[kept], other[kept], names[kept], replicates=20)
    assert bootstrap_difference(labels, truth, other, names, replicates=20) == expected
