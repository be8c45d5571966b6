"""Statistics that are gathered in pieces are those of the whole, however the rows are split and ordered."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfctr.features.kinds import learned
from tfctr.features.kinds.learned import MeanDeviation, Quantiles

COLUMN = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))
CUTS = st.lists(st.integers(0, 60), max_size=4)


def gathered(asked: Any, pieces: list[np.ndarray], seed: int = 0) -> Any:
    """Each piece goes to an accumulator of its own, and these are merged."""
    whole = asked.start(seed)
    for number, piece in enumerate(pieces):
        one = asked.start(seed + number)
        if len(piece):
            one.add(piece)
        whole.merge(one)
    return whole.result()


@pytest.mark.slow
@given(column=COLUMN, cuts=CUTS)
def test_mean_and_deviation(column: np.ndarray, cuts: list[int]) -> None:
    found = gathered(MeanDeviation(), np.split(column, sorted(cuts)))
    scale = max(np.abs(column).max(), 1.0)
    expected = [column.mean(), column.std(), column.min(), column.max()]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-7 * scale)


@given(column=COLUMN, cuts=CUTS)
def test_quantiles(column: np.ndarray, cuts: list[int]) -> None:
    found = gathered(Quantiles(4), np.split(column, sorted(cuts)))
    np.testing.assert_array_equal(found, np.quantile(column, [0.25, 0.5, 0.75]))


@pytest.mark.parametrize("pieces", [1, 7])
def test_quantiles_of_a_sample_weigh_early_and_late_rows_alike(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """Rows in ascending order, a hundred times as many as the sample holds; the tolerance is four deviations of it."""
    monkeypatch.setattr(learned, "_QUANTILE_SAMPLE", 4000)
    column = np.linspace(0.0, 2.0, 400_000)
    accumulators = []
    for number, piece in enumerate(np.array_split(column, pieces)):
        accumulators.append(Quantiles(4).start(number))
        for batch in np.array_split(piece, 20):
            accumulators[-1].add(batch)
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    deviation = 2.0 * np.sqrt(np.array([0.25, 0.5, 0.75]) * np.array([0.75, 0.5, 0.25]) / 4000)
    assert (np.abs(accumulators[0].result() - [0.5, 1.0, 1.5]) < 4 * deviation).all()


@pytest.mark.parametrize("order", ["ascending", "descending", "batches alike"])
def test_quartiles_of_ten_million_rows_in_order(order: str) -> None:
    column = np.linspace(0.0, 2.0, 10_000_000)
    if order == "descending":
        column = column[::-1]
    pieces = [column] if order == "ascending" else [column[:6_000_000], column[6_000_000:]]
    if order == "batches alike":
        pieces = [np.tile(np.arange(4096) * (2.0 / 4095), 2442)]
    accumulators = []
    for piece in pieces:
        accumulators.append(Quantiles(4).start(0))
        for start in range(0, len(piece), 4096):
            accumulators[-1].add(piece[start : start + 4096])
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    np.testing.assert_allclose(accumulators[0].result(), [0.5, 1.0, 1.5], atol=0.02)


def test_accumulators_of_one_seed_draw_different_keys() -> None:
    """Beam starts one for each bundle, all with the seed of the feature file."""
    keys = []
    for start in (0.0, 1.0):
        accumulator = Quantiles(4).start(1)
        for _ in range(2):
            accumulator.add(np.arange(start, start + 50))
        keys.append(accumulator.sample()[1])
    assert len({*np.concatenate(keys).tolist()}) == 200


def test_nothing_gives_nothing() -> None:
    for asked in (MeanDeviation(), Quantiles(3)):
        assert asked.start(0).result() is None
        assert gathered(asked, []) is None
