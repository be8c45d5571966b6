"""FINAL: blocks of factorized interaction layers, whose degree doubles with each layer."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, Interaction, interaction
from tfctr.interactions.headed import create_part
from tfctr.layers.arguments import check_choice, check_count, check_flag
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import as_vector, flat_shape, known_width, token_shape

Residual = Literal["concat", "sum"]
RESIDUALS = ("concat", "sum")


@tfctr_export
class FactorizedInteraction(ConfiguredLayer):
    """A linear layer whose halves are multiplied: its outputs are of first and of second degree.

        a, b = halves of x W + c
        concat      y = [a; a * b],     W is [D, units]
        sum         y = a + a * b,      W is [D, 2 units]

    Args:
        units: the width of the output; even for `concat`.
        residual: `concat` or `sum`: how first and second degree are joined.

    Call arguments:
        inputs: float `[..., D]`.

    Output shape: `[..., units]`.

    Raises:
        ValueError: if `units` is odd and `residual` is `concat`.

    Example:
        >>> tuple(FactorizedInteraction(6)(keras.random.normal((8, 50, 20))).shape)
        (8, 50, 6)

    References:
        Zhu et al., FINAL: Factorized Interaction Layer for CTR Prediction (SIGIR 2023), the fast exponentiation, in
        the form of the public implementation, which has both ways to join.
    """

    weight_kinds = ("kernel",)

    def __init__(self, units: int, residual: Residual = "concat", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check_count("units", units)
        self.residual = check_choice("residual", residual, RESIDUALS)
        if residual == "concat" and units % 2:
            raise ValueError(f"`units` must be even for residual concat, which joins two halves. Received: {units}")
        self.linear = self.make_dense("linear", 2 * units if residual == "sum" else units, initializer=xavier_normal())
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        self.linear.build(input_shape)
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        first, second = ops.split(self.linear(inputs), 2, axis=-1)
        product = first * second
        return first + product if self.residual == "sum" else ops.concatenate([first, product], axis=-1)

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)


@tfctr_export
class FactorizedBlock(MlpBlock):
    """An `MlpBlock` with a `FactorizedInteraction` in the place of each linear layer.

        h_0 = x,    h_i = dropout(activation(norm(interaction_i(h_{i-1}))))

    After l layers without activation, h holds products of up to 2^l coordinates of x.

    Args:
        hidden: the widths of the layers, even for `concat`.
        activation: as in `MlpBlock`.
        batch_norm: whether to normalize before the activation.
        dropout: the dropout rate after each activation.
        residual: as in `FactorizedInteraction`.

    Call arguments and output shape: see `MlpBlock`.

    Raises:
        ValueError: if `hidden` is empty.

    Example:
        >>> tuple(FactorizedBlock([12, 6])(keras.random.normal((8, 50, 20))).shape)
        (8, 50, 6)

    References:
        Zhu et al., FINAL (SIGIR 2023); normalization, activation and dropout are those of the public implementation.
    """

    fixed_arguments = ("output",)

    def __init__(
        self,
        hidden: Sequence[int] = (400, 400),
        activation: str | None = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        residual: Residual = "concat",
        **kwargs: Any,
    ) -> None:
        # Before the constructor of the base, which makes the layers.
        self.residual = residual
        super().__init__(hidden, activation, batch_norm, dropout, **kwargs)
        if not self.hidden:
            raise ValueError("`hidden` must not be empty. Received: []")

    @override
    def make_linear(self, name: str, units: int) -> FactorizedInteraction:
        return self.make_part(FactorizedInteraction, name, units, self.residual)


@tfctr_export
class FieldGate(ConfiguredLayer):
    """The fields, and beside them each field times a linear combination of all fields.

        y = [X; X * (G X + g 1^T)]  on the axis of the fields

    G starts at zero and g at one, so that at first the second half is equal to the first.

    Call arguments:
        inputs: X, float `[..., F, E]`.

    Output shape: `[..., 2 F, E]`.

    Example:
        >>> tuple(FieldGate()(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 14, 16)

    References:
        Zhu et al., FINAL (SIGIR 2023), field-aware feature selection.
    """

    weight_kinds = ("kernel",)

    @override
    def build(self, input_shape: Shape) -> None:
        fields = token_shape(input_shape)[0]
        self.kernel = self.make_weight("kernel", (fields, fields), "zeros")
        self.bias = self.add_weight(name="bias", shape=(fields,), initializer="ones")
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        # With the fields on the last axis this is one product with a plain matrix.
        gates = ops.matmul(ops.swapaxes(inputs, -1, -2), self.kernel) + self.bias
        return ops.concatenate([inputs, inputs * ops.swapaxes(gates, -1, -2)], axis=-2)

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        fields, width = token_shape(input_shape)
        return (*input_shape[:-2], 2 * fields, width)


@interaction("final")
class Final(Interaction):
    """FINAL: one block of factorized interaction layers with a linear head, or two whose logits are averaged.

        1B      logit = w_1 . block_1(x) + b_1
        2B      logit = (logit_1 + logit_2) / 2,    logit_k = w_k . block_k(x) + b_k

    Two blocks are the branches of the backbone: with `loss: {type: self_ensemble, over: branches, mean: logit}` each of
    them also learns from their common prediction, as in the paper.

    Args:
        block1: arguments of `FactorizedBlock`.
        block2: arguments of the second block; None for FINAL 1B.
        field_gate: whether the first block reads the fields through a `FieldGate`.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Raises:
        ValueError: for arguments that `FactorizedBlock` refuses.

    Example:
        >>> layer = Final({"hidden": [12, 6]}, {"hidden": [8]}, field_gate=True)
        >>> tuple(layer(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Zhu et al., FINAL: Factorized Interaction Layer for CTR Prediction (SIGIR 2023), 1B and 2B, in the form of the
        public implementation and with the settings of its authors' runs (BARS), where the gate feeds the first block
        only.
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"

    def __init__(
        self,
        block1: Mapping[str, Any] | None = None,
        block2: Mapping[str, Any] | None = None,
        field_gate: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gate = self.make_part(FieldGate, "gate") if check_flag("field_gate", field_gate) else None
        given = {"block1": {} if block1 is None else block1, **({} if block2 is None else {"block2": block2})}
        self.blocks = [self._create_block(argument, config) for argument, config in given.items()]
        self.heads = [self.make_dense(f"head{i}", 1, initializer=xavier_normal()) for i, _ in enumerate(given, 1)]
        self.branches = len(self.blocks)

    def _create_block(self, argument: str, config: Any) -> FactorizedBlock:
        if not isinstance(config, Mapping):
            raise ValueError(f"`{argument}` must be a mapping of arguments of FactorizedBlock. Received: {config!r}")
        return create_part(self, argument, {"block": FactorizedBlock}, {"type": "block", **config})

    @override
    def build(self, input_shape: Shape) -> None:
        shapes = [input_shape] * self.branches
        if self.gate is not None:
            self.gate.build(input_shape)
            shapes[0] = self.gate.compute_output_shape(input_shape)
        for block, head, shape in zip(self.blocks, self.heads, shapes, strict=True):
            block.build(flat_shape(shape))
            head.build((None, known_width(block.compute_output_shape(flat_shape(shape)))))
        self.built = True

    @override
    def branch_logits(self, inputs: Any, mask: Any = None, training: bool | None = None, **_: Any) -> Any:
        read = [inputs] * self.branches
        if self.gate is not None:
            read[0] = self.gate(inputs)
        parts = zip(self.blocks, self.heads, read, strict=True)
        logits = [head(block(as_vector(x), mask=mask, training=training)) for block, head, x in parts]
        return ops.stack([ops.squeeze(one, -1) for one in logits])

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return ops.mean(self.branch_logits(inputs, mask=mask, training=training), axis=0)
