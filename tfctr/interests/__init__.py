"""Interests: what a user's history says about a candidate. The table below is the whole list."""

from collections.abc import Mapping
from typing import Any

from tfctr.interests.asta import SparseTargetAttention
from tfctr.interests.base import Interest
from tfctr.interests.bfs_mf import BehaviorFeatureSplit
from tfctr.interests.cmm import ComplementaryModality
from tfctr.interests.din import Din
from tfctr.interests.dmqn import Dmqn
from tfctr.interests.dta import DecoupledTargetAttention
from tfctr.interests.eta import Eta
from tfctr.interests.hstu import Hstu
from tfctr.interests.make import ContentInterest
from tfctr.interests.mean import MeanPooling
from tfctr.interests.sasrec import SasRec
from tfctr.interests.sdim import Sdim
from tfctr.interests.sim import Sim
from tfctr.interests.simtier import SimilarityHistogram
from tfctr.interests.ta_early import EarlyFusionAttention
from tfctr.interests.ta_late import LateFusionAttention
from tfctr.interests.target_attention import TargetAttention
from tfctr.interests.twin import Twin
from tfctr.layers.registry import arguments_of, create

INTERESTS: dict[str, type[Interest]] = {
    "mean": MeanPooling,
    "din": Din,
    "target_attention": TargetAttention,
    "asta": SparseTargetAttention,
    "dta": DecoupledTargetAttention,
    "simtier": SimilarityHistogram,
    "cmm": ComplementaryModality,
    "ta_early": EarlyFusionAttention,
    "ta_late": LateFusionAttention,
    "bfs_mf": BehaviorFeatureSplit,
    "make": ContentInterest,
    "sasrec": SasRec,
    "sim": Sim,
    "eta": Eta,
    "sdim": Sdim,
    "twin": Twin,
    "hstu": Hstu,
    "dmqn": Dmqn,
}

__all__ = [
    "INTERESTS",
    "BehaviorFeatureSplit",
    "ComplementaryModality",
    "ContentInterest",
    "DecoupledTargetAttention",
    "Din",
    "Dmqn",
    "EarlyFusionAttention",
    "Eta",
    "Hstu",
    "Interest",
    "LateFusionAttention",
    "MeanPooling",
    "SasRec",
    "Sdim",
    "Sim",
    "SimilarityHistogram",
    "SparseTargetAttention",
    "TargetAttention",
    "Twin",
    "create_interest",
    "interest_arguments",
]


def interest_arguments(kind: str) -> dict[str, Any]:
    """The arguments of a type by name, with their defaults; `inspect.Parameter.empty` where there is none."""
    return arguments_of(INTERESTS[kind])


def create_interest(config: str | Mapping[str, Any], **layer_arguments: Any) -> Interest:
    """Make an interest from its name or from `{"type": name, argument: value, ...}`.

    Args:
        config: a key of `INTERESTS`, or a mapping with `type` and arguments of its class.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        UserError: for an unknown type or argument, a missing argument, or a value that the interest refuses.
    """
    return create("interest", INTERESTS, config, **layer_arguments)
