"""Requests of any sizes in batches of few shapes: every row once, and little padding."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfctr.training.request_plan import MOST_CANDIDATES, MOST_PADDING, RequestPlan, equal_rows, widths

COUNTS = st.lists(st.integers(1, 150), min_size=1, max_size=200)


def test_equal_rows_follow_each_other_in_the_order_of_the_log() -> None:
    digests = np.array([[5, 1], [0, 9], [5, 1], [5, 2], [0, 9], [5, 1]], np.uint64)
    order, counts = equal_rows(digests)
    assert order.tolist() == [0, 2, 5, 1, 4, 3]
    assert counts.tolist() == [3, 2, 1]
    order, counts = equal_rows(digests[:0])
    assert (len(order), len(counts)) == (0, 0)


def test_widths_worked_out_by_hand() -> None:
    assert widths(np.array([10] * 5)) == [10]
    # One width of 4 would have 12 places for 9 rows, which is just allowed.
    assert widths(np.array([4, 4, 1])) == [4]
    # Here 20 places for 13 rows are not, and the request of 1 goes with the 2s: one place for nothing, and not four.
    assert widths(np.array([4, 4, 1, 2, 2])) == [2, 4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_widths_are_the_fewest_and_the_best_of_those(sizes: list[int]) -> None:
    def places(chosen: tuple[int, ...]) -> int:
        return sum(min(width for width in chosen if width >= size) for size in sizes)

    *least, largest = sorted(set(sizes))
    found = widths(np.array(sizes))
    allowed = sum(sizes) / (1 - MOST_PADDING)
    for count in range(len(found)):
        best = min(places((*chosen, largest)) for chosen in combinations(least, count))
        assert best <= allowed + 1e-9 if count + 1 == len(found) else best > allowed - 1e-9
    assert places(tuple(found)) == best


@given(COUNTS, st.integers(1, 300), st.integers(0, 9))
def test_every_row_is_in_one_batch(counts: list[int], batch_size: int, seed: int) -> None:
    plan = RequestPlan(np.array(counts), batch_size)
    assert plan.sizes.max() <= min(MOST_CANDIDATES, batch_size)
    np.testing.assert_array_equal(plan.starts, np.cumsum([0, *plan.sizes[:-1]]))
    # A request that is too large is cut evenly.
    at = 0
    for count in counts:
        parts = plan.sizes[at : (at := at + -(-count // min(MOST_CANDIDATES, batch_size)))]
        assert parts.sum() == count
        assert np.ptp(parts) <= 1
    batches = plan.batches(seed)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([requests for requests, _ in batches])), np.arange(len(plan.sizes))
    )
    shapes = {shape for _, shape in batches}
    assert len(shapes) == len(plan.buckets)
    for requests, (height, width) in batches:
        assert len(requests) in (height, height - 1)
        assert plan.sizes[requests].max() <= width


@given(COUNTS, st.integers(1, 300))
def test_padding_is_bounded_and_batches_are_about_as_large_as_asked(counts: list[int], batch_size: int) -> None:
    plan = RequestPlan(np.array(counts), batch_size)
    rows = plan.sizes.sum()
    among = sum(bucket.width * len(bucket.requests) for bucket in plan.buckets)
    places = sum(bucket.width * bucket.height * bucket.number for bucket in plan.buckets)
    assert 1 - rows / among <= MOST_PADDING + 1e-9
    assert plan.padding == pytest.approx(1 - rows / places)
    for bucket in plan.buckets:
        assert bucket.height * bucket.number - len(bucket.requests) < bucket.number
        average = plan.sizes[bucket.requests].mean()
        assert bucket.height * average < batch_size + average


@pytest.mark.parametrize("seed", [None, 4])
def test_an_order_follows_from_the_seed(seed: int | None) -> None:
    plan = RequestPlan(np.random.default_rng(0).integers(1, 20, 500), 64)
    orders = [[(requests.tolist(), shape) for requests, shape in plan.batches(one)] for one in (seed, seed, 5)]
    assert orders[0] == orders[1] != orders[2]
