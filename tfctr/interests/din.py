"""DIN: the deep interest network's activation unit."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, Tensor, Tensors, interest
from tfctr.layers.arguments import check_activation, check_flag, check_rate, check_units
from tfctr.layers.dice import Dice
from tfctr.layers.dropout import Dropout
from tfctr.layers.masking import length_mask, masked_softmax


@interest("din")
class Din(Interest):
    """A small network weighs each event against the candidate; the interest is the weighted sum.

        w_i = MLP([t, x_i, t - x_i, t * x_i])
        output = sum_i w_i x_i                       or, with `softmax`, of the normalised weights

    The four vectors are never joined. With W = [W_1; W_2; W_3; W_4] the first layer is

        t (W_1 + W_3) + b  +  x_i (W_2 - W_3 + diag(t) W_4)

    that is, the events times one matrix for each candidate. This takes a fourth of the multiplications and no tensor
    of shape `[B, C, L, 4d]`. The term x_i (W_2 - W_3) is not stored in the state: adding W_2 - W_3 to diag(t) W_4
    costs less than adding the product to every step, and the state stays as small as the events.

    Args:
        hidden: widths of the hidden layers.
        activation: of the hidden layers: `dice` or a name that Keras knows.
        softmax: whether the weights are normalised over the history. The paper does not, to keep the intensity.
        scale: whether the weights are divided by sqrt(d) before that, as in the authors' release.
        dropout: share of hidden units dropped in training.
        seed: of the dropout.
        padding_statistics: whether padded steps count in the statistics of Dice, as in the public implementations.
            The state then keeps the padding as it came, and its content changes the output in training.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history, also with
    softmax, where the reference averages the padding.
    State: `events` `[B, L, d]`, `length` `[B]`.

    Example:
        >>> sequence = {"events": keras.random.normal((1, 50, 8)), "length": ops.array([30])}
        >>> candidate = {"target": keras.random.normal((1, 3, 8))}
        >>> tuple(Din(hidden=[16, 8])({"sequence": sequence, "candidate": candidate}).shape)
        (1, 3, 8)

    References:
        Zhou et al., Deep Interest Network (KDD 2018), section 4.3. `hidden=(80, 40)` as in the release.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        hidden: Sequence[int] = (80, 40),
        activation: str = "dice",
        softmax: bool = False,
        scale: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        padding_statistics: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden = tuple(check_units("hidden", hidden))
        if not self.hidden:
            raise ValueError(f"`hidden` must have at least one width. Received: {hidden!r}")
        self.activation = check_activation("activation", activation, ("dice",))
        self.softmax = check_flag("softmax", softmax)
        self.scale = check_flag("scale", scale)
        self.padding_statistics = check_flag("padding_statistics", padding_statistics)
        check_rate("dropout", dropout)
        policy = self.dtype_policy
        self.activations = [
            Dice(dtype=policy, name=f"dice_{i}")
            if activation == "dice"
            else keras.layers.Activation(activation, dtype=policy, name=f"activation_{i}")
            for i in range(len(self.hidden))
        ]
        self.dropouts = [
            Dropout(dropout, seed=None if seed is None else seed + i, dtype=policy, name=f"dropout_{i}")
            for i in range(len(self.hidden))
        ]
        # The first layer is this layer's own kernel and bias.
        widths = (*self.hidden[1:], 1)
        self.dense = [self.make_dense(f"dense_{i}", units) for i, units in enumerate(widths, start=1)]

    @override
    def build_width(self, width: int) -> None:
        first = self.hidden[0]
        self.kernel = self.make_weight("kernel", (4 * width, first), "glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(first,), initializer="zeros")
        for units, activation, dense in zip(self.hidden, self.activations, self.dense, strict=True):
            activation.build((None, None, None, units))
            dense.build((None, None, None, units))

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        if self.padding_statistics:
            events = ops.cast(sequence["events"], self.compute_dtype)
        return {"events": events, **state}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        target = self.target(candidate)
        events = ops.cast(state["events"], self.compute_dtype)
        mask = length_mask(state["length"], ops.shape(events)[1])[:, None, :]
        scores = self.scores(target, events, self._counted(mask, candidate), training)
        if self.scale:
            scores = scores / math.sqrt(target.shape[-1])
        if self.softmax:
            weights = ops.cast(masked_softmax(scores, mask), self.compute_dtype)
        else:
            weights = ops.where(mask, scores, ops.zeros_like(scores))
        return ops.matmul(weights, events)

    def _counted(self, mask: Tensor, candidate: Tensors) -> Tensor | None:
        """Which pairs of candidate and step count in the statistics of Dice: bool `[B, C or 1, L]`, None for all."""
        if self.padding_statistics:
            return None
        return ops.logical_and(mask, candidate["mask"][:, :, None]) if "mask" in candidate else mask

    def scores(self, target: Tensor, events: Tensor, counted: Tensor | None, training: bool | None) -> Tensor:
        """The activation unit: `[B, C, L]`."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        of_target, of_event, of_difference, of_product = ops.split(kernel, 4, axis=0)
        base = ops.matmul(target, of_target + of_difference) + ops.cast(self.bias, self.compute_dtype)
        mixing = target[..., None] * of_product + (of_event - of_difference)
        x = ops.matmul(events[:, None], mixing) + base[:, :, None, :]
        for activation, dropout, dense in zip(self.activations, self.dropouts, self.dense, strict=True):
            x = activation(x, mask=counted, training=training) if isinstance(activation, Dice) else activation(x)
            x = dense(dropout(x, training=training))
        return ops.squeeze(x, axis=-1)
