"""Regularized dropout."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_not_negative
from tfctr.losses.base import Loss, cross_entropy, divergence, log_probabilities, loss


@loss("r_drop")
class RDrop(Loss):
    """R-Drop: both passes learn the label, and each learns from the other.

        loss = BCE(p_1, y) + BCE(p_2, y) + alpha / 2 * (KL(p_1 || p_2) + KL(p_2 || p_1))

    Args:
        alpha: the weight of the divergence; the paper takes 1 to 5.

    Example:
        >>> loss = RDrop()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        0.9483

    References:
        Wu et al., R-Drop: Regularized Dropout for Neural Networks (2021), equations 1 to 4.
    """

    passes = 2

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_not_negative("alpha", alpha)

    @override
    def rows(self, labels: Any, logits: Any) -> Any:
        positive, negative = log_probabilities(logits)
        first, second = ((positive[one], negative[one]) for one in range(self.passes))
        hard = ops.sum(cross_entropy(labels, positive, negative), axis=0)
        return hard + self.alpha / 2.0 * (divergence(first, second) + divergence(second, first))
