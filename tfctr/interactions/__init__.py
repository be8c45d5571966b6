"""Interaction backbones: modules that mix the fields of an impression into a logit."""

from collections.abc import Mapping
from typing import Any

from tfctr.interactions.base import Interaction
from tfctr.interactions.cin import Cin
from tfctr.interactions.cross_net import CrossNet
from tfctr.interactions.dcn import Dcn, DcnV2
from tfctr.interactions.deepfm import DeepFm
from tfctr.interactions.dlf import Dlf
from tfctr.interactions.dlf_released import DlfReleased
from tfctr.interactions.fm import Fm
from tfctr.interactions.mlp import Mlp
from tfctr.interactions.neuron import Neuron, QuadraticNeuron
from tfctr.interactions.qin import FoldedQin, Qin
from tfctr.interactions.qnn_alpha import QnnAlpha, QnnAlphaReleased
from tfctr.interactions.wide_deep import WideDeep
from tfctr.interactions.xdeepfm import XDeepFm
from tfctr.layers.registry import create

INTERACTIONS: dict[str, type[Interaction]] = {
    "mlp": Mlp,
    "qnn_alpha": QnnAlpha,
    "qnn_alpha_released": QnnAlphaReleased,
    "neuron": Neuron,
    "qin": Qin,
    "fm": Fm,
    "cross_net": CrossNet,
    "cin": Cin,
    "wide_deep": WideDeep,
    "deepfm": DeepFm,
    "xdeepfm": XDeepFm,
    "dcn": Dcn,
    "dcnv2": DcnV2,
    "dlf": Dlf,
    "dlf_released": DlfReleased,
}
"""The backbones by the name that a configuration uses."""


def create_interaction(config: str | Mapping[str, Any], **layer_arguments: Any) -> Interaction:
    """Make a backbone from its name or from `{"type": name, argument: value, ...}`.

    Args:
        config: a key of `INTERACTIONS`, or a mapping with `type` and arguments of its class.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        UserError: for an unknown type or argument, a missing argument, or a value that the backbone refuses.
    """
    return create("interaction", INTERACTIONS, config, **layer_arguments)


__all__ = [
    "INTERACTIONS",
    "Cin",
    "CrossNet",
    "Dcn",
    "DcnV2",
    "DeepFm",
    "Dlf",
    "DlfReleased",
    "Fm",
    "FoldedQin",
    "Interaction",
    "Mlp",
    "Neuron",
    "Qin",
    "QnnAlpha",
    "QnnAlphaReleased",
    "QuadraticNeuron",
    "WideDeep",
    "XDeepFm",
    "create_interaction",
]
