"""CL4CTR: three losses on the fields, which make embeddings robust, alike within a field and apart between fields."""

import math
from typing import Any, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_choice, check_count, check_flag, check_not_negative, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import merge_heads, split_heads, zero_padding
from tfctr.layers.tokens import as_vector, softmax, token_shape
from tfctr.losses.auxiliary import AuxiliaryLoss, auxiliary_loss

Masking = Literal["random", "feature", "dimension"]
MASKINGS = ("random", "feature", "dimension")
EPSILON = 1e-4
"""Added to the product of two norms, as in the released code: a field of zeros has no direction."""


@tfctr_export
class FieldEncoder(SameShapeLayer):
    """One layer of a Transformer's encoder over the fields of a row.

        y = LN(x + drop(MHA(x))),    z = LN(y + drop(W_2 drop(relu(W_1 y + b_1)) + b_2))

    Args:
        heads: the heads, which divide the width of the fields.
        hidden: the width of the hidden layer.
        dropout: the rate on the attention weights, in the hidden layer and on what is added.

    Call arguments:
        inputs: x, float `[..., F, E]`.
        training: whether to drop out.

    Output shape: `[..., F, E]`.

    Raises:
        ValueError: when built, if the heads do not divide E.

    Example:
        >>> tuple(FieldEncoder(heads=2)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 16)

    References:
        Vaswani et al., Attention Is All You Need (2017), section 3.1, with the settings of CL4CTR (2023).
    """

    weight_kinds = ("kernel",)

    def __init__(self, heads: int = 1, hidden: int = 128, dropout: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = check_count("heads", heads)
        self.hidden = check_count("hidden", hidden)
        self.drop = self.make_part(Dropout, "dropout", check_rate("dropout", dropout))

    @override
    def build(self, input_shape: Shape) -> None:
        width = token_shape(input_shape)[1]
        if width % self.heads:
            raise ValueError(f"`heads` must divide the width {width} of the fields. Received: {self.heads}")
        widths = {"query": (width, width), "key": (width, width), "value": (width, width), "output": (width, width)}
        widths |= {"inner": (width, self.hidden), "outer": (self.hidden, width)}
        self.maps = {name: self.make_dense(name, out, into, xavier_normal()) for name, (into, out) in widths.items()}
        names = ("attention_norm", "norm")
        self.norms = [
            self.make_part(keras.layers.LayerNormalization, name, epsilon=1e-5, built_for=input_shape) for name in names
        ]
        self.built = True

    @override
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        query, key, value = (split_heads(self.maps[name](inputs), self.heads) for name in ("query", "key", "value"))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) / math.sqrt(key.shape[-1])
        seen = merge_heads(ops.matmul(self.drop(softmax(scores), training=training), value))
        x = self.norms[0](inputs + self.drop(self.maps["output"](seen), training=training))
        hidden = self.drop(ops.relu(self.maps["inner"](x)), training=training)
        return self.norms[1](x + self.drop(self.maps["outer"](hidden), training=training))


