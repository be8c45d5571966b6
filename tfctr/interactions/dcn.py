"""Deep & Cross networks: DCN, DCN V2 and GDCN."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import interaction
from tfctr.interactions.cross_net import CrossNet
from tfctr.interactions.headed import DeepConfig, HeadedInteraction, create_deep, create_part
from tfctr.layers.arguments import check_choice
from tfctr.layers.configured import Shape
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import as_vector, flat_shape, join_vectors

Structure = Literal["crossnet_only", "stacked", "parallel", "stacked_parallel"]
STRUCTURES = ("crossnet_only", "stacked", "parallel", "stacked_parallel")


@interaction("dcnv2")
class DcnV2(HeadedInteraction):
    """DCN V2: a cross network before or beside a deep network, under one linear layer.

        crossnet_only       logit = w . cross(x) + b
        stacked             logit = w . deep(cross(x)) + b
        parallel            logit = w . [cross(x); deep(x)] + b
        stacked_parallel    logit = w . [deep'(cross(x)); deep(x)] + b

    With `deep={"type": "qnn_alpha"}` this is the QNN plug-in. Its published results were computed with
    `deep={"type": "qnn_alpha_released"}, cross={"activation": "relu", "batch_norm": true, "dropout": 0.1}`.

    Args:
        structure: one of the above.
        cross: arguments of `CrossNet`.
        deep: the deep part, which may be any backbone with a linear head, without its head; `crossnet_only` does not
            use it.
        stacked_deep: the part deep' of `stacked_parallel`, which has weights of its own; by default as `deep`.

    Inputs float `[..., F, E]` if a deep part eats fields, else `[..., D]`;
    call arguments and output: see `Interaction`.

    Example:
        >>> layer = DcnV2(cross={"layers": 2}, deep={"type": "mlp", "hidden": [32]})
        >>> tuple(layer(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Wang et al., DCN V2 (2021), section 3. QNN-alpha (2025), table 5, whose released code has activation,
        normalization and dropout in the cross part; the paper does not say so.
    """

    version: ClassVar[str] = "v2"
    deep_arguments = ("deep", "stacked_deep")

    def __init__(
        self,
        structure: Structure = "parallel",
        cross: Mapping[str, Any] | None = None,
        deep: DeepConfig = "mlp",
        stacked_deep: DeepConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.structure = check_choice("structure", structure, STRUCTURES)
        if stacked_deep is not None and structure != "stacked_parallel":
            raise ValueError(f"`stacked_deep` is for structure stacked_parallel only. Received: {structure!r}")
        self.cross = self._create_cross({} if cross is None else cross)
        # Made even if it is not used, so that an error in its configuration is found. Only `build` gives it weights.
        self.deep = self._create_deep("deep", deep)
        self.stacked_deep = None
        if structure == "stacked_parallel":
            self.stacked_deep = self._create_deep("stacked_deep", deep if stacked_deep is None else stacked_deep)
        parts = [] if structure == "crossnet_only" else [self.deep, self.stacked_deep]
        self.eats = "fields" if any(part is not None and part.eats == "fields" for part in parts) else "flat"

    def _create_cross(self, config: Mapping[str, Any]) -> CrossNet:
        if not isinstance(config, Mapping):
            raise ValueError(f"`cross` must be a mapping of arguments of CrossNet. Received: {config!r}")
        config = {"type": "cross_net", "version": self.version, **config}
        cross = create_part(self, "cross", {"cross_net": CrossNet}, config)
        cross.headless = True
        return cross

    def _create_deep(self, argument: str, config: DeepConfig) -> HeadedInteraction:
        deep = create_deep(self, config, argument)
        deep.headless = True
        return deep

    @override
    def build_hidden(self, input_shape: Shape) -> int:
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

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        flat = inputs.map(as_vector) if self.eats == "fields" else inputs
        crossed = self.cross.pass_hidden(flat, mask, training)

        def deep(part: HeadedInteraction, x: Passes) -> Passes:
            if part.eats == "fields":
                x = x.map(lambda one, fields: ops.reshape(one, ops.shape(fields)), inputs)
            return part.pass_hidden(x, mask, training)

        if self.structure == "crossnet_only":
            return crossed
        if self.structure == "stacked":
            return deep(self.deep, crossed)
        beside = deep(self.deep, flat)
        if self.stacked_deep is not None:
            crossed = deep(self.stacked_deep, crossed)
        return crossed.map(join_vectors, beside)


@interaction("dcn")
class Dcn(DcnV2):
    """DCN: as `DcnV2`, but each cross layer has a vector of weights, not a matrix.

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


@interaction("gdcn")
class Gdcn(DcnV2):
    """GDCN: as `DcnV2`, but each cross layer has a gate for each of its products.

    Args:
        structure: as in `DcnV2`: `parallel` is GDCN-P, `stacked` GDCN-S, and `crossnet_only` the gated cross network.
        cross: arguments of `CrossNet`; `version` is `gated` by default.
        deep: as in `DcnV2`.
        stacked_deep: as in `DcnV2`.

    Example:
        >>> layer = Gdcn(cross={"layers": 2}, deep={"type": "mlp", "hidden": [32]})
        >>> tuple(layer(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Wang et al., Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction (2023).
    """

    version: ClassVar[str] = "gated"
