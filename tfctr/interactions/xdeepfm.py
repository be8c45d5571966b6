"""xDeepFM."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from tfctr.interactions.base import Eats, Interaction, interaction
from tfctr.interactions.cin import Cin
from tfctr.interactions.headed import DeepConfig, create_deep
from tfctr.layers.configured import Shape


@interaction("xdeepfm")
class XDeepFm(Interaction):
    """xDeepFM: first-order weights, a compressed interaction network and a deep network, each with its logit.

        logit = linear + CIN(x) + deep(x)

    With `deep={"type": "qnn_alpha_released"}` this is the QNN plug-in as released. With `deep=None` it is the model
    that benchmarks list as CIN.

    Args:
        deep: the deep part, which may be any backbone with a linear head; None for none.
        maps: the number of feature maps of each layer of the CIN.
        activation: the activation of the CIN's layers; None for none.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(XDeepFm(deep={"type": "mlp", "hidden": [32]}, maps=[8])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Lian et al., xDeepFM (2018), equation 9. QNN-alpha (2025), table 5.
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"
    wide: bool = True
    deep_arguments = ("deep",)

    def __init__(
        self,
        deep: DeepConfig | None = "mlp",
        maps: Sequence[int] = (64, 64),
        activation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cin = self.make_part(Cin, "cin", maps, activation)
        self.deep = None if deep is None else create_deep(self, deep)

    @override
    def build(self, input_shape: Shape) -> None:
        self.cin.build(input_shape)
        if self.deep is not None:
            self.deep.build(self.deep.eaten_shape(input_shape))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        return self.pass_logits(inputs, 1, mask=mask, training=training, linear=linear)[0]

    @override
    def pass_logits(
        self, inputs: Any, passes: int, mask: Any = None, training: bool | None = None, linear: Any = None, **_: Any
    ) -> Any:
        logits = self.cin.pass_logits(inputs, passes)
        if self.deep is not None:
            deep = self.deep.pass_logits(self.deep.eaten(inputs), passes, mask=mask, training=training)
            logits = logits + deep
        return logits if linear is None else logits + linear
