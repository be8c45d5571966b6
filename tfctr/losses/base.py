"""What every loss has in common, and the logarithms of probabilities that losses are made of."""

import math
from typing import Any, Literal, Self

from keras import ops

from tfctr.errors import UserError
from tfctr.layers.arguments import check_choice
from tfctr.layers.configured import Configured
from tfctr.layers.registry import Registry

LOG_FLOOR = -100.0
"""The least logarithm of a probability, as in the reference code; it only acts beyond logits of -100 and 100."""


class Loss(Configured):
    """A loss over flat rows, divided by the sum of their weights.

    Call arguments:
        labels: float `[n]`, 0 or 1.
        logits: float `[passes, n]`, or `[branches, n]` for a loss over the branches of a backbone.
        weights: float `[n]`; a row of weight 0 does not count.

    Output shape:
        A scalar, in float32 whatever the logits are; 0 when no row has weight.
    """

    passes: int = 1
    """How many independent forward passes of the backbone a training step needs."""

    branches: bool = False
    """Whether the logits are those of the backbone's branches, in one pass; see `Interaction.branch_logits`."""

    def __init__(self) -> None:
        """Take no arguments; a loss that has some says so."""

    def rows(self, labels: Any, logits: Any) -> Any:
        """Return the loss `[n]` of each row."""
        raise NotImplementedError

    def total(self, labels: Any, logits: Any, weights: Any) -> Any:
        """Return the weighted mean of the rows; a loss that is not such a mean overrides this."""
        return weighted_mean(self.rows(labels, logits), weights)

    def __call__(self, labels: Any, logits: Any, weights: Any) -> Any:
        """Return the loss of a batch."""
        labels, logits, weights = (ops.cast(tensor, "float32") for tensor in (labels, logits, weights))
        if not self.branches and logits.shape[0] != self.passes:
            raise ValueError(f"`logits` must be [{self.passes}, n]. Received shape: {tuple(logits.shape)}")
        # Rows without weight are replaced: their product with 0 would keep a NaN, and so would its gradient.
        valid = weights > 0
        return self.total(ops.where(valid, labels, 0.0), ops.where(valid, logits, 0.0), weights)

    def check_backbone(self, name: str, branches: int) -> None:
        """Check that a backbone has the logits that the loss is over.

        Args:
            name: the backbone, for the message.
            branches: how many logits it has.

        Raises:
            UserError: if the loss is over branches and the backbone has only one.
        """
        if self.branches and branches == 1:
            raise UserError(
                f"loss {LOSSES.name_of(type(self))}: `over: branches` needs a backbone with several logits, and "
                f"interaction {name} has one; take `over: passes`"
            )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the loss that `get_config` described."""
        return cls(**config)


LOSSES: Registry[Loss] = Registry()
"""The losses by the name that a configuration uses."""

loss = LOSSES.register


class EnsembleLoss(Loss):
    """A loss over several logits of each row, which are those of several passes or of a backbone's branches.

    Args:
        over: `passes`, which differ by dropout, or `branches`, for a backbone that has several logits.
        mean: what is averaged: `probability`, or `logit`, as a backbone with branches does for its own logit.
    """

    def __init__(
        self, over: Literal["passes", "branches"] = "passes", mean: Literal["probability", "logit"] = "probability"
    ) -> None:
        super().__init__()
        self.branches = check_choice("over", over, ("passes", "branches")) == "branches"
        self.passes = 1 if self.branches else 2
        self.mean = check_choice("mean", mean, ("probability", "logit"))

    def log_means(self, logits: Any) -> tuple[Any, Any]:
        """log(m) and log(1 - m) of the mean m over the logits `[k, n]`."""
        if self.mean == "logit":
            return log_probabilities(ops.mean(logits, axis=0))
        return mean_log_probabilities(*log_probabilities(logits))


def weighted_mean(rows: Any, weights: Any) -> Any:
    """The weighted mean over the last axis; 0 when no row has weight."""
    total = ops.sum(weights)
    return ops.sum(rows * weights, axis=-1) / ops.where(total > 0, total, 1.0)


def log_probabilities(logits: Any) -> tuple[Any, Any]:
    """log(p) and log(1 - p), floored, without ever computing p."""
    return ops.maximum(ops.log_sigmoid(logits), LOG_FLOOR), ops.maximum(ops.log_sigmoid(-logits), LOG_FLOOR)


def mean_log_probabilities(positive: Any, negative: Any) -> tuple[Any, Any]:
    """log(m) and log(1 - m) of the mean probability m over the passes, from `log_probabilities` of each."""
    constant = math.log(positive.shape[0])
    return ops.logsumexp(positive, axis=0) - constant, ops.logsumexp(negative, axis=0) - constant


def cross_entropy(labels: Any, positive: Any, negative: Any) -> Any:
    """The cross-entropy of labels and probabilities, given as log(p) and log(1 - p)."""
    return -(labels * positive + (1.0 - labels) * negative)


def divergence(first: tuple[Any, Any], second: tuple[Any, Any]) -> Any:
    """KL(p || q) of two Bernoulli probabilities, each given as log(p) and log(1 - p); both carry gradients."""
    return sum(ops.exp(p) * (p - q) for p, q in zip(first, second, strict=True))
