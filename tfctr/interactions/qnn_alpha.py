"""QNN-alpha: a quadratic network with the multi-head Khatri-Rao product."""

from typing import Any, ClassVar

import numpy as np
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_count, check_flag, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import by_head, join_heads
from tfctr.layers.mlp import activation_layer, apply_activation
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import as_vector, contract, known_width, token_shape


@tfctr_export
class KhatriRaoProduct(SameShapeLayer):
    """One layer of QNN-alpha: the input times a sum of activated projections of itself.

    With H heads of width d = D / H and R rows, head by head (`released=False`, equation 10 of the paper):

        y_h = x_h * sum_r act(norm(x_h W_hr + b_hr)) + x_h

    The released code (`released=True`) differs if H > 1. Every W_hr reads the whole x, so that more heads do not save
    parameters. In the product, x_h is the h-th slice of every field of x, while the residual is x, ordered by field.

    Args:
        heads: H.
        rows: R, the paper's M.
        fields: F, the number of fields; only the slices of the released form depend on it.
        activation: between projection and product (the paper's mid-activation): a Keras activation's name, `prelu` (one
            slope), `dice` or None.
        batch_norm: whether to normalize the projections.
        dropout: the rate on the layer's output.
        mid_dropout: the rate on the activated projections.
        residual: whether to add the input.
        product: whether to multiply by the input; else y_h = sum_r act(norm(x_h W_hr + b_hr)) + x_h.
        released: whether to compute what the released code computes.

    Call arguments:
        inputs: float `[..., D]`, ordered by head and within a head by field; with `released`, ordered by field.
        mask: bool `[...]`, true for rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[..., D]`.

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), section 3.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        heads: int,
        rows: int,
        fields: int = 1,
        activation: str | None = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        mid_dropout: float = 0.0,
        residual: bool = True,
        product: bool = True,
        released: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.rows = rows
        self.fields = fields
        self.residual = residual
        self.product = product
        self.released = released
        self.norm = self.make_part(BatchNormalization, "bn") if batch_norm else None
        self.mid_drop = self.make_part(Dropout, "mid_dropout", mid_dropout)
        self.drop = self.make_part(Dropout, "dropout", dropout)
        self.act = activation_layer(activation, "activation", self.dtype_policy)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        if dim is None or dim % (self.heads * self.fields):
            raise ValueError(
                f"The last axis of the inputs must be a multiple of `heads` * `fields` = {self.heads * self.fields}. "
                f"Received shape: {input_shape}"
            )
        width = dim // self.heads
        fans = (dim, self.rows * dim) if self.released else (width, self.rows * width)
        shape = fans if self.released else (self.heads, *fans)
        self.kernel = self.make_weight("kernel", shape, xavier_normal(fans))
        self.bias = self.add_weight(name="bias", shape=(self.rows * dim,), initializer="zeros")
        for layer in (self.norm, self.act):
            if layer is not None:
                layer.build((*input_shape[:-1], self.rows * dim))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.on_passes(Passes(inputs), mask, training).only

    def on_passes(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        """The outputs of several passes, with one projection for those whose inputs are equal."""
        factors = inputs.map(lambda one: self._factors(one, mask, training)).through(self.mid_drop, training=training)
        return inputs.map(self._outputs, factors).through(self.drop, training=training)

    def _factors(self, inputs: Any, mask: Any, training: bool | None) -> Any:
        """The activated projections `[..., R * D]`, ordered by head, then by row."""
        dim = inputs.shape[-1]
        if self.released or self.heads == 1:
            projected = ops.matmul(inputs, ops.reshape(self.kernel, (dim, self.rows * dim)))
        else:
            projected = join_heads(contract("hd,hdk->hk", by_head(inputs, self.heads), self.kernel))
        projected = projected + self.bias
        if self.norm is not None:
            projected = self.norm(projected, mask=mask, training=training)
        return apply_activation(self.act, projected, mask, training)

    def _outputs(self, inputs: Any, factors: Any) -> Any:
        # Sums of slices and not `ops.sum`: XLA on CPU vectorises them, together with the activation and dropout before.
        slices = ops.split(factors, self.heads * self.rows, axis=-1)
        heads = [slices[i : i + self.rows] for i in range(0, len(slices), self.rows)]
        outputs = ops.concatenate([sum(others, first) for first, *others in heads], axis=-1)
        if self.product:
            outputs = outputs * (order_by_head(inputs, self.fields, self.heads) if self.released else inputs)
        return outputs + inputs if self.residual else outputs

    def fold_into(self, folded: "KhatriRaoProduct") -> None:
        """Give a layer without normalization the weights that make it equal to this one in inference.

        The normalization goes into kernel and bias. If `folded` has one row, the rows are summed, which is correct only
        without an activation. The sums run in float64.
        """
        kernel, bias = (ops.convert_to_numpy(value).astype("float64") for value in (self.kernel, self.bias))
        scale, shift = (np.ones_like(bias), 0.0) if self.norm is None else self.norm.affine()
        bias = bias * scale + shift
        # The outputs are ordered by head, then by row. The paper's kernel has the heads as its first axis.
        kernel = kernel * (scale if self.released else scale.reshape(self.heads, 1, -1))
        if folded.rows < self.rows:
            width = len(bias) // (self.heads * self.rows)
            kernel = kernel.reshape(len(kernel), -1, self.rows, width).sum(-2)
            bias = bias.reshape(self.heads, self.rows, width).sum(-2)
        folded.kernel.assign(kernel.reshape(folded.kernel.shape))
        folded.bias.assign(bias.reshape(-1))
        folded.act.set_weights(self.act.get_weights())


def order_by_head(inputs: Any, fields: int, heads: int) -> Any:
    """Reorder `[..., D]` from field after field to head after head, where a head has its slice of every field."""
    if heads == 1:
        return inputs
    leading, dim = ops.shape(inputs)[:-1], inputs.shape[-1]
    split = ops.reshape(inputs, (*leading, fields, heads, dim // (fields * heads)))
    return ops.reshape(ops.swapaxes(split, -3, -2), (*leading, dim))


@interaction("qnn_alpha")
class QnnAlpha(HeadedInteraction):
    """QNN-alpha as the paper writes it: each head has weights of its own for its slice of every field.

        x^0   = the fields, sliced by head
        x^l_h = x^{l-1}_h * sum_r relu(norm(x^{l-1}_h W^l_hr + b^l_hr)) + x^{l-1}_h
        logit = w . x^L + b

    A head keeps its slice through all layers; the last linear layer joins them. Parameters and multiplications of the
    layers are divided by the number of heads. `QnnAlphaReleased` is the form of the released code; with one head both
    are the same function. Train it with the `self_ensemble` loss, which has no effect without dropout.

    Args:
        layers: L.
        heads: H; must divide the embedding width.
        rows: R (the paper's M), the number of projections that are summed.
        activation: the mid-activation: a Keras activation's name, `prelu` (one slope a layer), `dice` (one a
            coordinate of the projections) or None for none.
        batch_norm: whether to normalize before the mid-activation.
        dropout: the rate after each layer.
        mid_dropout: the rate after each mid-activation; by default `dropout`.
        residual: whether each layer adds its input.
        product: whether each layer multiplies by its input. Without, x^l_h is sum_r relu(norm(x^{l-1}_h W^l_hr +
            b^l_hr)) + x^{l-1}_h. This is the ablation "w/o KRP", of which the paper says only that a linear
            transformation takes the place of the product. That it is the one of the projections, so that the product
            alone is missing, is our reading.

    Inputs float `[..., D]` with one head, `[..., F, E]` with more; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(QnnAlpha(layers=1, heads=4, rows=4)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), equation 10, and section 4.3 for
        the ablations: table 4 and, for the activations, figure 5.
    """

    released: ClassVar[bool] = False

    def __init__(
        self,
        layers: int = 2,
        heads: int = 1,
        rows: int = 4,
        activation: str | None = "relu",
        batch_norm: bool = True,
        dropout: float = 0.1,
        mid_dropout: float | None = None,
        residual: bool = True,
        product: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = check_count("layers", layers)
        self.heads = check_count("heads", heads)
        # With more than one head, each reads a slice of every field.
        self.eats = "flat" if heads == 1 else "fields"
        self.rows = check_count("rows", rows)
        self.activation = check_activation("activation", activation, more=("prelu", "dice"))
        self.batch_norm = check_flag("batch_norm", batch_norm)
        self.dropout = check_rate("dropout", dropout)
        self.mid_dropout = check_rate("mid_dropout", dropout if mid_dropout is None else mid_dropout)
        self.residual = check_flag("residual", residual)
        self.product = check_flag("product", product)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        self.fields, width = (1, known_width(input_shape)) if self.eats == "flat" else token_shape(input_shape)
        if width % self.heads:
            raise ValueError(f"`heads` must divide the embedding width {width}. Received: {self.heads}")
        rates = (self.dropout, self.mid_dropout)
        terms = (self.residual, self.product)
        own = (self.heads, self.rows, self.fields, self.activation, self.batch_norm, *rates, *terms)
        total = self.fields * width
        self.products = [
            self.make_part(KhatriRaoProduct, f"layer{i}", *own, released=self.released, built_for=(None, total))
            for i in range(self.layers)
        ]
        return total

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        x = inputs.map(self._as_heads)
        for product in self.products:
            x = product.on_passes(x, mask, training)
        return x

    def _as_heads(self, inputs: Any) -> Any:
        """The vector that the first layer reads."""
        if self.eats == "flat":
            return inputs
        x = as_vector(inputs)
        return x if self.released else order_by_head(x, self.fields, self.heads)

    def fold(self) -> "QnnAlpha":
        """An equal backbone for inference, without normalization and, if there is no mid-activation, with one row."""
        rows = 1 if self.activation in (None, "linear") else self.rows
        if rows == self.rows and not self.batch_norm:
            return self
        config = {"rows": rows, "batch_norm": False, "dropout": 0.0, "mid_dropout": 0.0}
        folded: QnnAlpha = type(self).from_config({**self.get_config(), **config})
        self.start_fold(folded)
        for product, other in zip(self.products, folded.products, strict=True):
            product.fold_into(other)
        return folded


@interaction("qnn_alpha_released")
class QnnAlphaReleased(QnnAlpha):
    """QNN-alpha as its authors released it, and as their published results were computed.

    It differs from `QnnAlpha` if there is more than one head. Each head's weights read the whole input, so that more
    heads do not save parameters. The product is ordered by head, but the residual that is added to it, and the slices
    of the next layer, are ordered by field. Arguments, inputs and outputs are those of `QnnAlpha`.

    Example:
        >>> layer = QnnAlphaReleased(layers=1, rows=2, heads=2)
        >>> tuple(layer(keras.random.normal((4, 5, 8))).shape)
        (4,)

    References:
        The authors' released code; its form with one head is equation 10 of the paper.
    """

    released: ClassVar[bool] = True
