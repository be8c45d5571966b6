"""The quadratic backbone of QIN, and the form that it is served in."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_count, check_flag, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import activation_layer
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import known_width


@tfctr_export
class QuadraticProduct(SameShapeLayer):
    """One layer of QIN's backbone: the input times a sum of projections of itself, then norm and activation.

        y = act(norm(x * sum_r (x W_r + b_r))) + x

    Unlike in `KhatriRaoProduct`, the projections are linear, and the product is normalized and activated. In inference
    one projection with the sum of the R matrices therefore gives the same output; `Qin.fold` computes this sum.

    Args:
        rows: R, the number of projections that are summed.
        activation: a Keras activation's name, `prelu` (one slope for all), or None.
        batch_norm: whether to normalize the product.
        dropout: the rate after the activation.
        linear_dropout: the rate on each projection, before the sum.
        residual: whether to add the input.
        shift: whether a vector is added to the product, as the shift of a normalization that was folded.

    Call arguments:
        inputs: float `[..., D]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[..., D]`.

    Example:
        >>> tuple(QuadraticProduct(rows=3)(keras.random.normal((8, 50, 20))).shape)
        (8, 50, 20)

    References:
        Quadratic Interest Network for Multimodal Click-Through Rate Prediction (2025), section 2.2. The paper writes
        act(x * W x); normalization, dropout and residual are those of the released code.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        rows: int,
        activation: str | None = "prelu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        linear_dropout: float = 0.0,
        residual: bool = True,
        shift: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = check_count("rows", rows)
        self.residual = check_flag("residual", residual)
        self.shift = check_flag("shift", shift)
        self.norm = self.make_part(BatchNormalization, "bn") if check_flag("batch_norm", batch_norm) else None
        activation = check_activation("activation", activation, more=("prelu",))
        self.act = activation_layer(activation, "activation", self.dtype_policy)
        rate, linear_rate = check_rate("dropout", dropout), check_rate("linear_dropout", linear_dropout)
        self.linear_drop = self.make_part(Dropout, "linear_dropout", linear_rate)
        self.drop = self.make_part(Dropout, "dropout", rate)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim = known_width(input_shape)
        self.kernel = self.make_weight("kernel", (dim, self.rows * dim), xavier_normal())
        self.bias = self.add_weight(name="bias", shape=(self.rows * dim,), initializer="zeros")
        if self.shift:
            self.offset = self.add_weight(name="shift", shape=(dim,), initializer="zeros")
        for layer in (self.norm, self.act):
            if layer is not None:
                layer.build(input_shape)
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.on_passes(Passes(inputs), mask, training).only

    def on_passes(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        """The outputs of several passes, with one projection for those whose inputs are equal."""
        projected = inputs.map(lambda x: ops.matmul(x, self.kernel) + self.bias)
        factors = projected.through(self.linear_drop, training=training)
        outputs = inputs.map(lambda x, by: self._activated(x, by, mask, training), factors)
        outputs = outputs.through(self.drop, training=training)
        return outputs.map(ops.add, inputs) if self.residual else outputs

    def _activated(self, inputs: Any, factors: Any, mask: Any, training: bool | None) -> Any:
        if self.rows > 1:
            factors = ops.reshape(factors, (*ops.shape(inputs)[:-1], self.rows, inputs.shape[-1]))
            factors = ops.sum(factors, axis=-2)
        outputs = inputs * factors
        if self.norm is not None:
            outputs = self.norm(outputs, mask=mask, training=training)
        if self.shift:
            outputs = outputs + self.offset
        return self.act(outputs)

    def fold_into(self, folded: "QuadraticProduct") -> None:
        """Give a layer of one row and without normalization the weights that make it equal to this one in inference.

        With the normalization's scale s = gamma / sqrt(var + eps) and its shift c = beta - mean * s,

            norm(x * sum_r (x W_r + b_r)) = x * (x (sum_r W_r) s + (sum_r b_r) s) + c

        The sums run in float64.
        """
        dim = self.kernel.shape[0]
        kernel = ops.convert_to_numpy(self.kernel).astype("float64").reshape(dim, self.rows, dim).sum(1)
        bias = ops.convert_to_numpy(self.bias).astype("float64").reshape(self.rows, dim).sum(0)
        if self.norm is not None:
            scale, shift = self.norm.affine()
            kernel, bias = kernel * scale, bias * scale
            folded.offset.assign(shift)
        folded.kernel.assign(kernel)
        folded.bias.assign(bias)
        folded.act.set_weights(self.act.get_weights())


@interaction("qin")
class Qin(HeadedInteraction):
    """QIN's quadratic network.

        x^l = act(norm(x^{l-1} * sum_r (x^{l-1} W^l_r + b^l_r))) + x^{l-1}
        logit = w . x^L + b

    The reference warns that training can be unstable with four rows, and says that three are safe.

    Args:
        layers: L.
        rows: R, the number of projections that are summed.
        activation: `prelu` (one slope per layer), a Keras activation's name, or None.
        batch_norm: whether to normalize before each activation.
        dropout: the rate after each activation.
        linear_dropout: the rate on each projection; by default `dropout`.
        residual: whether each layer adds its input.

    Inputs float `[..., D]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Qin(layers=2, rows=3)(keras.random.normal((8, 50, 20))).shape)
        (8, 50)

    References:
        Quadratic Interest Network for Multimodal Click-Through Rate Prediction (2025), section 2.2. The layers follow
        the released code, see `QuadraticProduct`.
    """

    shift: bool = False

    def __init__(
        self,
        layers: int = 4,
        rows: int = 4,
        activation: str | None = "prelu",
        batch_norm: bool = True,
        dropout: float = 0.1,
        linear_dropout: float | None = None,
        residual: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = check_count("layers", layers)
        self.rows = check_count("rows", rows)
        self.activation = check_activation("activation", activation, more=("prelu",))
        self.batch_norm = check_flag("batch_norm", batch_norm)
        self.dropout = check_rate("dropout", dropout)
        self.linear_dropout = check_rate("linear_dropout", dropout if linear_dropout is None else linear_dropout)
        self.residual = check_flag("residual", residual)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        width = known_width(input_shape)
        rates = (self.dropout, self.linear_dropout)
        own = (self.rows, self.activation, self.batch_norm, *rates, self.residual, self.shift)
        self.products = [
            self.make_part(QuadraticProduct, f"layer{i}", *own, built_for=(None, width)) for i in range(self.layers)
        ]
        return width

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        x = inputs
        for product in self.products:
            x = product.on_passes(x, mask, training)
        return x

    def fold(self) -> "Qin":
        """An equal backbone for inference: one matrix per layer replaces R matrices and the normalization's scale."""
        if self.rows == 1 and not self.batch_norm:
            return self
        options: dict[str, Any] = {"activation": self.activation, "residual": self.residual, "dtype": self.dtype_policy}
        folded = FoldedQin(self.layers, shift=self.batch_norm, name=self.name, **options)
        self.start_fold(folded)
        for product, other in zip(self.products, folded.products, strict=True):
            product.fold_into(other)
        return folded


@tfctr_export
class FoldedQin(Qin):
    """`Qin` as it is served, with one matrix per layer. It is for inference only, and `Qin.fold` makes it.

        x^l = act(x^{l-1} * (x^{l-1} W^l + b^l) + c^l) + x^{l-1}

    W and b are the sums over the rows, times the normalization's scale, and c is the normalization's shift. The layers
    have R times fewer parameters and multiplications.

    Args:
        layers: L.
        activation: as in `Qin`.
        residual: whether each layer adds its input.
        shift: whether there is a c, that is, whether the trained backbone has batch normalization.

    Call arguments and output shape: see `Qin`.

    Example:
        >>> backbone = Qin(layers=2, rows=4)
        >>> backbone.build((None, 20))
        >>> backbone.count_params(), backbone.fold().count_params()
        (3543, 903)
    """

    fixed_arguments = ("rows", "batch_norm", "dropout", "linear_dropout")

    def __init__(self, layers: int = 4, shift: bool = True, **kwargs: Any) -> None:
        super().__init__(layers, 1, batch_norm=False, dropout=0.0, **kwargs)
        self.shift = check_flag("shift", shift)
