"""The cross-entropy of labels and logits."""

from typing import Any

from typing_extensions import override

from tfctr.losses.base import Loss, cross_entropy, log_probabilities, loss


@loss("binary_crossentropy")
class BinaryCrossentropy(Loss):
    """Cross-entropy of labels and logits, one pass.

        loss = -[y log p + (1 - y) log(1 - p)],  p = sigmoid(logit)

    Example:
        >>> loss = BinaryCrossentropy()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0]], [1.0, 1.0])), 4)
        0.2201
    """

    @override
    def rows(self, labels: Any, logits: Any) -> Any:
        return cross_entropy(labels, *log_probabilities(logits[0]))
