"""Losses on logits, for one or several forward passes of a backbone."""

import math
from collections.abc import Mapping
from typing import Any

from keras import ops

from tfctr.layers.export import tfctr_export
from tfctr.layers.registry import create

LOG_FLOOR = -100.0
"""The least logarithm of a probability, as in the reference code; it only acts beyond logits of -100 and 100."""


class Loss:
    """A loss over flat rows, divided by the sum of their weights.

    Call arguments:
        labels: float `[n]`, 0 or 1.
        logits: float `[passes, n]`.
        weights: float `[n]`; a row of weight 0 does not count.

    Output shape:
        A scalar, in float32 whatever the logits are; 0 when no row has weight.
    """

    passes: int = 1
    """How many independent forward passes of the backbone a training step needs."""

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        raise NotImplementedError

    def __call__(self, labels: Any, logits: Any, weights: Any) -> Any:
        """The weighted mean of the rows; see the class."""
        labels, logits, weights = (ops.cast(tensor, "float32") for tensor in (labels, logits, weights))
        if logits.shape[0] != self.passes:
            raise ValueError(f"`logits` must be [{self.passes}, n]. Received shape: {tuple(logits.shape)}")
        # A product would keep a NaN of a row without weight, and its gradient.
        valid = weights > 0
        rows = self.rows(ops.where(valid, labels, 0.0), ops.where(valid, logits, 0.0))
        total = ops.sum(weights)
        return ops.sum(rows * weights) / ops.where(total > 0, total, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Loss":
        """The loss that `get_config` described."""
        return cls(**config)


def _logs(logits: Any) -> tuple[Any, Any]:
    """log(p) and log(1 - p), floored, without ever computing p."""
    return ops.maximum(ops.log_sigmoid(logits), LOG_FLOOR), ops.maximum(ops.log_sigmoid(-logits), LOG_FLOOR)


@tfctr_export
class BinaryCrossentropy(Loss):
    """Cross-entropy of labels and logits, one pass.

    loss = -[y log p + (1 - y) log(1 - p)],  p = sigmoid(logit)
    """

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        positive, negative = _logs(logits[0])
        return -(labels * positive + (1.0 - labels) * negative)


@tfctr_export
class SelfEnsemble(Loss):
    """Self-Ensemble loss: the mean of several passes learns the label, and each pass learns the mean.

        loss = BCE(m, y) + sum_k BCE(p_k, sg(m)),    m = mean_k p_k

    p_k is the probability of pass k (passes differ by dropout); sg stops the gradient: a soft term teaches its pass.
    Everything is computed from the logits' log-sigmoids, so that the loss and its gradient stay right for probabilities
    that float32 rounds to 0 or 1. With equal passes the value is BCE(p, y) + passes * entropy(p).

    Args:
        passes: how many passes, at least 2; the paper uses 2.

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), equation 11.
    """

    def __init__(self, passes: int = 2) -> None:
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 2:
            raise ValueError(f"`passes` must be a whole number of at least 2. Received: {passes!r}")
        self.passes = passes

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        positive, negative = _logs(logits)
        constant = math.log(self.passes)
        mean_positive = ops.logsumexp(positive, axis=0) - constant
        mean_negative = ops.logsumexp(negative, axis=0) - constant
        hard = -(labels * mean_positive + (1.0 - labels) * mean_negative)
        # exp(log(1 - m)) rather than 1 - m, which float32 rounds to 0 for confident passes.
        target, complement = ops.stop_gradient(ops.exp(mean_positive)), ops.stop_gradient(ops.exp(mean_negative))
        return hard - ops.sum(target * positive + complement * negative, axis=0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"passes": self.passes}


LOSSES: dict[str, type[Loss]] = {"binary_crossentropy": BinaryCrossentropy, "self_ensemble": SelfEnsemble}
"""The losses by the name that a configuration uses."""


def create_loss(config: str | Mapping[str, Any]) -> Loss:
    """Make a loss from its name or from `{"type": name, argument: value}`.

    Raises:
        UserError: for an unknown type or argument, or a value that the loss refuses.
    """
    return create("loss", LOSSES, config)
