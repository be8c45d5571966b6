"""CIN, the compressed interaction network of xDeepFM."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.interactions.base import Eats
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_units
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal


@tfctr_export
class Cin(HeadedInteraction):
    """The compressed interaction network: each layer mixes products of all fields with all maps of the layer before.

        X^0 = the fields [F, E];    X^k_n = act(sum_{h,m} W^k_{hm,n} (X^0_h * X^{k-1}_m) + b^k_n)
        logit = w . [sum_E X^1; ...; sum_E X^K] + b

    Args:
        maps: the number of feature maps of each layer.
        activation: a Keras activation's name, or None, which the paper found best.

    Call arguments:
        inputs: float `[..., F, E]`.
        mask: not used.
        training: not used.

    Output shape:
        `[...]`.

    Example:
        >>> tuple(Cin(maps=[8, 8])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Lian et al., xDeepFM (2018), equations 6 to 8. The weights have biases as in the public implementations; the
        paper's formula has none.
    """

    def __init__(self, maps: Sequence[int] = (64, 64), activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.maps = check_units("maps", maps)
        if not self.maps:
            raise ValueError("`maps` must not be empty. Received: []")
        self.activation = check_activation("activation", activation)
        self.layers = [
            keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer=xavier_normal(),
                name=f"layer{i}",
                dtype=self.dtype_policy,
            )
            for i, units in enumerate(self.maps)
        ]

    @property
    def eats(self) -> Eats:
        """`fields`."""
        return "fields"

    def build_hidden(self, input_shape: tuple[int | None, ...]) -> int:
        """Create the layers."""
        fields = input_shape[-2]
        if fields is None:
            raise ValueError(f"The axis of fields must be known. Received shape: {input_shape}")
        for layer, maps in zip(self.layers, [fields, *self.maps], strict=False):
            layer.build((None, fields * maps))
        return sum(self.maps)

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The maps of all layers, summed over E: `[..., sum(maps)]`."""
        # Maps last: the products of an E lie side by side, and a layer is one matrix for all of them.
        x = first = ops.swapaxes(inputs, -1, -2)
        pooled = []
        for layer in self.layers:
            products = ops.expand_dims(first, -1) * ops.expand_dims(x, -2)
            x = layer(ops.reshape(products, (*ops.shape(x)[:-1], first.shape[-1] * x.shape[-1])))
            pooled.append(ops.sum(x, axis=-2))
        return ops.concatenate(pooled, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "maps": self.maps, "activation": self.activation}
