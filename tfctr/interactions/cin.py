"""CIN, the compressed interaction network of xDeepFM."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_units
from tfctr.layers.configured import Shape
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.tokens import token_shape


@interaction("cin")
class Cin(HeadedInteraction):
    """The compressed interaction network: each layer mixes products of all fields with all maps of the layer before.

        X^0 = the fields [F, E];    X^k_n = act(sum_{h,m} W^k_{hm,n} (X^0_h * X^{k-1}_m) + b^k_n)
        logit = w . [sum_E X^1; ...; sum_E X^K] + b

    Args:
        maps: the number of feature maps of each layer.
        activation: a Keras activation's name, or None, which the paper found best.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Cin(maps=[8, 8])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Lian et al., xDeepFM (2018), equations 6 to 8. The biases are those of the public implementations; the paper's
        formula has none.
    """

    eats: Eats = "fields"

    def __init__(self, maps: Sequence[int] = (64, 64), activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.maps = check_units("maps", maps)
        if not self.maps:
            raise ValueError("`maps` must not be empty. Received: []")
        activation = check_activation("activation", activation)
        self.layers = [
            self.make_dense(f"layer{i}", units, initializer=xavier_normal(), activation=activation)
            for i, units in enumerate(self.maps)
        ]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields = token_shape(input_shape)[0]
        for layer, maps in zip(self.layers, [fields, *self.maps], strict=False):
            layer.build((None, fields * maps))
        return sum(self.maps)

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        # Maps last: the products of an E lie side by side, and a layer is one matrix for all of them.
        x = first = ops.swapaxes(inputs, -1, -2)
        pooled = []
        for layer in self.layers:
            products = ops.expand_dims(first, -1) * ops.expand_dims(x, -2)
            x = layer(ops.reshape(products, (*ops.shape(x)[:-1], first.shape[-1] * x.shape[-1])))
            pooled.append(ops.sum(x, axis=-2))
        return ops.concatenate(pooled, axis=-1)
