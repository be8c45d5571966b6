"""How the outputs of parallel blocks, each `[..., n, d]`, become one: attention, a perceptron, or gates."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.arguments import check_count, check_flag
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import as_tokens, softmax, token_shape

Shape = tuple[int | None, ...]


class BlockFusion(keras.layers.Layer):
    """One block made of several of its shape.

    Call arguments:
        inputs: a list of at least two blocks, each float `[..., n, d]`.

    Output shape:
        `[..., n, d]`.

    Raises:
        ValueError: in `build`, for fewer than two blocks or for blocks of different shapes.
    """

    blocks: int
    tokens: int
    width: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def build(self, input_shape: list[Shape]) -> None:
        """Take the measures of the blocks."""
        shapes = {token_shape(shape) for shape in input_shape}
        if len(input_shape) < 2 or len(shapes) > 1:
            raise ValueError(f"The inputs must be at least two blocks of one shape. Received shapes: {input_shape}")
        self.blocks = len(input_shape)
        ((self.tokens, self.width),) = shapes
        self.build_weights()
        self.built = True

    def build_weights(self) -> None:
        """Create the weights; the measures are known."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """The shape of one block."""
        return tuple(input_shape[0])


@tfctr_export
class AttentionFusion(BlockFusion):
    """Attention of the tokens of every block to those of the other blocks and of their own.

        (Q_M, K_M, V_M) = split(Z_M W_att)
        A_MX   = softmax(Q_M K_X^T / sqrt(d))
        cross_M = relu([A_MX V_X; A_MY V_Y] W_M + b_M)          X, Y, ...: the other blocks, joined by features
        self_M  = A_MM V_M
        y       = relu([cross_L + self_L; cross_C + self_C; ...] W_F + b_F)

    W_att is one matrix for all blocks, as f_att in the paper has no index. With more than one attention layer the sums
    cross_M + self_M take the place of the Z_M in the next one: the paper counts attention layers but writes one.

    Args:
        layers: the number of attention layers.
        self_attention: whether self_M is part of the sums; without it this is the paper's attention pooling, which
            it calls cross-attention between modules only.

    Call arguments:
        inputs: a list of at least two blocks, each float `[..., n, d]`.

    Output shape:
        `[..., n, d]`.

    Raises:
        ValueError: in `build`, for fewer than two blocks or for blocks of different shapes.

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

    def build_weights(self) -> None:
        """Create the projections."""
        d, numbers = self.width, range(self.layers)
        # Three matrices side by side: each starts as a matrix of its own would.
        self.projections = [
            self._dense(f"projection{i}", 3 * d, d, activation=None, use_bias=False, fans=(d, d)) for i in numbers
        ]
        # In one list, layer after layer: Keras saves no lists of lists.
        self.crosses = [
            self._dense(f"cross{i}_{m}", d, (self.blocks - 1) * d) for i in numbers for m in range(self.blocks)
        ]
        self.fuse = self._dense("fuse", d, self.blocks * d)

    def _dense(
        self,
        name: str,
        units: int,
        width: int,
        activation: str | None = "relu",
        use_bias: bool = True,
        fans: tuple[int, int] | None = None,
    ) -> keras.layers.Dense:
        dense = keras.layers.Dense(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=xavier_normal(fans),
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build((None, width))
        return dense

    def call(self, inputs: list[Any]) -> Any:
        """Fuse the blocks; see the class."""
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
        """A_MX V_X by X and M, all pairs at once, of the projections `[..., blocks * n, 3 * d]`."""
        query, keys, values = ops.split(projected, 3, axis=-1)
        weights = self.attention(query, keys)
        leading = ops.shape(values)[:-2]
        values = ops.reshape(values, (*leading, self.blocks, self.tokens, self.width))
        attended = ops.matmul(ops.swapaxes(weights, -3, -2), values)
        return [
            [attended[..., x, m * self.tokens : (m + 1) * self.tokens, :] for m in range(self.blocks)]
            for x in range(self.blocks)
        ]

    def attention(self, query: Any, keys: Any) -> Any:
        """The weights A of all tokens over the tokens of each block.

        Args:
            query: float `[..., blocks * n, d]`, block after block.
            keys: float `[..., blocks * n, d]`.

        Returns:
            float `[..., blocks * n, blocks, n]`: the last axis sums to 1.
        """
        scores = ops.matmul(query, ops.swapaxes(keys, -1, -2)) / self.width**0.5
        return softmax(as_tokens(scores, self.blocks, self.tokens))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "layers": self.layers, "self_attention": self.self_attention}


@tfctr_export
class MlpFusion(BlockFusion):
    """A perceptron over the features of the tokens of one place in all blocks.

        y = relu(relu([Z_L; Z_C; ...] W_1 + b_1) W_2 + b_2)

    Call arguments:
        inputs: a list of at least two blocks, each float `[..., n, d]`.

    Output shape:
        `[..., n, d]`.

    Raises:
        ValueError: in `build`, for fewer than two blocks or for blocks of different shapes.

    Example:
        >>> tuple(MlpFusion()([keras.random.normal((8, 50, 4, 16)) for _ in range(3)]).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), figure 3, which names MLP-based fusion and gives no equation: two layers, each as wide
        as a token.
    """

    def build_weights(self) -> None:
        """Create the layers."""
        self.block = MlpBlock([self.width, self.width], name="block", dtype=self.dtype_policy)
        self.block.build((None, self.blocks * self.width))

    def call(self, inputs: list[Any]) -> Any:
        """Fuse the blocks; see the class."""
        return self.block(ops.concatenate(inputs, axis=-1))


@tfctr_export
class GatePooling(BlockFusion):
    """A sum of the blocks, each element with a learned gate that is the same for all inputs.

        y = sum_M sigmoid(g_M) * Z_M        g_M of the shape [n, d] of a block

    Call arguments:
        inputs: a list of at least two blocks, each float `[..., n, d]`.

    Output shape:
        `[..., n, d]`.

    Raises:
        ValueError: in `build`, for fewer than two blocks or for blocks of different shapes.

    Example:
        >>> tuple(GatePooling()([keras.random.normal((8, 50, 4, 16)) for _ in range(3)]).shape)
        (8, 50, 4, 16)

    References:
        Wang et al., DLF (2025), figure 3, which gives no equation. Its text sets "learnable gating weights" against the
        "data-dependent importance scores" of attention pooling, so these gates do not depend on the data.
    """

    def build_weights(self) -> None:
        """Create the gates, which start half open."""
        shape = (self.blocks, self.tokens, self.width)
        self.gates = self.add_weight(name="gates", shape=shape, initializer="zeros")

    def call(self, inputs: list[Any]) -> Any:
        """Fuse the blocks; see the class."""
        return ops.sum(ops.stack(inputs, axis=-3) * ops.sigmoid(self.gates), axis=-3)
