"""Layers that fuse the outputs of parallel blocks, each `[..., n, d]`, by attention, a perceptron, or gates."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count, check_flag
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import as_tokens, softmax, token_shape


class BlockFusion(ConfiguredLayer):
    """A layer that fuses several blocks of one shape into one block of that shape.

    Call arguments:
        inputs: a list of at least two blocks, each float `[..., n, d]`.

    Output shape: `[..., n, d]`.

    Raises:
        ValueError: in `build`, for fewer than two blocks or for blocks of different shapes.
    """

    weight_kinds = ("kernel",)
    blocks: int
    tokens: int
    width: int

    @override
    def build(self, input_shape: list[Shape]) -> None:
        shapes = {token_shape(shape) for shape in input_shape}
        if len(input_shape) < 2 or len(shapes) > 1:
            raise ValueError(f"The inputs must be at least two blocks of one shape. Received shapes: {input_shape}")
        self.blocks = len(input_shape)
        ((self.tokens, self.width),) = shapes
        self.build_weights()
        self.built = True

    def build_weights(self) -> None:
        """Create the weights, for `blocks` blocks of `tokens` tokens of `width` numbers."""
        raise NotImplementedError

    @override
    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return tuple(input_shape[0])


@tfctr_export
class AttentionFusion(BlockFusion):
    """Attention of the tokens of every block to those of the other blocks and of their own.

        (Q_M, K_M, V_M) = split(Z_M W_att)
        A_MX   = softmax(Q_M K_X^T / sqrt(d))
        cross_M = relu([A_MX V_X; A_MY V_Y] W_M + b_M)          X, Y, ...: the other blocks, joined by features
        self_M  = A_MM V_M
        y       = relu([cross_L + self_L; cross_C + self_C; ...] W_F + b_F)

    W_att is one matrix for all blocks, as f_att in the paper has no index. The paper counts attention layers but writes
    only one of them; here the sums cross_M + self_M are the inputs Z_M of the next attention layer.

    Args:
        layers: the number of attention layers.
        self_attention: whether self_M is part of the sums. Without it this is the paper's attention pooling, "only
            cross-attention between modules".

    Call arguments, output shape and errors: see `BlockFusion`.

    Example:
        >>> blocks = [keras.random.normal((8, 50, 4, 16)) for _ in range(3)]
        >>> tuple(AttentionFusion()(blocks).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), equations 10 to 14; its figure 3 for attention pooling.
    """

    def __init__(self, layers: int = 1, self_attention: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = check_count("layers", layers)
        self.self_attention = check_flag("self_attention", self_attention)

    @override
    def build_weights(self) -> None:
        d, numbers = self.width, range(self.layers)
        # Each kernel is three matrices side by side, which have the fans of one of them.
        self.projections = [
            self.make_dense(f"projection{i}", 3 * d, d, xavier_normal((d, d)), use_bias=False) for i in numbers
        ]
        # One list for all layers, since Keras saves no lists of lists.
        self.crosses = [
            self.make_dense(f"cross{i}_{m}", d, (self.blocks - 1) * d, xavier_normal(), activation="relu")
            for i in numbers
            for m in range(self.blocks)
        ]
        self.fuse = self.make_dense("fuse", d, self.blocks * d, xavier_normal(), activation="relu")

    @override
    def call(self, inputs: list[Any]) -> Any:
        blocks = list(inputs)
        for i, projection in enumerate(self.projections):
            attended = self._attend(projection(ops.concatenate(blocks, axis=-2)))
            blocks = []
            for m in range(self.blocks):
                others = [attended[x][m] for x in range(self.blocks) if x != m]
                fused = self.crosses[i * self.blocks + m](ops.concatenate(others, axis=-1))
                blocks.append(fused + attended[m][m] if self.self_attention else fused)
        return self.fuse(ops.concatenate(blocks, axis=-1))

    def _attend(self, projected: Any) -> list[list[Any]]:
        """A_MX V_X at the place [X][M], from the projections `[..., blocks * n, 3 * d]` of all blocks."""
        query, keys, values = ops.split(projected, 3, axis=-1)
        weights = self.attention(query, keys)
        leading = ops.shape(values)[:-2]
        values = ops.reshape(values, (*leading, self.blocks, self.tokens, self.width))
        attended = ops.matmul(ops.swapaxes(weights, -3, -2), values)
        # The gradient of a slice is as large as all of it, that of a split as the part.
        return [ops.split(block, self.blocks, axis=-2) for block in ops.unstack(attended, axis=-3)]

    def attention(self, query: Any, keys: Any) -> Any:
        """The attention weights A of all tokens over the tokens of each block.

        Args:
            query: float `[..., blocks * n, d]`, block after block.
            keys: float `[..., blocks * n, d]`.

        Returns:
            float `[..., blocks * n, blocks, n]`: the last axis sums to 1.
        """
        scores = ops.matmul(query, ops.swapaxes(keys, -1, -2)) / self.width**0.5
        return softmax(as_tokens(scores, self.blocks, self.tokens))


@tfctr_export
class MlpFusion(BlockFusion):
    """A perceptron over the features of the tokens that stand at one position in all blocks.

        y = relu(relu([Z_L; Z_C; ...] W_1 + b_1) W_2 + b_2)

    Call arguments, output shape and errors: see `BlockFusion`.

    Example:
        >>> tuple(MlpFusion()([keras.random.normal((8, 50, 4, 16)) for _ in range(3)]).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), figure 3, which names MLP-based fusion and gives no equation. Here it has two layers,
        each as wide as a token.
    """

    @override
    def build_weights(self) -> None:
        shape = (None, self.blocks * self.width)
        self.block = self.make_part(MlpBlock, "block", [self.width, self.width], built_for=shape)

    @override
    def call(self, inputs: list[Any]) -> Any:
        return self.block(ops.concatenate(inputs, axis=-1))


@tfctr_export
class GatePooling(BlockFusion):
    """A sum of the blocks, in which each element has a learned gate that is the same for all inputs.

        y = sum_M sigmoid(g_M) * Z_M        g_M: [n, d], the shape of a block

    The gates count as kernels for initializer and regularizer. By default they start at zero, that is, half open.

    Call arguments, output shape and errors: see `BlockFusion`.

    Example:
        >>> tuple(GatePooling()([keras.random.normal((8, 50, 4, 16)) for _ in range(3)]).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), figure 3, which gives no equation. Its text sets "learnable gating weights" against the
        "data-dependent importance scores" of attention pooling, so these gates do not depend on the data.
    """

    @override
    def build_weights(self) -> None:
        shape = (self.blocks, self.tokens, self.width)
        self.gates = self.make_weight("gates", shape, "zeros")

    @override
    def call(self, inputs: list[Any]) -> Any:
        return ops.sum(ops.stack(inputs, axis=-3) * ops.sigmoid(self.gates), axis=-3)
