"""The Self-Ensemble loss of QNN-alpha."""

from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count
from tfctr.losses.base import EnsembleLoss, cross_entropy, log_probabilities, loss


@loss("self_ensemble")
class SelfEnsemble(EnsembleLoss):
    """Self-Ensemble loss: the mean of several passes learns the label, and each pass learns the mean.

        loss = BCE(m, y) + sum_k BCE(p_k, sg(m)),    m = mean_k p_k

    p_k is the probability of pass k (passes differ by dropout); sg stops the gradient: a soft term teaches its pass.
    Everything is computed from the logits' log-sigmoids, so that the loss and its gradient stay right for probabilities
    that float32 rounds to 0 or 1. With equal passes the value is BCE(p, y) + passes * entropy(p).

    With `over="branches", mean="logit"` it is the loss of FINAL, whose two blocks learn from their common prediction:
    p_k is the probability of block k, and m that of the mean of their logits.

    Args:
        passes: how many passes, at least 2; the paper uses 2. The branches are as many as the backbone has.
        over: whether p_k are those of `passes` or of the backbone's `branches`.
        mean: whether m is the mean `probability`, as in QNN-alpha, or that of the mean `logit`.

    Example:
        >>> loss = SelfEnsemble()
        >>> round(float(loss([1.0, 0.0], [[2.0, -1.0], [1.5, 0.5]], [1.0, 1.0])), 4)
        1.56

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), equation 11. Zhu et al., FINAL:
        Factorized Interaction Layer for CTR Prediction (2023), its loss with two blocks.
    """

    def __init__(
        self,
        passes: int = 2,
        over: Literal["passes", "branches"] = "passes",
        mean: Literal["probability", "logit"] = "probability",
    ) -> None:
        super().__init__(over, mean)
        count = check_count("passes", passes, least=2)
        self.passes = 1 if self.branches else count

    @override
    def rows(self, labels: Any, logits: Any) -> Any:
        positive, negative = log_probabilities(logits)
        mean_positive, mean_negative = self.log_means(logits)
        hard = cross_entropy(labels, mean_positive, mean_negative)
        # exp(log(1 - m)) rather than 1 - m, which float32 rounds to 0 for confident passes.
        target, complement = ops.stop_gradient(ops.exp(mean_positive)), ops.stop_gradient(ops.exp(mean_negative))
        return hard - ops.sum(target * positive + complement * negative, axis=0)
