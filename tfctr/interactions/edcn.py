"""EDCN, the Deep & Cross Network whose two branches share information after every layer."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.cross_net import CrossV1
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_choice, check_count, check_rate
from tfctr.layers.configured import Shape
from tfctr.layers.edcn_blocks import BRIDGES, BridgeKind, EdcnBridge, EdcnRegulation
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import as_tokens, token_shape


@interaction("edcn")
class Edcn(HeadedInteraction):
    """A cross and a deep branch, joined by a bridge and parted by a regulation at every layer.

        z_0      = the fields
        (c, h)   = regulation_l(z_{l-1}),    x_0 = c of the first layer
        c_l      = x_0 (w_l . c) + b_l
        h_l      = dropout(relu(h W_l + b'_l))
        z_l      = bridge_l(c_l, h_l)
        logit    = w . [c_L; h_L; z_L] + b

    All of these vectors have the D = F E elements of the fields; `EdcnBridge` and `EdcnRegulation` have the formulas of
    their parts.

    Args:
        layers: L.
        bridge: `hadamard`, which the paper found best, `addition`, `concatenation` or `attention`.
        temperature: tau of the regulation.
        batch_norm: whether the regulation normalizes what each branch gets.
        dropout: the rate after each layer of the deep branch.
        shared_attention: whether the bridge `attention` has one network for both branches, as FuxiCTR computes it; by
            default it has the paper's two.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Edcn(layers=2, temperature=5.0)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Chen et al., Enhancing Explicit and Implicit Feature Interactions via Information Sharing for Parallel Deep CTR
        Models (2021). As in FuxiCTR, whose results are the published benchmark, a cross layer does not add its input,
        which those of DCN do, and the regulation may normalize.
    """

    eats: Eats = "fields"

    def __init__(
        self,
        layers: int = 3,
        bridge: BridgeKind = "hadamard",
        temperature: float = 1.0,
        batch_norm: bool = False,
        dropout: float = 0.0,
        shared_attention: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dropout = check_rate("dropout", dropout)
        bridge = check_choice("bridge", bridge, BRIDGES)
        numbers = range(check_count("layers", layers))
        self.regulations = [self.make_part(EdcnRegulation, f"regulation{i}", temperature, batch_norm) for i in numbers]
        self.crosses = [self.make_part(CrossV1, f"cross{i}", residual=False) for i in numbers]
        self.bridges = [self.make_part(EdcnBridge, f"bridge{i}", bridge, shared_attention) for i in numbers]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        dim = fields * width
        flat = (None, dim)
        for regulation, cross, bridge in zip(self.regulations, self.crosses, self.bridges, strict=True):
            regulation.build(input_shape)
            cross.build(flat)
            bridge.build(flat)
        self.deeps = [
            self.make_part(MlpBlock, f"deep{i}", [dim], dropout=self.dropout, built_for=flat)
            for i in range(len(self.crosses))
        ]
        return 3 * dim

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        first, bridged, outputs = None, inputs, []
        for i, regulation in enumerate(self.regulations):
            cross, deep = regulation(bridged, mask=mask, training=training)
            first = cross if first is None else first
            cross = self.crosses[i](cross, first)
            deep = self.deeps[i](deep, training=training)
            bridge = self.bridges[i](cross, deep)
            outputs = [cross, deep, bridge]
            bridged = as_tokens(bridge, *inputs.shape[-2:])
        return ops.concatenate(outputs, axis=-1)
