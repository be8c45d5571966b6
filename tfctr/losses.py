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

    def total(self, labels: Any, logits: Any, weights: Any) -> Any:
        """The weighted mean of the rows; a loss that is no mean of rows has its own."""
        return _mean(self.rows(labels, logits), weights)

    def __call__(self, labels: Any, logits: Any, weights: Any) -> Any:
        """The weighted mean of the rows; see the class."""
        labels, logits, weights = (ops.cast(tensor, "float32") for tensor in (labels, logits, weights))
        if logits.shape[0] != self.passes:
            raise ValueError(f"`logits` must be [{self.passes}, n]. Received shape: {tuple(logits.shape)}")
        # A product would keep a NaN of a row without weight, and its gradient.
        valid = weights > 0
        return self.total(ops.where(valid, labels, 0.0), ops.where(valid, logits, 0.0), weights)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Loss":
        """The loss that `get_config` described."""
        return cls(**config)


def _mean(rows: Any, weights: Any) -> Any:
    """The weighted mean over the last axis; 0 when no row has weight."""
    total = ops.sum(weights)
    return ops.sum(rows * weights, axis=-1) / ops.where(total > 0, total, 1.0)


def _logs(logits: Any) -> tuple[Any, Any]:
    """log(p) and log(1 - p), floored, without ever computing p."""
    return ops.maximum(ops.log_sigmoid(logits), LOG_FLOOR), ops.maximum(ops.log_sigmoid(-logits), LOG_FLOOR)


def _mean_logs(positive: Any, negative: Any) -> tuple[Any, Any]:
    """log(m) and log(1 - m) of the mean probability m over the passes, from `_logs` of each."""
    constant = math.log(positive.shape[0])
    return ops.logsumexp(positive, axis=0) - constant, ops.logsumexp(negative, axis=0) - constant


def _cross_entropy(labels: Any, positive: Any, negative: Any) -> Any:
    return -(labels * positive + (1.0 - labels) * negative)


def _divergence(first: tuple[Any, Any], second: tuple[Any, Any]) -> Any:
    """KL(p || q) of two Bernoulli probabilities, each given as log(p) and log(1 - p); both carry gradients."""
    return sum(ops.exp(p) * (p - q) for p, q in zip(first, second, strict=True))


@tfctr_export
class BinaryCrossentropy(Loss):
    """Cross-entropy of labels and logits, one pass.

    loss = -[y log p + (1 - y) log(1 - p)],  p = sigmoid(logit)

    Example:
        >>> loss = BinaryCrossentropy()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0]], [1.0, 1.0])), 4)
        0.2201
    """

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        return _cross_entropy(labels, *_logs(logits[0]))


@tfctr_export
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
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 2:
            raise ValueError(f"`passes` must be a whole number of at least 2. Received: {passes!r}")
        self.passes = passes

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        positive, negative = _logs(logits)
        mean_positive, mean_negative = _mean_logs(positive, negative)
        hard = _cross_entropy(labels, mean_positive, mean_negative)
        # exp(log(1 - m)) rather than 1 - m, which float32 rounds to 0 for confident passes.
        target, complement = ops.stop_gradient(ops.exp(mean_positive)), ops.stop_gradient(ops.exp(mean_negative))
        return hard - ops.sum(target * positive + complement * negative, axis=0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"passes": self.passes}


@tfctr_export
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
        is a reading.
    """

    passes = 2

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        positive, negative = _logs(logits)
        mean = _mean_logs(positive, negative)
        apart = sum(_divergence(mean, one) for one in zip(positive, negative, strict=True))
        return _cross_entropy(labels, *mean) + apart


@tfctr_export
class RDrop(Loss):
    """R-Drop: both passes learn the label, and each the other.

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
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha < 0:
            raise ValueError(f"`alpha` must be a number of at least 0. Received: {alpha!r}")
        self.alpha = float(alpha)

    def rows(self, labels: Any, logits: Any) -> Any:
        """The loss `[n]` of each row."""
        positive, negative = _logs(logits)
        first, second = zip(positive, negative, strict=True)
        hard = ops.sum(_cross_entropy(labels, positive, negative), axis=0)
        return hard + self.alpha / 2.0 * (_divergence(first, second) + _divergence(second, first))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"alpha": self.alpha}


def tri_bce(fused: Any, parts: Any) -> Any:
    """L + sum_k max(0, L_k - L) L_k, of the fused prediction's loss L and those of its parts, with all gradients."""
    return fused + ops.sum(ops.maximum(parts - fused, 0.0) * parts)


@tfctr_export
class TriBce(Loss):
    """Tri-BCE: the mean of two passes learns the label, and each pass the more, the further it lags behind the mean.

        loss = L + sum_k w_k L_k,    w_k = max(0, L_k - L),    L = BCE(m, y),  L_k = BCE(p_k, y),  m = (p_1 + p_2) / 2

    L and L_k are means over the batch. As in the released code the weights w_k are not held constant.

    Example:
        >>> loss = TriBce()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        0.5008

    References:
        Li et al., FCN: Fusing Exponential and Linear Cross Network (2025), Tri-BCE, whose parts are two networks; with
        two passes of one network in their place it is what QNN-alpha (2025), figure 6 compares.
    """

    passes = 2

    def total(self, labels: Any, logits: Any, weights: Any) -> Any:
        """The loss of a batch."""
        positive, negative = _logs(logits)
        fused = _cross_entropy(labels, *_mean_logs(positive, negative))
        return tri_bce(_mean(fused, weights), _mean(_cross_entropy(labels, positive, negative), weights))


LOSSES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "self_ensemble": SelfEnsemble,
    "kl": KlConsistency,
    "r_drop": RDrop,
    "tri_bce": TriBce,
}
"""The losses by the name that a configuration uses."""


def create_loss(config: str | Mapping[str, Any]) -> Loss:
    """Make a loss from its name or from `{"type": name, argument: value}`.

    Raises:
        UserError: for an unknown type or argument, or a value that the loss refuses.
    """
    return create("loss", LOSSES, config)
