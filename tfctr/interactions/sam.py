"""SAM, self-attentive models for click-through rates."""

from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_choice, check_count, check_flag, check_rate
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.tokens import as_vector, contract, known_width, token_shape

Kind = Literal["2A", "2E", "3A", "3E"]
KINDS = ("2A", "2E", "3A", "3E")
Aggregation = Literal["concat", "weighted", "mean", "sum"]
AGGREGATIONS = ("concat", "weighted", "mean", "sum")


@tfctr_export
class SelfAttentiveLayer(ConfiguredLayer):
    """One layer of SAM: similarities of pairs of fields, times values of the pairs.

        2A    y_ij = S_ij W_ij                            S_ij = x_i . x_j
        2E    y_ij = S_ij (x_i * x_j)
        3A    y_i  = sum_j S_ij W_ij [+ Q x_i]            S_ij = x_i . K x_j
        3E    y_i  = sum_j S_ij (x_i * x_j) [+ Q x_i]

    There is no softmax. W_ij, a vector for each pair, starts at one.

    Args:
        form: one of the above.
        residual: whether 3A and 3E have Q x.

    Call arguments:
        inputs: float `[..., F, E]`.

    Output shape: `[..., F * F, E]` for 2A and 2E, `[..., F, E]` for 3A and 3E.

    Example:
        >>> tuple(SelfAttentiveLayer("3A")(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 16)

    References:
        Cheng and Xue, Looking at CTR Prediction Again: Is Attention All You Need? (2021), SAM2 and SAM3. K starts at a
        1 / F of the public implementation's Xavier-normal values.
    """

    weight_kinds = ("kernel",)

    def __init__(self, form: Kind = "3A", residual: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = check_choice("form", form, KINDS)
        self.deep = form.startswith("3")
        self.use_residual = check_flag("residual", residual)
        if residual and not self.deep:
            raise ValueError(f"`residual` is for forms 3A and 3E only. Received form: {form!r}")

    @override
    def build(self, input_shape: Shape) -> None:
        fields, width = token_shape(input_shape)
        if self.form.endswith("A"):
            self.values = self.make_weight("values", (fields, fields, width), "ones")
        if self.deep:
            # Divided by F, since each token sums over F: a stack multiplies its sums, and would start at any size.
            self.key = self.make_dense("key", width, width, xavier_normal(gain=1 / fields), use_bias=False)
        if self.use_residual:
            self.residual = self.make_dense("residual", width, width, xavier_normal(), use_bias=False)
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        keys = self.key(inputs) if self.deep else inputs
        similarities = ops.matmul(inputs, ops.swapaxes(keys, -1, -2))
        if self.form == "2A":
            return self._tokens(ops.expand_dims(similarities, -1) * self.values)
        if self.form == "2E":
            pairs = ops.expand_dims(inputs, -2) * ops.expand_dims(inputs, -3)
            return self._tokens(ops.expand_dims(similarities, -1) * pairs)
        if self.form == "3A":
            found = contract("ij,ije->ie", similarities, self.values)
        else:
            found = inputs * ops.matmul(similarities, inputs)
        return found + self.residual(inputs) if self.use_residual else found

    @staticmethod
    def _tokens(pairs: Any) -> Any:
        *leading, fields, _, width = ops.shape(pairs)
        return ops.reshape(pairs, (*leading, fields * fields, width))

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        fields, width = token_shape(input_shape)
        return (*input_shape[:-2], fields if self.deep else fields * fields, width)


@interaction("sam")
class Sam(HeadedInteraction):
    """SAM: layers of self-attention without softmax over the fields, joined under a linear layer.

        X^0 = the fields;    X^k = dropout(SelfAttentiveLayer(X^{k-1}));    logit = w . aggregate(X^K) + b

    Args:
        form: `2A`, `2E` (one layer only), `3A` or `3E`, see `SelfAttentiveLayer`.
        layers: K.
        residual: whether the layers of 3A and 3E have a residual, by a matrix.
        aggregation: how the tokens of X^K become one vector: `concat`, their `weighted` sum with learned weights that
            start at one, their `mean`, or their `sum`.
        dropout: the dropout rate after each layer.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Sam("3A", layers=2)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Cheng and Xue, Looking at CTR Prediction Again: Is Attention All You Need? (2021), SAM2 and SAM3, with the
        aggregations of the public implementations.
    """

    eats: Eats = "fields"

    def __init__(
        self,
        form: Kind = "3A",
        layers: int = 1,
        residual: bool = False,
        aggregation: Aggregation = "concat",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        numbers = range(check_count("layers", layers))
        if layers > 1 and check_choice("form", form, KINDS).startswith("2"):
            raise ValueError(f"Forms 2A and 2E have one layer. Received layers: {layers}")
        self.aggregation = check_choice("aggregation", aggregation, AGGREGATIONS)
        rate = check_rate("dropout", dropout)
        self.attentions = [self.make_part(SelfAttentiveLayer, f"layer{i}", form, residual) for i in numbers]
        self.drops = [self.make_part(Dropout, f"dropout{i}", rate) for i in numbers]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        shape = tuple(input_shape)
        for layer in self.attentions:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        tokens, width = token_shape(shape)
        if self.aggregation == "weighted":
            self.shares = self.make_weight("shares", (tokens,), "ones")
        return tokens * width if self.aggregation == "concat" else known_width(shape)

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        x = inputs
        for layer, drop in zip(self.attentions, self.drops, strict=True):
            x = drop(layer(x), training=training)
        if self.aggregation == "concat":
            return as_vector(x)
        if self.aggregation == "weighted":
            return contract("te,t->e", x, self.shares)
        return ops.mean(x, axis=-2) if self.aggregation == "mean" else ops.sum(x, axis=-2)
