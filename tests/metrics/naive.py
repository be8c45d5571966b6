"""Slow and obvious forms of the metrics to compare with: double loops over pairs, one group at a time."""

import math


def auc(labels, scores, weights=None):
    weights = [1.0] * len(labels) if weights is None else weights
    wins = pairs = 0.0
    for label, score, weight in zip(labels, scores, weights, strict=True):
        for other_label, other_score, other_weight in zip(labels, scores, weights, strict=True):
            if label == 1 and other_label == 0:
                pairs += weight * other_weight
                wins += weight * other_weight * ((score > other_score) + 0.5 * (score == other_score))
    return wins / pairs if pairs else math.nan


def gauc(labels, scores, groups, weighting="impressions", weights=None):
    """Returns (value, groups used, groups skipped, coverage)."""
    weights = [1.0] * len(labels) if weights is None else list(weights)
    rows = [row for row in zip(labels, scores, groups, weights, strict=True) if row[3] > 0]
    numerator = denominator = covered = 0.0
    used = skipped = 0
    for group in {row[2] for row in rows}:
        mine = [row for row in rows if row[2] == group]
        value = auc([row[0] for row in mine], [row[1] for row in mine], [row[3] for row in mine])
        if math.isnan(value):
            skipped += 1
            continue
        used += 1
        impressions = sum(row[3] for row in mine)
        covered += impressions
        clicks = sum(row[3] for row in mine if row[0] == 1)
        weight = {"impressions": impressions, "clicks": clicks, "uniform": 1.0}[weighting]
        numerator += weight * value
        denominator += weight
    total = sum(row[3] for row in rows)
    return numerator / denominator if denominator else math.nan, used, skipped, covered / total if total else math.nan
