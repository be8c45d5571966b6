"""The pieces of a layer of DLF: three interaction blocks and the gated residual."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_choice, check_count, check_flag, check_positive, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import TokenMap, TokenProducts, as_tokens, as_vector, token_shape

Kind = Literal["low", "high", "implicit"]
BLOCKS: tuple[Kind, ...] = ("low", "high", "implicit")


@tfctr_export
class DlfBlock(ConfiguredLayer):
    """One of the three blocks of a DLF layer, from N tokens to n.

        low:      Z_L = relu(flatten(B X^T Y_L) W_L + b_L)       B: the fields
        high:     Z_C = relu(flatten(X X^T Y_C) W_C + b_C)
        implicit: Z_D = relu(flatten(X) W_D + b_D)

    With `normalize` the products, B X^T Y_L and X X^T Y_C, are divided by sqrt(2 N d / R), their size at the start for
    unrelated tokens of unit size, since the elements of Y start with a variance of 2 / R.

    If X has another number of tokens than there are fields, a learned matrix first maps the fields to N tokens.

    Args:
        kind: `low`, `high` or `implicit`.
        tokens: n.
        rank: R, the number of columns of Y.
        hidden: widths of layers with ReLU before the last one; the paper's equations have none.
        dropout: the rate after every ReLU.
        normalize: whether to divide the products so.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, the fields, float `[..., F, d]`.
        training: whether to drop out.

    Output shape: `[..., n, d]`.

    Example:
        >>> fields = keras.random.normal((8, 50, 7, 16))
        >>> tuple(DlfBlock("low", tokens=4)(fields, fields).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), equations 5 to 7, in the reading that `Dlf` explains.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        kind: Kind,
        tokens: int = 8,
        rank: int = 8,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = check_choice("kind", kind, BLOCKS)
        self.tokens = check_count("tokens", tokens)
        self.rank = check_count("rank", rank)
        self.hidden = check_units("hidden", hidden)
        self.dropout = check_rate("dropout", dropout)
        self.normalize = check_flag("normalize", normalize)

    @override
    def build(self, inputs_shape: Shape, base_shape: Shape) -> None:
        (count, self.width), fields = token_shape(inputs_shape), token_shape(base_shape)[0]
        self.base_map: TokenMap | None = None
        if self.kind == "low" and fields != count:
            self.base_map = self.make_part(TokenMap, "base", count, built_for=base_shape)
        self.products: TokenProducts | None = None
        if self.kind != "implicit":
            self.products = self.make_part(TokenProducts, "products", self.rank, built_for=inputs_shape)
            self.scale = math.sqrt(2 * count * self.width / self.rank) if self.normalize else 1.0
        units = [*self.hidden, self.tokens * self.width]
        size = count * (self.width if self.products is None else self.rank)
        self.block = self.make_part(MlpBlock, "block", units, dropout=self.dropout, built_for=(None, size))
        self.built = True

    @override
    def call(self, inputs: Any, base: Any, training: bool | None = None) -> Any:
        x = inputs
        if self.products is not None:
            if self.kind == "high":
                base = inputs
            elif self.base_map is not None:
                base = self.base_map(base)
            x = self.products(inputs, base) / self.scale
        return as_tokens(self.block(as_vector(x), training=training), self.tokens, self.width)

    @override
    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape) -> Shape:
        return (*inputs_shape[:-2], self.tokens, inputs_shape[-1])


@tfctr_export
class GatedResidual(ConfiguredLayer):
    """The residual of a DLF layer: its input as n tokens, each element times a gate that the tokens compute.

        y = max(epsilon, P W) * P,    P = the input, mapped to n tokens if it has another number of them

    Args:
        tokens: n.
        gate: whether there is a gate; else y = P.
        epsilon: the least value of the gate.

    Call arguments:
        inputs: float `[..., N, d]`.

    Output shape: `[..., n, d]`.

    Example:
        >>> tuple(GatedResidual(tokens=12)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 12, 16)

    References:
        Wang et al., DLF (2025), equation 9.
    """

    weight_kinds = ("kernel",)

    def __init__(self, tokens: int, gate: bool = True, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = check_count("tokens", tokens)
        self.gate = check_flag("gate", gate)
        self.epsilon = check_positive("epsilon", epsilon)

    @override
    def build(self, input_shape: Shape) -> None:
        count, width = token_shape(input_shape)
        mapped = count != self.tokens
        self.map = self.make_part(TokenMap, "map", self.tokens, built_for=input_shape) if mapped else None
        self.kernel = self.make_weight("kernel", (width, width), xavier_normal()) if self.gate else None
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        x = inputs if self.map is None else self.map(inputs)
        return x if self.kernel is None else ops.maximum(ops.matmul(x, self.kernel), self.epsilon) * x

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-2], self.tokens, input_shape[-1])
