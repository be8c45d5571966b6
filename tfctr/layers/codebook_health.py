"""Whether the codewords of a codebook part the events: moving figures, all of the assignment without noise."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export

_MOMENTUM = 0.99
_USED = 0.1


@tfctr_export
class CodebookHealth(ConfiguredLayer):
    """Moving figures of N codebooks of W codewords, over the real events it is shown of the training batches.

    With scores l of an event, p = softmax(l), and its word, the codeword of the largest score:

        agreement        the mean chance that training's draw is the word, by which the event is served
        effective_words  exp(H(mean p) - mean H(p)), H the entropy: how many words the scores can tell apart, 1 to W
        fit              the mean cosine of an event and its word
        used_words       codewords that are the word of at least a tenth of an equal share of the events, 0 to W

    Each is the mean over the codebooks. A batch counts by its events, and a batch a hundred steps ago by about a third.

    Args:
        codebooks: N.
        codewords: W.

    Call arguments:
        inputs: float32 `[N, B, L, W]`, the scores l.
        word: float32 `[N, B, L, W]`, one-hot, zeros at padded events.
        agreement: float32 `[N, B, L]`, the chance that training's draw is the word.
        fit: float32 `[N, B, L]`, the cosine of the event and its word.

    Output shape: the inputs, unchanged.

    Example:
        >>> word = ops.one_hot([[[0], [2]]], 3)
        >>> health = CodebookHealth(1, 3)
        >>> _ = health(50.0 * word, word=word, agreement=ops.ones((1, 2, 1)), fit=ops.ones((1, 2, 1)))
        >>> {name: round(value, 3) for name, value in health.figures().items()}
        {'agreement': 1.0, 'effective_words': 2.0, 'fit': 1.0, 'used_words': 2.0}
    """

    def __init__(self, codebooks: int, codewords: int, **kwargs: Any) -> None:
        # Without autocast: in half precision, sums over many events lose count.
        super().__init__(autocast=False, **kwargs)
        self.codebooks = check_count("codebooks", codebooks)
        self.codewords = check_count("codewords", codewords)

    @override
    def build(self, input_shape: Shape) -> None:
        # By column: events of each word, sums of p, then those of agreement, entropy and fit.
        shape = (self.codebooks, 2 * self.codewords + 3)
        self.sums = self.add_weight(
            name="sums",
            shape=shape,
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",
        )
        self.built = True

    @override
    def call(self, inputs: Any, word: Any, agreement: Any, fit: Any) -> Any:
        real = ops.sum(word, axis=-1)
        largest = ops.max(inputs, axis=-1, keepdims=True)
        below = inputs - largest
        chance = ops.exp(below)
        total = ops.sum(chance, axis=-1, keepdims=True)
        chance = chance / total
        # H = -sum p log p = log(total) - sum p (l - largest): without a logarithm for each codeword.
        spread = ops.log(total[..., 0]) - ops.sum(chance * below, axis=-1)
        figures = ops.stack([agreement, spread, fit], axis=-1)
        # Products with what is real: as sums they took several times as long on CPU.
        new = ops.concatenate([ops.einsum("nbl,nblw->nw", real, one) for one in (word, chance, figures)], axis=-1)
        new = ops.stop_gradient(new)
        self.sums.assign(_MOMENTUM * self.sums + (1.0 - _MOMENTUM) * new)
        return inputs

    def figures(self) -> dict[str, float]:
        """The figures by name; zeros before the first event."""
        sums, words = ops.convert_to_tensor(self.sums), self.codewords
        events = ops.sum(sums[:, :words], axis=1, keepdims=True)
        share, chance, rest = ops.split(sums / ops.maximum(events, 1e-12), [words, 2 * words], axis=1)
        found = {
            "agreement": rest[:, 0],
            "effective_words": ops.where(events[:, 0] > 0, ops.exp(entropy(chance) - rest[:, 1]), 0.0),
            "fit": rest[:, 2],
            "used_words": ops.sum(ops.cast(share >= _USED / words, "float32"), axis=1),
        }
        return {name: float(ops.convert_to_numpy(ops.mean(value))) for name, value in found.items()}


def entropy(chance: Any) -> Any:
    """The entropy of distributions over the last axis, in nats."""
    return -ops.sum(chance * ops.log(ops.maximum(chance, 1e-12)), axis=-1)
