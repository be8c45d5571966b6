"""DLF: low-order, high-order and implicit interactions, fused layer by layer."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_choice, check_count, check_flag, check_positive, check_rate, check_units
from tfctr.layers.block_fusion import AttentionFusion, BlockFusion, GatePooling, MlpFusion
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dlf_blocks import BLOCKS, DlfBlock, GatedResidual, Kind
from tfctr.layers.export import tfctr_export
from tfctr.layers.fused import keep_gradient
from tfctr.layers.tokens import as_vector, token_shape, unit_size

Fusion = Literal["naf", "concat", "mlp", "gate_pooling", "attention_pooling"]
FUSIONS = ("naf", "concat", "mlp", "gate_pooling", "attention_pooling")


@tfctr_export
class DlfLayer(ConfiguredLayer):
    """One layer of DLF: parallel blocks, their fusion, and the gated residual.

        Z = [Z_L; Z_C; Z_D; fusion(Z_L, Z_C, Z_D)]      by tokens
        y = Z + max(epsilon, P W_gate) * P              P: the input, mapped to as many tokens as Z has

    With `normalize` each token of y is divided by its root mean square, and the products are scaled as `DlfBlock` does.

    Args:
        tokens: n, the tokens that each block and the fusion give.
        rank: R, the columns that the products of tokens are compressed to.
        hidden: widths of layers with ReLU before the last one of each block.
        gate: whether the residual is gated.
        fusion: as for `Dlf`, except `late`.
        attention_layers: the number of attention layers of `naf`.
        epsilon: the least value of the gate.
        dropout: the rate after the ReLUs of the blocks.
        normalize: whether to scale products and outputs.
        blocks: the blocks, from `low`, `high` and `implicit`.

    Call arguments:
        inputs: float `[..., N, d]`.
        base: the fields, float `[..., F, d]`.
        training: whether to drop out.

    Output shape: `[..., M, d]`: M is n times the number of blocks, and n more unless the fusion is `concat`.

    Example:
        >>> fields = keras.random.normal((8, 50, 7, 16))
        >>> tuple(DlfLayer(tokens=4)(fields, fields).shape)
        (8, 50, 16, 16)

    References:
        Wang et al., DLF (2025), equations 5 to 15, in the reading that `Dlf` explains.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        tokens: int = 8,
        rank: int = 8,
        hidden: Sequence[int] = (),
        gate: bool = True,
        fusion: Fusion = "naf",
        attention_layers: int = 1,
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        normalize: bool = True,
        blocks: Sequence[Kind] = BLOCKS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tokens = check_count("tokens", tokens)
        self.rank = check_count("rank", rank)
        self.hidden = check_units("hidden", hidden)
        self.gate = check_flag("gate", gate)
        self.fusion = check_choice("fusion", fusion, FUSIONS)
        self.attention_layers = check_count("attention_layers", attention_layers)
        self.epsilon = check_positive("epsilon", epsilon)
        self.dropout = check_rate("dropout", dropout)
        self.normalize = check_flag("normalize", normalize)
        self.blocks = list(blocks)

    @override
    def build(self, inputs_shape: Shape, base_shape: Shape) -> None:
        width = token_shape(inputs_shape)[1]
        self.parts = [
            self.make_part(DlfBlock, kind, kind, self.tokens, self.rank, self.hidden, self.dropout, self.normalize)
            for kind in self.blocks
        ]
        for part in self.parts:
            part.build(inputs_shape, base_shape)
        self.fuse = self._fusion()
        if self.fuse is not None:
            self.fuse.build([(*inputs_shape[:-2], self.tokens, width)] * len(self.parts))
        count = self.tokens * (len(self.parts) + (self.fuse is not None))
        self.residual = self.make_part(
            GatedResidual, "residual", count, self.gate, self.epsilon, built_for=inputs_shape
        )
        self.built = True

    def _fusion(self) -> BlockFusion | None:
        if self.fusion in ("naf", "attention_pooling"):
            return self.make_part(AttentionFusion, self.fusion, self.attention_layers, self.fusion == "naf")
        if self.fusion == "mlp":
            return self.make_part(MlpFusion, self.fusion)
        return self.make_part(GatePooling, self.fusion) if self.fusion == "gate_pooling" else None

    @override
    def call(self, inputs: Any, base: Any, training: bool | None = None) -> Any:
        blocks = [part(inputs, base, training=training) for part in self.parts]
        if self.fuse is not None:
            blocks.append(self.fuse(blocks))
        outputs = ops.concatenate(blocks, axis=-2) + self.residual(inputs)
        return keep_gradient(unit_size(outputs, -1, 1e-5) if self.normalize else outputs)

    @override
    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape) -> Shape:
        count = self.tokens * (len(self.blocks) + (self.fusion != "concat"))
        return (*inputs_shape[:-2], count, inputs_shape[-1])


