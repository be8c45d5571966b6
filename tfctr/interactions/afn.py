"""AFN and AFN+, the adaptive factorization network."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import DeepConfig, HeadedInteraction, create_deep
from tfctr.layers.arguments import check_count
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import as_vector, combine_tokens, join_vectors, known_width, token_shape

_FLOOR = 1e-5


@tfctr_export
class LogarithmicNeurons(ConfiguredLayer):
    """Products of powers of the fields, whose exponents are learned.

        z_f = norm(ln max(|e_f|, 1e-5)),    y_n = norm'(exp(sum_f w_fn z_f)),    that is  y_n ~ prod_f |e_f|^w_fn

    The norms are batch normalizations with a channel for each field, and for each neuron. All is computed in float32.

    Args:
        neurons: N, the number of products.

    Call arguments:
        inputs: float `[..., F, E]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to use and update batch statistics.

    Output shape: `[..., N, E]`.

    Example:
        >>> tuple(LogarithmicNeurons(4)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 4, 16)

    References:
        Cheng et al., Adaptive Factorization Network (2020), with the normalizations of the public
        implementations.
    """

    weight_kinds = ("kernel",)

    def __init__(self, neurons: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.neurons = check_count("neurons", neurons)
        self.log_norm, self.exp_norm = (
            BatchNormalization(axis=-2, name=name, dtype="float32") for name in ("log_bn", "exp_bn")
        )
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        fields, _ = token_shape(input_shape)
        self.kernel = self.make_weight("kernel", (fields, self.neurons), xavier_normal(), autocast=False)
        self.log_norm.build(input_shape)
        self.exp_norm.build(self.compute_output_shape(input_shape))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        logarithms = ops.log(ops.maximum(ops.abs(ops.cast(inputs, "float32")), _FLOOR))
        logarithms = self.log_norm(logarithms, mask=mask, training=training)
        products = ops.exp(combine_tokens(logarithms, self.kernel))
        return ops.cast(self.exp_norm(products, mask=mask, training=training), self.compute_dtype)

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-2], self.neurons, input_shape[-1])


@interaction("afn")
class Afn(HeadedInteraction):
    """AFN: a network over logarithmic neurons, which learn the orders of the products. With a deep part it is AFN+.

        AFN     logit = w . MLP(LogarithmicNeurons(x)) + b
        AFN+    logit = w . [MLP(LogarithmicNeurons(x)); deep(x')] + b        MLP and deep give one number each

    The published AFN+ has a table of embeddings for each of its parts. Here x is the first half and x' the second half
    of each field's numbers, which is the same as two tables of half the width.

    Args:
        neurons: the number of logarithmic neurons.
        hidden: the widths of the hidden layers after them.
        batch_norm: whether to normalize before each of their activations.
        dropout: the dropout rate after each of their activations.
        deep: the deep part of AFN+, which may be any backbone with a linear head; None for AFN.

    Inputs float `[..., F, E]`, for AFN+ with an even E; call arguments and output: see `Interaction`.

    Raises:
        ValueError: in `build`, for AFN+ and an odd E.

    Example:
        >>> tuple(Afn(neurons=20, hidden=[32])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Cheng et al., Adaptive Factorization Network: Learning Adaptive-Order Feature Interactions (2020), with
        its ensemble AFN+.
    """

    eats: Eats = "fields"
    # Before the moving statistics are known, the exponentials are far from normalized.
    head_gain = 0.1
    deep_arguments = ("deep",)

    def __init__(
        self,
        neurons: int = 1000,
        hidden: Sequence[int] = (400,),
        batch_norm: bool = False,
        dropout: float = 0.0,
        deep: DeepConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.logarithmic = self.make_part(LogarithmicNeurons, "logarithmic", neurons)
        output = None if deep is None else 1
        self.block = self.make_part(MlpBlock, "block", hidden, "relu", batch_norm, dropout, output=output)
        self.deep = None if deep is None else create_deep(self, deep)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        width = known_width(input_shape)
        if self.deep is not None:
            if width % 2:
                raise ValueError(f"The width of the fields must be even, as AFN+ halves it. Received: {width}")
            input_shape = (*input_shape[:-1], width // 2)
            self.deep.build(self.deep.eaten_shape(input_shape))
        self.logarithmic.build(input_shape)
        shape = (*input_shape[:-2], self.logarithmic.neurons * known_width(input_shape))
        self.block.build(shape)
        return known_width(self.block.compute_output_shape(shape)) + (self.deep is not None)

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        if self.deep is None:
            return self._products(inputs, mask, training)
        of_products, of_deep = (inputs.map(lambda x, i=i: ops.split(x, 2, axis=-1)[i]) for i in range(2))
        beside = self.deep.pass_hidden(of_deep.map(self.deep.eaten), mask, training).map(self.deep.head)
        return self._products(of_products, mask, training).map(join_vectors, beside)

    def _products(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        """What the block over the products of powers makes."""
        products = inputs.through(self.logarithmic, mask=mask, training=training)
        return self.block.on_passes(products.map(as_vector), mask, training)
