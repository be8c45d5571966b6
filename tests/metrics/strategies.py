"""Random impressions for hypothesis, with ties of scores, small groups of one class, and some weights of zero."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Rows:
    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    weights: np.ndarray


@st.composite
def impressions(draw, max_rows=60, zero_weights=True):
    rows = draw(st.integers(1, max_rows))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    weights = generator.choice([0.0 if zero_weights else 0.25, 0.5, 1.0, 2.5], rows)
    return Rows(
        labels=(generator.random(rows) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))).astype(np.int64),
        scores=generator.integers(1, levels + 1, rows) / (levels + 1.0),
        groups=generator.integers(0, draw(st.integers(1, 20)), rows) - 3,
        weights=weights,
    )
