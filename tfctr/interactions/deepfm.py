"""DeepFM."""

from typing import Any

from typing_extensions import override

from tfctr.interactions.base import Eats, Interaction, interaction
from tfctr.interactions.fm import Fm
from tfctr.interactions.headed import DeepConfig, create_deep
from tfctr.layers.arguments import check_flag, check_positive
from tfctr.layers.configured import Shape


@interaction("deepfm")
class DeepFm(Interaction):
    """DeepFM: a factorization machine beside a deep network over the same fields.

        logit = deep(x) + s * FM(x),    FM(x) = linear + sum_{i<j} e_i . e_j

    With `deep={"type": "qnn_alpha"}` this is the QNN plug-in. Its published results were computed with
    `deep={"type": "qnn_alpha_released"}, fm_scale=0.5, fm_bias=True`.

    Args:
        deep: the deep part, which may be any backbone with a linear head.
        fm_scale: s, the scale of the factorization machine.
        fm_bias: whether FM(x) has a bias, in addition to that of the deep part.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(DeepFm(deep={"type": "mlp", "hidden": [32]})(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Guo et al., DeepFM (2017), equations 1 to 4. QNN-alpha (2025), table 5, whose released code halves the
        factorization machine and gives it a bias; the paper does not say so.
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"
    wide: bool = True
    deep_arguments = ("deep",)

    def __init__(self, deep: DeepConfig = "mlp", fm_scale: float = 1.0, fm_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fm_scale = check_positive("fm_scale", fm_scale)
        self.fm = self.make_part(Fm, "fm", check_flag("fm_bias", fm_bias))
        self.deep = create_deep(self, deep)

    @override
    def build(self, input_shape: Shape) -> None:
        self.fm.build(input_shape)
        self.deep.build(self.deep.eaten_shape(input_shape))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        return self.pass_logits(inputs, 1, mask=mask, training=training, linear=linear)[0]

    @override
    def pass_logits(
        self, inputs: Any, passes: int, mask: Any = None, training: bool | None = None, linear: Any = None, **_: Any
    ) -> Any:
        deep = self.deep.pass_logits(self.deep.eaten(inputs), passes, mask=mask, training=training)
        return deep + self.fm_scale * self.fm(inputs, linear=linear)
