"""Values that are missing, in Arrow's columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def without(values: pa.Array, gone: pa.Array) -> pa.Array:
    """The values [n] with a null where `gone` [n] is true.

    `pyarrow.compute.if_else` would do, but of a slice of texts it makes an invalid array (pyarrow 18.1).
    """
    mask = pc.fill_null(gone, False).to_numpy(zero_copy_only=False)
    return values.take(pa.array(np.arange(len(values)), mask=mask)) if mask.any() else values


def without_empty(texts: pa.Array) -> pa.Array:
    """Texts, or bytes, with a null where one is empty."""
    return without(texts, pc.equal(pc.binary_length(texts), 0))


def without_nan(values: pa.Array) -> pa.Array:
    """Values with a null where they are no number."""
    return without(values, pc.is_nan(values)) if pa.types.is_floating(values.type) else values
