"""Layers over tokens `[..., N, d]`. A token is a field of the input or a combination of fields."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count, check_flag
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export


def _start() -> keras.initializers.Initializer:
    """U(-sqrt(6 / out), sqrt(6 / out)) for a matrix `[in, out]`, as in the released code of DLF."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="uniform")


def known_width(shape: Shape) -> int:
    """The size of the last axis, which must be known."""
    width = shape[-1]
    if width is None:
        raise ValueError(f"The last axis of the inputs must be known. Received shape: {shape}")
    return width


def token_shape(shape: Shape) -> tuple[int, int]:
    """The number and the width of the tokens, which must be known."""
    tokens, width = shape[-2:]
    if tokens is None or width is None:
        raise ValueError(f"The axes of tokens and of their width must be known. Received shape: {shape}")
    return tokens, width


@tfctr_export
class TokenMap(ConfiguredLayer):
    """Linear combinations of tokens.

        y_m = sum_n C_nm x_n + b_m

    Args:
        tokens: M, the number of combinations.
        use_bias: whether there is a bias b, one number a token; by default there is none.

    Call arguments:
        inputs: float `[..., N, d]`.

    Output shape: `[..., M, d]`.

    Example:
        >>> tuple(TokenMap(3)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 3, 16)

    References:
        The linear compression of Wang et al., DLF (2025), as released; after Zhang et al., Wukong (2024), section 3.5.
    """

    weight_kinds = ("kernel",)

    def __init__(self, tokens: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = check_count("tokens", tokens)
        self.use_bias = check_flag("use_bias", use_bias)

    @override
    def build(self, input_shape: Shape) -> None:
        shape = (token_shape(input_shape)[0], self.tokens)
        self.kernel = self.make_weight("kernel", shape, _start())
        self.bias = self.add_weight(name="bias", shape=(self.tokens,), initializer="zeros") if self.use_bias else None
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        outputs = combine_tokens(inputs, self.kernel)
        return outputs if self.bias is None else outputs + self.bias[:, None]

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-2], self.tokens, input_shape[-1])


@tfctr_export
class TokenProducts(ConfiguredLayer):
    """The inner products of all pairs of tokens, with the second axis of pairs compressed.

        y = B (X^T Y),    equal to (B X^T) Y

    The N x N matrix of products is never computed. The first form costs N d R, the second N^2 (d + R).

    Args:
        rank: R.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, float `[..., K, d]`, the tokens that X is multiplied by; None for X itself.

    Output shape: `[..., K, R]`.

    Example:
        >>> tuple(TokenProducts(6)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 6)

    References:
        Wang et al., DLF (2025), the products of equations 5 and 6; after Zhang et al., Wukong (2024), section 3.6.
    """

    weight_kinds = ("kernel",)

    def __init__(self, rank: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rank = check_count("rank", rank)

    @override
    def build(self, inputs_shape: Shape, base_shape: Shape | None = None) -> None:
        shape = (token_shape(inputs_shape)[0], self.rank)
        self.projection = self.make_weight("projection", shape, _start())
        self.built = True

    @override
    def call(self, inputs: Any, base: Any = None) -> Any:
        compressed = ops.matmul(ops.swapaxes(inputs, -1, -2), self.projection)
        return ops.matmul(inputs if base is None else base, compressed)

    @override
    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape | None = None) -> Shape:
        return (*(base_shape or inputs_shape)[:-1], self.rank)


def flat_shape(shape: Shape) -> Shape:
    """The shape `[..., N * d]` of what `as_vector` makes of tokens `[..., N, d]`."""
    tokens, width = token_shape(shape)
    return (*shape[:-2], tokens * width)


def as_vector(tokens: Any) -> Any:
    """`[..., N, d]` as `[..., N * d]`, row after row."""
    return ops.reshape(tokens, (*ops.shape(tokens)[:-2], tokens.shape[-2] * tokens.shape[-1]))


def contract(equation: str, inputs: Any, kernel: Any) -> Any:
    """An einsum of `[..., *]` with a weight that all leading axes share, by the equation of one element of them.

    On TensorFlow the gradient of a weight in an einsum with an ellipsis is made for each row and then summed: for
    matrices `[F, d, w]` an array `[..., F, d, w]`. With one leading axis it is a product of matrices.

    Args:
        equation: such as `fd,fdw->fw`, of the last axes of the inputs and all axes of the weight; without the letter z.
        inputs: float `[..., *]`.
        kernel: the weight.

    Example:
        >>> tuple(contract("fd,fdw->fw", ops.ones((8, 50, 7, 16)), ops.ones((7, 16, 3))).shape)
        (8, 50, 7, 3)
    """
    ends, result = equation.split("->")
    own, weight = ends.split(",")
    leading = ops.shape(inputs)[: -len(own)]
    rows = ops.reshape(inputs, (-1, *ops.shape(inputs)[-len(own) :]))
    found = ops.einsum(f"z{own},{weight}->z{result}", rows, kernel)
    return ops.reshape(found, (*leading, *found.shape[1:]))


def combine_tokens(tokens: Any, kernel: Any) -> Any:
    """The linear combinations of tokens `[..., N, d]` that a matrix `[N, M]` says, `[..., M, d]`."""
    # With the tokens on the last axis this is one product with a plain matrix.
    return ops.swapaxes(ops.matmul(ops.swapaxes(tokens, -1, -2), kernel), -1, -2)


def join_vectors(first: Any, second: Any) -> Any:
    """`[..., D]` and `[..., K]` as `[..., D + K]`."""
    return ops.concatenate([first, second], axis=-1)


def as_tokens(vector: Any, tokens: int, width: int) -> Any:
    """`[..., tokens * width]` as `[..., tokens, width]`, row after row."""
    return ops.reshape(vector, (*ops.shape(vector)[:-1], tokens, width))


def unit_size(tokens: Any, axis: int | tuple[int, int], epsilon: float) -> Any:
    """Tokens `[..., N, d]` divided by their root mean square, computed in float32. Zeros stay zeros.

    Args:
        axis: -1 for each token alone; (-2, -1) for all tokens of a row together, so that they keep their sizes
            relative to each other.
        epsilon: added to the mean square. What is much smaller than its square root stays small.
    """
    x = ops.cast(tokens, "float32")
    power = ops.mean(ops.square(x), axis=axis, keepdims=True)
    return ops.cast(x * ops.rsqrt(power + epsilon), tokens.dtype)


def softmax(scores: Any) -> Any:
    """Softmax over the last axis, computed in float32 and returned in the type of the scores."""
    if scores.shape[-1] == 1:  # The softmax of one number is 1; Keras warns about it.
        return ops.ones_like(scores)
    return ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), scores.dtype)
