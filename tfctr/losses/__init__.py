"""Losses on logits, for one or several forward passes of a backbone."""

from collections.abc import Mapping
from typing import Any

from tfctr.layers.registry import create
from tfctr.losses.auxiliary import AUXILIARY_LOSSES as AUXILIARY_LOSSES
from tfctr.losses.auxiliary import AuxiliaryLoss as AuxiliaryLoss
from tfctr.losses.auxiliary import create_auxiliary_loss as create_auxiliary_loss
from tfctr.losses.base import LOSSES as LOSSES
from tfctr.losses.base import Loss as Loss

# isort: off
# The order is that of `LOSSES`.
from tfctr.losses.binary_crossentropy import BinaryCrossentropy as BinaryCrossentropy
from tfctr.losses.self_ensemble import SelfEnsemble as SelfEnsemble
from tfctr.losses.kl import KlConsistency as KlConsistency
from tfctr.losses.r_drop import RDrop as RDrop
from tfctr.losses.tri_crossentropy import TriBce as TriBce, tri_bce as tri_bce
from tfctr.losses.cl4ctr import Cl4Ctr as Cl4Ctr
# isort: on


def create_loss(config: str | Mapping[str, Any]) -> Loss:
    """Make a loss from its name or from `{"type": name, argument: value}`.

    Raises:
        UserError: for an unknown type or argument, or a value that the loss refuses.
    """
    return create("loss", LOSSES, config)
