"""The Self-Ensemble loss of QNN-alpha."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count
from tfctr.losses.base import Loss, cross_entropy, log_probabilities, loss, mean_log_probabilities


@loss("self_ensemble")
class SelfEnsemble(Loss):
    """Self-Ensemble loss: the mean of several passes learns the label, and each pass learns the mean.

        loss = BCE(m, y) + sum_k BCE(p_k, sg(m)),    m = mean_k p_k

    p_k is the probability of pass k (passes differ by dropout); sg stops the gradient: a soft term teaches its pass.
    Everything is computed from the logits' log-sigmoids, so that the loss and its gradient stay right for probabilities
    that float32 rounds to 0 or 1. With equal passes the value is BCE(p, y) + passes * entropy(p).

    Args:
        passes: how many passes, at least 2; the paper uses 2.

    Example:
        >>> loss = SelfEnsemble()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        1.56

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), equation 11.
    """

    def __init__(self, passes: int = 2) -> None:
        super().__init__()
        self.passes = check_count("passes", passes, least=2)

    @override
    def rows(self, labels: Any, logits: Any) -> Any:
        positive, negative = log_probabilities(logits)
        mean_positive, mean_negative = mean_log_probabilities(positive, negative)
        hard = cross_entropy(labels, mean_positive, mean_negative)
        # exp(log(1 - m)) rather than 1 - m, which float32 rounds to 0 for confident passes.
        target, complement = ops.stop_gradient(ops.exp(mean_positive)), ops.stop_gradient(ops.exp(mean_negative))
        return hard - ops.sum(target * positive + complement * negative, axis=0)
