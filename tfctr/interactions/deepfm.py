"""DeepFM."""

from typing import Any

from tfctr.interactions.base import Eats, Interaction
from tfctr.interactions.fm import Fm
from tfctr.interactions.headed import DeepConfig, create_deep, deep_config, eaten, eaten_shape
from tfctr.layers.arguments import check_flag
from tfctr.layers.export import tfctr_export


@tfctr_export
class DeepFm(Interaction):
    """DeepFM: a factorization machine beside a deep network over the same fields.

        logit = deep(x) + s * FM(x),    FM(x) = linear + sum_{i<j} e_i . e_j

    With `deep={"type": "qnn_alpha"}` it is the QNN plug-in; the published results of that are with
    `deep={"type": "qnn_alpha_released"}, fm_scale=0.5, fm_bias=True`.

    Args:
        deep: the deep part: any backbone with a linear head.
        fm_scale: s.
        fm_bias: whether FM(x) has a bias of its own beside that of the deep part.

    Call arguments:
        inputs: float `[..., F, E]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.
        linear: float `[...]`, the sum of first-order weights; None for 0.

    Output shape:
        `[...]`.

    Raises:
        ValueError: for a wrong configuration of the deep part.

    Example:
        >>> tuple(DeepFm(deep={"type": "mlp", "hidden": [32]})(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Guo et al., DeepFM (2017), equations 1 to 4. QNN-alpha (2025), table 5, whose released code halves the
        factorization machine and gives it a bias; the paper does not say so.
    """

    def __init__(self, deep: DeepConfig = "mlp", fm_scale: float = 1.0, fm_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(fm_scale, bool) or not isinstance(fm_scale, (int, float)) or fm_scale <= 0:
            raise ValueError(f"`fm_scale` must be a positive number. Received: {fm_scale!r}")
        self.fm_scale = float(fm_scale)
        self.fm = Fm(bias=check_flag("fm_bias", fm_bias), name="fm", dtype=self.dtype_policy)
        self.deep = create_deep(deep, name="deep", dtype=self.dtype_policy)

    @property
    def eats(self) -> Eats:
        """`fields`."""
        return "fields"

    @property
    def wide(self) -> bool:
        """True."""
        return True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build both parts."""
        self.fm.build(input_shape)
        self.deep.build(eaten_shape(self.deep, input_shape))
        self.built = True

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        """The logits; see the class."""
        deep = self.deep(eaten(self.deep, inputs), mask=mask, training=training)
        return deep + self.fm_scale * self.fm(inputs, linear=linear)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "deep": deep_config(self.deep),
            "fm_scale": self.fm_scale,
            "fm_bias": self.fm.use_bias,
        }
