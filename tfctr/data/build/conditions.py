"""What a value must be, for a row of the log to count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from tfctr.errors import UserError
from tfctr.features.yaml_file import Strict

if TYPE_CHECKING:
    import pyarrow as pa

_COMPARISONS = {"above": "greater", "below": "less", "at_least": "greater_equal", "at_most": "less_equal"}
"""Arrow's functions by the key of the rule."""

Scalar = int | float | str | bool


class Rule(Strict):
    """What a value must be: at most one of the keys. A missing value holds none of them but `present: false`."""

    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] | None = None
    present: bool | None = None

    @property
    def given(self) -> tuple[str, Any] | None:
        """The key that was given, and its value."""
        found = [(key, value) for key in Rule.model_fields if (value := getattr(self, key)) is not None]
        return found[0] if found else None

    @property
    def asks_numbers(self) -> bool:
        """Whether it can be asked of numbers only."""
        key, wanted = self.given or ("present", ())
        if key == "present":
            return False
        return key in _COMPARISONS or all(isinstance(one, int | float) and not isinstance(one, bool) for one in wanted)

    @property
    def text(self) -> str:
        """How it is written."""
        key, wanted = self.given or ("", "")
        return f"{key}: {_text(wanted)}"

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [key for key in Rule.model_fields if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"must have one of {', '.join(Rule.model_fields)}. Received: {', '.join(given)}")
        return self

    def holds(self, values: pa.Array, name: str) -> npt.NDArray[np.bool_]:
        """Which values [n] hold the rule.

        Args:
            values: The values [n].
            name: Their column, for the message.

        Raises:
            UserError: when the rule can't be asked of such values.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.given is None:
            return np.ones(len(values), bool)
        key, wanted = self.given
        if key == "present":
            return np.asarray(values.is_valid().to_numpy(zero_copy_only=False) == wanted)
        try:
            if key in _COMPARISONS:
                # 0.1 as a float32 is above 0.1 as a float64.
                limit = pa.scalar(wanted, values.type) if pa.types.is_floating(values.type) else wanted
                met = getattr(pc, _COMPARISONS[key])(values, limit)
            else:
                allowed = _allowed(values.type)
                if not all(isinstance(one, allowed) for one in wanted):
                    raise TypeError
                among = pc.is_in(values, pa.array(wanted).cast(values.type))
                met = pc.if_else(values.is_valid(), pc.equal(among, key == "one_of"), False)
        except (pa.ArrowException, TypeError, OverflowError):
            raise UserError(
                f"column '{name}' of the log is {values.type}; `{self.text}` can't be asked of it"
                + ("; write texts in quotes" if pa.types.is_string(values.type) else "")
            ) from None
        return np.asarray(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


class Condition(Rule):
    """What a column of the log must be."""

    column: str

    @model_validator(mode="after")
    def _a_rule(self) -> Self:
        if self.given is None:
            raise ValueError(f"must have one of {', '.join(Rule.model_fields)}")
        return self


def _allowed(kind: pa.DataType) -> type | tuple[type, ...]:
    """What can be among values of a type: Arrow would make `true` of True, and True of 2."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return bool
    return str if pa.types.is_string(kind) else (int, float, str)


def _text(wanted: Any) -> str:
    return f"[{', '.join(map(str, wanted))}]" if isinstance(wanted, tuple) else str(wanted)
