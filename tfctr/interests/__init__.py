"""Interests: what a user's history says about a candidate. The table below is the whole list."""

import inspect
from collections.abc import Mapping
from typing import Any

from tfctr.errors import UserError
from tfctr.interests.base import Interest
from tfctr.interests.cmm import ComplementaryModality
from tfctr.interests.din import Din
from tfctr.interests.dta import DecoupledTargetAttention
from tfctr.interests.mean import MeanPooling
from tfctr.interests.simtier import SimilarityHistogram
from tfctr.interests.target_attention import TargetAttention

INTERESTS: dict[str, type[Interest]] = {
    "mean": MeanPooling,
    "din": Din,
    "target_attention": TargetAttention,
    "dta": DecoupledTargetAttention,
    "simtier": SimilarityHistogram,
    "cmm": ComplementaryModality,
}

__all__ = [
    "INTERESTS",
    "ComplementaryModality",
    "DecoupledTargetAttention",
    "Din",
    "Interest",
    "MeanPooling",
    "SimilarityHistogram",
    "TargetAttention",
    "create_interest",
    "interest_arguments",
]


def interest_arguments(kind: str) -> dict[str, Any]:
    """The arguments of a type by name, with their defaults; `inspect.Parameter.empty` where there is none."""
    parameters = inspect.signature(INTERESTS[kind]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}


def create_interest(config: Mapping[str, Any], **kwargs: Any) -> Interest:
    """The interest that a configuration describes.

    Args:
        config: `{"type": "din", ...}`: a key of `INTERESTS`, and arguments of its class.
        **kwargs: arguments of `keras.layers.Layer` (`name`, `dtype`); these come from code, not from a file.

    Raises:
        UserError: if the type or an argument is unknown, an argument is missing, or a value is not allowed.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in INTERESTS:
        raise UserError(f"interest: unknown type {kind!r}; allowed: {', '.join(INTERESTS)}")
    allowed = interest_arguments(kind)
    unknown = sorted(set(arguments) - set(allowed), key=str)
    if unknown:
        names = ", ".join(allowed) or "none"
        raise UserError(f"interest {kind}: unknown argument {', '.join(map(repr, unknown))}; allowed: {names}")
    required = [name for name, default in allowed.items() if default is inspect.Parameter.empty]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise UserError(f"interest {kind}: argument {', '.join(map(repr, missing))} must be given")
    try:
        return INTERESTS[kind](**arguments, **kwargs)
    except (TypeError, ValueError) as error:
        raise UserError(f"interest {kind}: {error}") from error
