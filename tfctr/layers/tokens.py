"""Layers over tokens `[..., N, d]`: rows that stand for fields, or for what a layer has made of them."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.arguments import check_count
from tfctr.layers.export import tfctr_export


def _start() -> keras.initializers.Initializer:
    """U(-sqrt(6 / out), sqrt(6 / out)) for a matrix `[in, out]`: as DLF's code draws its token matrices."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="uniform")


def token_shape(shape: tuple[int | None, ...]) -> tuple[int, int]:
    """The known number and width of tokens.

    Raises:
        ValueError: when either is unknown.
    """
    tokens, width = shape[-2:]
    if tokens is None or width is None:
        raise ValueError(f"The axes of tokens and of their width must be known. Received shape: {shape}")
    return tokens, width


@tfctr_export
class TokenMap(keras.layers.Layer):
    """Linear combinations of tokens, without bias.

        y_m = sum_n C_nm x_n

    Args:
        tokens: M, the number of combinations.

    Call arguments:
        inputs: float `[..., N, d]`.

    Output shape:
        `[..., M, d]`.

    Example:
        >>> tuple(TokenMap(3)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 3, 16)

    References:
        The linear compression of Wang et al., DLF (2025), as released; after Zhang et al., Wukong (2024), section 3.5.
    """

    def __init__(self, tokens: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = check_count("tokens", tokens)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the matrix."""
        shape = (token_shape(input_shape)[0], self.tokens)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=_start())
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Apply the layer; see the class."""
        # With the tokens last this is one product with a plain matrix.
        return ops.swapaxes(ops.matmul(ops.swapaxes(inputs, -1, -2), self.kernel), -1, -2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The tokens are replaced."""
        return (*input_shape[:-2], self.tokens, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "tokens": self.tokens}


@tfctr_export
class TokenProducts(keras.layers.Layer):
    """The inner products of all pairs of tokens, with the second axis of pairs compressed.

        y = B (X^T Y),    equal to (B X^T) Y

    The N x N matrix of products is never built: the first form costs N d R where the second costs N^2 (d + R).

    Args:
        rank: R.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, float `[..., K, d]`, the tokens that X is multiplied with; None for X itself.

    Output shape:
        `[..., K, R]`.

    Example:
        >>> tuple(TokenProducts(6)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 6)

    References:
        Wang et al., DLF (2025), the products of equations 5 and 6; after Zhang et al., Wukong (2024), section 3.6.
    """

    def __init__(self, rank: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rank = check_count("rank", rank)

    def build(self, inputs_shape: tuple[int | None, ...], base_shape: tuple[int | None, ...] | None = None) -> None:
        """Create the matrix."""
        shape = (token_shape(inputs_shape)[0], self.rank)
        self.projection = self.add_weight(name="projection", shape=shape, initializer=_start())
        self.built = True

    def call(self, inputs: Any, base: Any = None) -> Any:
        """Apply the layer; see the class."""
        compressed = ops.matmul(ops.swapaxes(inputs, -1, -2), self.projection)
        return ops.matmul(inputs if base is None else base, compressed)

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], base_shape: tuple[int | None, ...] | None = None
    ) -> tuple[int | None, ...]:
        """The width becomes the rank."""
        return (*(base_shape or inputs_shape)[:-1], self.rank)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "rank": self.rank}


def as_vector(tokens: Any) -> Any:
    """`[..., N, d]` as `[..., N * d]`, row after row."""
    return ops.reshape(tokens, (*ops.shape(tokens)[:-2], tokens.shape[-2] * tokens.shape[-1]))


def as_tokens(vector: Any, tokens: int, width: int) -> Any:
    """`[..., tokens * width]` as `[..., tokens, width]`, row after row."""
    return ops.reshape(vector, (*ops.shape(vector)[:-1], tokens, width))


def softmax(scores: Any) -> Any:
    """Softmax over the last axis in float32, whatever the type of the scores; given back in their type."""
    if scores.shape[-1] == 1:  # The softmax of one number is 1; Keras warns about it.
        return ops.ones_like(scores)
    return ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), scores.dtype)
