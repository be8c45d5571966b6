"""The factorization machine."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, Interaction, interaction
from tfctr.layers.arguments import check_flag
from tfctr.layers.configured import Shape
from tfctr.layers.pairwise import bi_interaction


@interaction("fm")
class Fm(Interaction):
    """A factorization machine: first-order weights and the inner products of all pairs of fields.

        logit = b + linear + sum_{i<j} e_i . e_j

    Args:
        bias: whether there is a bias b.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Fm()(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Rendle, Factorization Machines (2010), equation 1.
    """

    weight_kinds = ("bias",)
    eats: Eats = "fields"
    wide: bool = True

    def __init__(self, bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_bias = check_flag("bias", bias)

    @override
    def build(self, input_shape: Shape) -> None:
        self.bias = self.make_weight("bias", (1,), "zeros", kind="bias") if self.use_bias else None
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        logits = ops.sum(bi_interaction(inputs), axis=-1)
        if linear is not None:
            logits = logits + ops.cast(linear, logits.dtype)
        if self.bias is not None:
            logits = logits + ops.cast(self.bias, logits.dtype)
        return ops.cast(logits, self.compute_dtype)
