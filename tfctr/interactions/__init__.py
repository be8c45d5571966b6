"""Interaction backbones: modules that mix the fields of an impression into a logit."""

from collections.abc import Mapping
from typing import Any

from tfctr.interactions.base import INTERACTIONS as INTERACTIONS
from tfctr.interactions.base import Interaction as Interaction
from tfctr.layers.registry import create

# isort: off
# The backbones are listed to users in the order of these imports.
from tfctr.interactions.mlp import Mlp as Mlp
from tfctr.interactions.qnn_alpha import QnnAlpha as QnnAlpha, QnnAlphaReleased as QnnAlphaReleased
from tfctr.interactions.neuron import Neuron as Neuron, QuadraticNeuron as QuadraticNeuron
from tfctr.interactions.qin import FoldedQin as FoldedQin, Qin as Qin
from tfctr.interactions.fm import Fm as Fm
from tfctr.interactions.cross_net import CrossNet as CrossNet
from tfctr.interactions.cin import Cin as Cin
from tfctr.interactions.wide_deep import WideDeep as WideDeep
from tfctr.interactions.deepfm import DeepFm as DeepFm
from tfctr.interactions.xdeepfm import XDeepFm as XDeepFm
from tfctr.interactions.dcn import Dcn as Dcn, DcnV2 as DcnV2
from tfctr.interactions.dlf import Dlf as Dlf
from tfctr.interactions.dlf_released import DlfReleased as DlfReleased
from tfctr.interactions.edcn import Edcn as Edcn
from tfctr.interactions.masknet import MaskNet as MaskNet
# isort: on


def create_interaction(config: str | Mapping[str, Any], **layer_arguments: Any) -> Interaction:
    """Make a backbone from its name or from `{"type": name, argument: value, ...}`.

    Args:
        config: a key of `INTERACTIONS`, or a mapping with `type` and arguments of its class.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        UserError: for an unknown type or argument, a missing argument, or a value that the backbone refuses.
    """
    return create("interaction", INTERACTIONS, config, **layer_arguments)
