"""Tri-BCE, the loss of FCN."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.replicas import whole_sum
from tfctr.losses.base import EnsembleLoss, cross_entropy, log_probabilities, loss


def tri_bce(fused: Any, parts: Any) -> Any:
    """L + sum_k max(0, L_k - L) L_k, of a fused prediction's loss L and its parts' losses L_k, with all gradients."""
    return fused + ops.sum(ops.maximum(parts - fused, 0.0) * parts)


@loss("tri_bce")
class TriBce(EnsembleLoss):
    """Tri-BCE: the mean of two passes learns the label, and so does each pass in so far as it is worse than the mean.

        loss = L + sum_k w_k L_k,    w_k = max(0, L_k - L)
        L = BCE(m, y),    L_k = BCE(p_k, y),    m = (p_1 + p_2) / 2

    L and L_k are means over the batch. As in the released code the weights w_k are not held constant. With
    `over="branches", mean="logit"` it is the loss of FCN, whose parts are its two cross networks.

    Args:
        over: whether p_k are those of two `passes` or of the backbone's `branches`.
        mean: whether m is the mean `probability`, or that of the mean `logit`, as in FCN.

    Example:
        >>> loss = TriBce()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        0.5008

    References:
        Li et al., FCN: Fusing Exponential and Linear Cross Network (2025), Tri-BCE, whose parts are two networks; with
        two passes of one network in their place it is what QNN-alpha (2025), figure 6 compares.
    """

    @override
    def total(self, labels: Any, logits: Any, weights: Any) -> Any:
        positive, negative = log_probabilities(logits)
        fused = cross_entropy(labels, *self.log_means(logits))
        weight = whole_sum(ops.sum(weights))

        def mean(rows: Any) -> Any:
            """The mean over the whole batch, of which several devices have a part each."""
            return whole_sum(ops.sum(rows * weights, axis=-1)) / ops.where(weight > 0, weight, 1.0)

        return tri_bce(mean(fused), mean(cross_entropy(labels, positive, negative)))
