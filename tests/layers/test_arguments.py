"""The checks of the arguments of layers."""

from __future__ import annotations

from typing import Any

import pytest

from tfctr.layers import arguments


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1"])
def test_what_is_no_number_of_a_layer(value: Any) -> None:
    with pytest.raises(ValueError, match="`rate` must be"):
        arguments.check_number("rate", value)
    with pytest.raises(ValueError, match="`rate` must be"):
        arguments.check_rate("rate", value)
