"""Consistency of two passes by the Kullback-Leibler divergence."""

from typing import Any

from typing_extensions import override

from tfctr.losses.base import Loss, cross_entropy, divergence, log_probabilities, loss, mean_log_probabilities


@loss("kl")
class KlConsistency(Loss):
    """The mean of two passes learns the label, and the passes are drawn to it by the Kullback-Leibler divergence.

        loss = BCE(m, y) + sum_k KL(m || p_k),    m = (p_1 + p_2) / 2

    The gradient flows into both sides of the divergence. With the mean held constant the gradient would be that of
    `SelfEnsemble`, from which this differs by the entropy of m.

    Example:
        >>> loss = KlConsistency()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        0.4486

    References:
        QNN-alpha (2025), figure 6 compares a "KL loss" whose formula neither paper nor released code gives; this form
        is our reconstruction.
    """

    passes = 2

    @override
    def rows(self, labels: Any, logits: Any) -> Any:
        positive, negative = log_probabilities(logits)
        mean = mean_log_probabilities(positive, negative)
        # By index: a graph can't go through the axis of a tensor.
        apart = sum(divergence(mean, (positive[one], negative[one])) for one in range(self.passes))
        return cross_entropy(labels, *mean) + apart