@auxiliary_loss("cl4ctr")
class Cl4Ctr(AuxiliaryLoss):
    """CL4CTR: contrastive loss, feature alignment and field uniformity.

        loss          = alpha * contrastive + beta * (alignment + uniformity)
        contrastive   = mean_i |h_1i - h_2i|^2,    h_ki = W_k flatten(encoder(view_k(X_i))) + b_k
        alignment     = mean_f mean_{i<j} |e_if - e_jf|^2
        uniformity    = mean_i mean_{f != g} cos(e_if, e_ig)

    X_i are the fields e_if of row i, a view drops part of them at random, and the encoder is a Transformer over the
    fields. Alignment draws the values of one field together, uniformity drives different fields apart. The means over
    the pairs of rows are computed in time linear in their number: the mean over the pairs is twice the variance.

    Args:
        alpha: the weight of the contrastive loss; without weight it has no encoder.
        beta: the weight of alignment and uniformity.
        masking: what a view drops: `random` single numbers, whole fields (`feature`), or a coordinate of all fields
            (`dimension`).
        rate: the share that a view drops; what is left is scaled up.
        layers: the layers of the encoder.
        heads: its heads, which divide the width of the fields.
        hidden: the width of its hidden layers.
        dropout: the rate in the encoder.
        alignment: whether there is a loss of alignment.
        uniformity: whether there is a loss of uniformity.

    Call arguments and output: see `AuxiliaryLoss`.

    Example:
        >>> layer = Cl4Ctr(layers=1)
        >>> fields = layer(keras.random.normal((8, 1, 7, 16)), training=True)
        >>> len(layer.losses)
        1

    References:
        Wang et al., CL4CTR: A Contrastive Learning Framework for CTR Prediction (WSDM 2023). Alignment and uniformity
        are means over a batch, as released; the paper writes sums over all values of a field. The released code differs
        in two points: it reshapes what the encoder gives without turning the axes back, so that h mixes rows, and its
        mean of cosines includes each field with itself. Initial weights are a choice made here.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.01,
        masking: Masking = "random",
        rate: float = 0.5,
        layers: int = 3,
        heads: int = 1,
        hidden: int = 128,
        dropout: float = 0.2,
        alignment: bool = True,
        uniformity: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha = check_not_negative("alpha", alpha)
        self.beta = check_not_negative("beta", beta)
        self.masking = check_choice("masking", masking, MASKINGS)
        self.drop = self.make_part(Dropout, "masking", check_rate("rate", rate))
        numbers = range(check_count("layers", layers))
        encoders = [self.make_part(FieldEncoder, f"layer{i}", heads, hidden, dropout) for i in numbers]
        self.encoders = encoders if alpha else []
        self.alignment = check_flag("alignment", alignment)
        self.uniformity = check_flag("uniformity", uniformity)

    @override
    def build(self, input_shape: Shape) -> None:
        fields, width = token_shape(input_shape)
        for encoder in self.encoders:
            encoder.build((None, fields, width))
        if self.alpha:
            names = ("first", "second")
            self.projections = [self.make_dense(name, width, fields * width, xavier_normal()) for name in names]
        self.built = True

    @override
    def total(self, fields: Any, mask: Any) -> Any:
        number, width = fields.shape[-2:]
        rows = ops.reshape(fields, (-1, number, width))
        valid = ops.ones_like(rows[:, 0, 0], dtype="bool") if mask is None else ops.reshape(mask, (-1,))
        rows = zero_padding(rows, valid)
        weights = ops.cast(valid, "float32")
        weights = weights / ops.maximum(ops.sum(weights), 1.0)
        exact = ops.cast(rows, "float32")
        loss = ops.zeros((), "float32")
        if self.alpha:
            loss = loss + self.alpha * ops.sum(weights * self.contrast(rows))
        if self.alignment:
            loss = loss + self.beta * alignment(exact, weights)
        if self.uniformity:
            loss = loss + self.beta * ops.sum(weights * uniformity(exact))
        return loss

    def view(self, rows: Any) -> Any:
        """The fields `[n, F, E]` without what is dropped at random."""
        kept = {"random": rows, "feature": rows[..., :1], "dimension": rows[..., :1, :]}[self.masking]
        return rows * self.drop(ops.ones_like(kept), training=True)

    def contrast(self, rows: Any) -> Any:
        """The squared distance `[n]` of what the encoder makes of two views of each row."""
        encoded = []
        for projection in self.projections:
            x = self.view(rows)
            for encoder in self.encoders:
                x = encoder(x, training=True)
            encoded.append(ops.cast(projection(as_vector(x)), "float32"))
        return ops.sum(ops.square(encoded[0] - encoded[1]), axis=-1)


def alignment(rows: Any, weights: Any) -> Any:
    """The mean squared distance of all pairs of rows, of fields `[n, F, E]`, and over the fields.

    The weights `[n]` are equal for the rows that count, 0 for others, and sum to 1.

    Example:
        >>> float(alignment(keras.ops.array([[[0.0, 0.0]], [[3.0, 4.0]]]), keras.ops.array([0.5, 0.5])))
        25.0
    """
    weights = weights[:, None, None]
    variance = ops.sum(weights * ops.square(rows - ops.sum(weights * rows, axis=0)))
    # Twice the variance is the mean over all n^2 pairs of rows, n of which are of a row with itself.
    of_itself = ops.sum(ops.square(weights))
    return 2.0 * variance / ops.maximum(1.0 - of_itself, EPSILON) / rows.shape[-2]


def uniformity(rows: Any) -> Any:
    """The mean cosine `[n]` of all pairs of different fields of `[n, F, E]`; 0 if there is only one field.

    Example:
        >>> round(float(uniformity(keras.ops.array([[[1.0, 0.0], [3.0, 4.0]]]))[0]), 4)
        0.6
    """
    fields = rows.shape[-2]
    squares = ops.sum(ops.square(rows), axis=-1)
    positive = squares > 0
    # The gradient of a root is infinite at zero, and a field may be a row of zeros.
    norms = ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)
    cosines = ops.matmul(rows, ops.swapaxes(rows, -1, -2)) / (norms[..., None] * norms[:, None, :] + EPSILON)
    others = 1.0 - ops.eye(fields, dtype=rows.dtype)
    return ops.sum(cosines * others, axis=(-2, -1)) / max(fields * (fields - 1), 1)
