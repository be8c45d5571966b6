"""Interests: what a user's history says about a candidate."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfctr.interests.base import INTERESTS as INTERESTS
from tfctr.interests.base import Interest as Interest
from tfctr.interests.base import SequenceFacts as SequenceFacts
from tfctr.layers.registry import arguments_of, create

# isort: off
# The order is that of `INTERESTS`, and of what `tfctr models` prints.
from tfctr.interests.mean import MeanPooling as MeanPooling
from tfctr.interests.din import Din as Din
from tfctr.interests.target_attention import TargetAttention as TargetAttention
from tfctr.interests.asta import SparseTargetAttention as SparseTargetAttention
from tfctr.interests.dta import DecoupledTargetAttention as DecoupledTargetAttention
from tfctr.interests.simtier import SimilarityHistogram as SimilarityHistogram
from tfctr.interests.simtier_released import ReleasedSimilarityHistogram as ReleasedSimilarityHistogram
from tfctr.interests.cmm import ComplementaryModality as ComplementaryModality
from tfctr.interests.ta_early import EarlyFusionAttention as EarlyFusionAttention
from tfctr.interests.ta_late import LateFusionAttention as LateFusionAttention
from tfctr.interests.bfs_mf import BehaviorFeatureSplit as BehaviorFeatureSplit
from tfctr.interests.make import ContentInterest as ContentInterest
from tfctr.interests.sasrec import SasRec as SasRec
from tfctr.interests.sim import Sim as Sim
from tfctr.interests.eta import Eta as Eta
from tfctr.interests.sdim import Sdim as Sdim
from tfctr.interests.linear_attention import LinearAttention as LinearAttention
from tfctr.interests.twin import Twin as Twin
from tfctr.interests.hstu import Hstu as Hstu
from tfctr.interests.dmqn import Dmqn as Dmqn
# isort: on


def interest_arguments(kind: str) -> dict[str, Any]:
    """Return the arguments of a type by name, with their defaults; `inspect.Parameter.empty` where there is none."""
    return arguments_of(INTERESTS[kind])


def create_interest(
    config: str | Mapping[str, Any],
    sequence: SequenceFacts | None = None,
    other_keys: Sequence[str] = (),
    **layer_arguments: Any,
) -> Interest:
    """Make an interest from its name or from `{"type": name, argument: value, ...}`.

    Args:
        config: a key of `INTERESTS`, or a mapping with `type` and arguments of its class.
        sequence: what the feature file knows of the sequence, from which the interest completes its arguments.
        other_keys: what else an entry of a configuration may say, for the message about an unknown argument.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        UserError: for an unknown type or argument, a missing argument, or a value that the interest refuses.
    """

    def complete(made: type[Interest], options: dict[str, Any]) -> dict[str, Any]:
        return options if sequence is None else made.complete(options, sequence)

    return create("interest", INTERESTS, config, complete, other_keys, **layer_arguments)