@interaction("dlf")
class Dlf(HeadedInteraction):
    """DLF, dynamic low-order-aware fusion, as the paper writes it.

        E^1 = the fields
        Z_L = relu(flatten(T^T E^1 (E^l)^T Y_L) W_L + b_L)        low order: with the fields
        Z_C = relu(flatten(E^l (E^l)^T Y_C) W_C + b_C)            high order: with itself
        Z_D = relu(flatten(E^l) W_D + b_D)                        implicit
        Z   = [Z_L; Z_C; Z_D; NAF(Z_L, Z_C, Z_D)]                 `AttentionFusion`
        E^{l+1} = Z + max(epsilon, P W_gate) * P                  P = E^l, mapped to as many tokens as Z has
        logit = w . flatten(E^{L+1}) + b

    The paper's shapes do not fit together: W_{L_I}, R x d, cannot be multiplied by an N x N matrix, and Z, which is as
    wide as four blocks, cannot be added to E. This reading keeps every operation and repairs the shapes:

    - E^l are tokens `[N_l, d]`; Y is `[N_l, R]`; W_L, W_C and W_D map the flattened block to n tokens of width d. W_D,
      "a multi-layer perceptron" in the text, is thus an ordinary dense layer over all features.
    - The concatenation of equation 15 stacks tokens, so that N_{l+1} = 4 n; those of equations 12 and 14 join features,
      as follows from the widths of their matrices. W_gate and the matrices of NAF act on the features of each token.
    - Where numbers of tokens differ, a learned matrix maps one to the other: T maps the fields to N_l tokens, and P has
      a matrix that maps E^l to as many tokens as Z has. The released code does the same.

    `DlfReleased` is what the authors released; it has neither gate nor NAF.

    The ablations of the paper and its alternatives to NAF are options:

    - `gate=False` adds P itself.
    - `rli=False` leaves out the low block. The paper removes it from a model that already lacks the gate ("further
      removed"), so that its row "w/o RLI" is `rli=False, gate=False`.
    - `fusion="late"` is the paper's row "w/o NAF", "where fusion is only performed in the final layer as in traditional
      two-stream models": each block is a stack of its own up to the linear head.
    - `fusion="concat"`, `"mlp"`, `"gate_pooling"` and `"attention_pooling"` are those of its figure 3, which gives no
      equations. Each takes the place of NAF in Z; with `concat` the place stays empty. See `AttentionFusion` (without
      self-attention), `MlpFusion` and `GatePooling` for how they are implemented here.

    Nothing in these equations bounds the values: the degree of E^l in the fields doubles with every layer and is 256
    after eight, so that small fields vanish and larger ones overflow. `normalize` is an addition to the paper. With it
    the equations hold for values whose size depends on neither the scale of the fields nor the depth:

    - E^1 is the fields divided by the root mean square of all of them together, so that a number keeps its size
      relative to the other fields.
    - The products of both blocks are divided by sqrt(2 N_l d / R), their size at the start.
    - Each token of E^{l+1} is divided by its root mean square. The released code has a layer normalization there.

    With `normalize=False` the equations are bare. In both forms w starts at a quarter of the usual size, so that all
    logits start close to zero.

    Args:
        layers: L.
        tokens: n, the tokens that each block and the fusion give.
        rank: R, the columns that the products of tokens are compressed to.
        hidden: widths of layers with ReLU before the last one of each block; the equations have none.
        gate: whether the residual is gated.
        rli: whether there is the low block.
        fusion: `naf`, `concat`, `mlp`, `gate_pooling`, `attention_pooling` or `late`.
        attention_layers: the number of attention layers of `naf` and `attention_pooling`; 2 is the best in the paper's
            figure 4.
        epsilon: the least value of the gate; the paper says no more than that it is small.
        dropout: the rate after the ReLUs of the blocks.
        normalize: whether fields, products and tokens are normalized; the equations do not.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Dlf(layers=2, tokens=4)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Wang et al., DLF: Enhancing Explicit-Implicit Interaction via Dynamic Low-Order-Aware Fusion for CTR Prediction
        (2025), equations 5 to 16, table 3 and figures 3 and 4.
    """

    eats: Eats = "fields"
    part_classes = (DlfLayer,)
    fixed_arguments = ("blocks",)
    head_gain = 0.25

    def __init__(
        self, layers: int = 2, rli: bool = True, fusion: Fusion | Literal["late"] = "naf", **kwargs: Any
    ) -> None:
        (own,) = self.passed_on(kwargs)
        super().__init__(**kwargs)
        self.layers = check_count("layers", layers)
        self.normalize = check_flag("normalize", own.get("normalize", True))
        kinds = list(BLOCKS if check_flag("rli", rli) else BLOCKS[1:])
        late = check_choice("fusion", fusion, (*FUSIONS, "late")) == "late"
        own["fusion"] = "concat" if late else fusion
        # With late fusion there is a stack for each block, one after the other.
        self.stack = [
            self.make_part(DlfLayer, f"{blocks[0] if late else 'layer'}{i}", **own, blocks=blocks)
            for blocks in ([[kind] for kind in kinds] if late else [kinds])
            for i in range(self.layers)
        ]

    def _stacks(self) -> list[list[DlfLayer]]:
        return [self.stack[first : first + self.layers] for first in range(0, len(self.stack), self.layers)]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        size = 0
        for stack in self._stacks():
            shape = tuple(input_shape)
            for layer in stack:
                layer.build(shape, input_shape)
                shape = layer.compute_output_shape(shape, input_shape)
            size += math.prod(token_shape(shape))
        return size

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        fields = unit_size(inputs, (-2, -1), 1e-10) if self.normalize else inputs
        outputs = []
        for stack in self._stacks():
            x = fields
            for layer in stack:
                x = layer(x, fields, training=training)
            outputs.append(as_vector(x))
        return outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)
