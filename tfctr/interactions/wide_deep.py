"""Wide & Deep."""

from typing import Any

from typing_extensions import override

from tfctr.interactions.base import Interaction, interaction
from tfctr.interactions.headed import DeepConfig, create_deep
from tfctr.layers.configured import Shape


@interaction("wide_deep")
class WideDeep(Interaction):
    """Wide & Deep: first-order weights beside a deep network.

        logit = linear + deep(x)

    The bias is that of the deep part. With `deep={"type": "qnn_alpha"}` this is the QNN plug-in.

    Args:
        deep: the deep part, which may be any backbone with a linear head.

    Inputs what the deep part eats, float `[..., F, E]` or `[..., D]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(WideDeep(deep={"type": "mlp", "hidden": [32]})(keras.random.normal((8, 50, 112))).shape)
        (8, 50)

    References:
        Cheng et al., Wide & Deep Learning for Recommender Systems (2016), equation 3, without crossed features.
        QNN-alpha (2025), table 5.
    """

    weight_kinds = ("kernel",)
    wide: bool = True
    deep_arguments = ("deep",)

    def __init__(self, deep: DeepConfig = "mlp", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deep = create_deep(self, deep)
        self.eats = self.deep.eats

    @override
    def build(self, input_shape: Shape) -> None:
        self.deep.build(input_shape)
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        return self.pass_logits(inputs, 1, mask=mask, training=training, linear=linear)[0]

    @override
    def pass_logits(
        self, inputs: Any, passes: int, mask: Any = None, training: bool | None = None, linear: Any = None, **_: Any
    ) -> Any:
        logits = self.deep.pass_logits(inputs, passes, mask=mask, training=training)
        return logits if linear is None else logits + linear
