"""Deep & Cross networks, DCN and DCN V2."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from keras import ops

from tfctr.interactions.base import Eats
from tfctr.interactions.cross_net import CrossNet
from tfctr.interactions.headed import (
    DeepConfig,
    HeadedInteraction,
    create_deep,
    create_part,
    deep_config,
    flat_shape,
    flatten,
)
from tfctr.layers.export import tfctr_export
from tfctr.layers.registry import arguments_of

Structure = Literal["crossnet_only", "stacked", "parallel", "stacked_parallel"]
STRUCTURES = ("crossnet_only", "stacked", "parallel", "stacked_parallel")


@tfctr_export
class DcnV2(HeadedInteraction):
    """DCN V2: a cross network before or beside a deep network, under one linear layer.

        crossnet_only       logit = w . cross(x) + b
        stacked             logit = w . deep(cross(x)) + b
        parallel            logit = w . [cross(x); deep(x)] + b
        stacked_parallel    logit = w . [deep'(cross(x)); deep(x)] + b

    With `deep={"type": "qnn_alpha"}` it is the QNN plug-in; the published results of that are with
    `deep={"type": "qnn_alpha_released"}, cross={"activation": "relu", "batch_norm": true, "dropout": 0.1}`.

    Args:
        structure: one of the above.
        cross: arguments of `CrossNet`.
        deep: the deep part: any backbone with a linear head, whose head is left out; not used by `crossnet_only`.
        stacked_deep: the part deep' of `stacked_parallel`, whose weights are its own; by default as `deep`.

    Call arguments:
        inputs: float `[..., F, E]` when a deep part eats fields, else `[..., D]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape:
        `[...]`.

    Raises:
        ValueError: for a wrong structure or a wrong configuration of a part.

    Example:
        >>> layer = DcnV2(cross={"layers": 2}, deep={"type": "mlp", "hidden": [32]})
        >>> tuple(layer(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Wang et al., DCN V2 (2021), section 3. QNN-alpha (2025), table 5, whose released code has activation,
        normalization and dropout in the cross part; the paper does not say so.
    """

    version: ClassVar[str] = "v2"

    def __init__(
        self,
        structure: Structure = "parallel",
        cross: Mapping[str, Any] | None = None,
        deep: DeepConfig = "mlp",
        stacked_deep: DeepConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if structure not in STRUCTURES:
            raise ValueError(f"`structure` must be one of {', '.join(STRUCTURES)}. Received: {structure!r}")
        if stacked_deep is not None and structure != "stacked_parallel":
            raise ValueError(f"`stacked_deep` is for structure stacked_parallel only. Received: {structure!r}")
        self.structure = structure
        self.cross = self._create_cross({} if cross is None else cross)
        # Made even when it is not used, so that a wrong configuration is told; without weights until it is built.
        self.deep = self._create_deep(deep, "deep")
        self.stacked_deep = None
        if structure == "stacked_parallel":
            self.stacked_deep = self._create_deep(deep if stacked_deep is None else stacked_deep, "stacked_deep")

    def _create_cross(self, config: Mapping[str, Any]) -> CrossNet:
        if not isinstance(config, Mapping):
            raise ValueError(f"`cross` must be a mapping of arguments of CrossNet. Received: {config!r}")
        config = {"type": "cross_net", "version": self.version, **config}
        cross = create_part("cross", {"cross_net": CrossNet}, config, name="cross", dtype=self.dtype_policy)
        cross.headless = True
        return cross

    def _create_deep(self, config: DeepConfig, name: str) -> HeadedInteraction:
        deep = create_deep(config, name, name=name, dtype=self.dtype_policy)
        deep.headless = True
        return deep

    @property
    def eats(self) -> Eats:
        """`fields` when a deep part does."""
        parts = [] if self.structure == "crossnet_only" else [self.deep, self.stacked_deep]
        return "fields" if any(part is not None and part.eats == "fields" for part in parts) else "flat"

    def build_hidden(self, input_shape: tuple[int | None, ...]) -> int:
        """Build the parts."""
        flat = flat_shape(input_shape) if self.eats == "fields" else input_shape
        self.cross.build(flat)
        for deep in (self.deep, self.stacked_deep):
            if deep is not None and self.structure != "crossnet_only":
                deep.build(input_shape if deep.eats == "fields" else flat)
        if self.structure == "crossnet_only":
            return self.cross.width
        if self.structure == "stacked":
            return self.deep.width
        return self.deep.width + (self.cross if self.stacked_deep is None else self.stacked_deep).width

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """What the linear layer reads, `[..., width]`."""
        flat = flatten(inputs) if self.eats == "fields" else inputs
        crossed = self.cross.hidden(flat, mask=mask, training=training)

        def deep(part: HeadedInteraction, x: Any) -> Any:
            if part.eats == "fields":
                x = ops.reshape(x, ops.shape(inputs))
            return part.hidden(x, mask=mask, training=training)

        if self.structure == "crossnet_only":
            return crossed
        if self.structure == "stacked":
            return deep(self.deep, crossed)
        beside = deep(self.deep, flat)
        if self.stacked_deep is not None:
            crossed = deep(self.stacked_deep, crossed)
        return ops.concatenate([crossed, beside], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        cross = self.cross.get_config()
        return {
            **super().get_config(),
            "structure": self.structure,
            "cross": {name: cross[name] for name in arguments_of(CrossNet)},
            "deep": deep_config(self.deep),
            "stacked_deep": None if self.stacked_deep is None else deep_config(self.stacked_deep),
        }


@tfctr_export
class Dcn(DcnV2):
    """DCN: as `DcnV2`, with the cross layers of the first version, a vector of weights each.

    Args:
        structure: as in `DcnV2`; the paper has `parallel`.
        cross: arguments of `CrossNet`; `version` is `v1` by default.
        deep: as in `DcnV2`.
        stacked_deep: as in `DcnV2`.

    Example:
        >>> layer = Dcn(cross={"layers": 2}, deep={"type": "mlp", "hidden": [32]})
        >>> tuple(layer(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Wang et al., Deep & Cross Network for Ad Click Predictions (2017).
    """

    version: ClassVar[str] = "v1"
