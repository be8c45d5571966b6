"""Interaction backbones: modules that mix the fields of an impression into a logit."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfctr.interactions.base import INTERACTIONS as INTERACTIONS
from tfctr.interactions.base import FieldFacts as FieldFacts
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
from tfctr.interactions.dcn import Dcn as Dcn, DcnV2 as DcnV2, Gdcn as Gdcn
from tfctr.interactions.lr import Lr as Lr
from tfctr.interactions.afm import Afm as Afm
from tfctr.interactions.pnn import Pnn as Pnn
from tfctr.interactions.autoint import AutoInt as AutoInt
from tfctr.interactions.afn import Afn as Afn
from tfctr.interactions.sam import Sam as Sam
from tfctr.interactions.dlf import Dlf as Dlf
from tfctr.interactions.dlf_released import DlfReleased as DlfReleased
from tfctr.interactions.final import Final as Final
from tfctr.interactions.finalmlp import FinalMlp as FinalMlp
from tfctr.interactions.ecn import Ecn as Ecn, Fcn as Fcn
from tfctr.interactions.edcn import Edcn as Edcn
from tfctr.interactions.masknet import MaskNet as MaskNet
from tfctr.interactions.eulernet import EulerNet as EulerNet
from tfctr.interactions.rfm import Rfm as Rfm
from tfctr.interactions.wukong import Wukong as Wukong
from tfctr.interactions.dlrm import Dlrm as Dlrm
# isort: on


def create_interaction(
    config: str | Mapping[str, Any], fields: Sequence[FieldFacts] | None = None, **layer_arguments: Any
) -> Interaction:
    """Make a backbone from its name or from `{"type": name, argument: value, ...}`.

    Args:
        config: a key of `INTERACTIONS`, or a mapping with `type` and arguments of its class.
        fields: what the model knows of the fields, from which the backbone completes its arguments.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        UserError: for an unknown type or argument, a missing argument, or a value that the backbone refuses.
    """

    def complete(made: type[Interaction], options: dict[str, Any]) -> dict[str, Any]:
        return options if fields is None else made.complete(options, fields)

    return create("interaction", INTERACTIONS, config, complete, **layer_arguments)
