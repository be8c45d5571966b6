from typing import Any

import numpy as np
import pytest

from tfctr.data.build import counts
from tfctr.data.build.counts import DrawCounts, SecondCounts
from tfctr.data.splits import Shares, Terciles, by_time


def test_the_last_tenth_of_each_user_is_test_and_the_one_before_it_valid() -> None:
    user = np.repeat([1, 2], [10, 20])
    time = np.concatenate([np.arange(10), np.arange(20)])
    expected = [0] * 8 + [1, 2] + [0] * 16 + [1, 1, 2, 2]
    assert by_time(user, time).tolist() == expected


def test_a_second_of_a_user_is_never_cut() -> None:
    time = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7, 7])  # The middle of the last three is rank 8.5 of 10: valid.
    assert by_time(np.ones(10, int), time).tolist() == [0] * 7 + [1] * 3
    time = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])  # The middle of the last two is 9.0 of 10, not above 0.9.
    assert by_time(np.ones(10, int), time).tolist() == [0] * 8 + [1] * 2


@pytest.mark.parametrize("split", ["user-time", "global-time"])
def test_seconds_stay_whole_and_ordered_on_random_data(split: str) -> None:
    rng = np.random.default_rng(5)
    user = np.sort(rng.integers(40, size=4000))
    time = rng.integers(500, size=4000)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    group = user if split == "user-time" else np.zeros_like(user)
    if split == "user-time":
        splits = by_time(user, time)
    else:
        seconds = SecondCounts()
        for piece in np.array_split(time, 7):
            seconds.merge(SecondCounts(*np.unique(piece, return_counts=True)))
        cut = seconds.cut()
        splits = np.select([time >= cut.test, time >= cut.valid], [2, 1], 0)
        in_time = np.argsort(time, kind="stable")
        np.testing.assert_array_equal(splits[in_time], by_time(group, time[in_time]))
    for key in np.unique(group):
        mine = group == key
        edges = [(time[mine & (splits == s)].min(), time[mine & (splits == s)].max()) for s in range(3)]
        assert edges[0][1] < edges[1][0]
        assert edges[1][1] < edges[2][0]
    shares = np.bincount(splits) / len(splits)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_other_shares_of_each_user() -> None:
    user = np.repeat([1, 2], [10, 20])
    time = np.concatenate([np.arange(10), np.arange(20)])
    expected = [0] * 7 + [1, 1, 2] + [0] * 14 + [1] * 4 + [2] * 2
    assert by_time(user, time, Shares(7, 2, 1)).tolist() == expected


@pytest.mark.parametrize("shares", [Shares(7, 2, 1), Shares(1, 1, 1), Shares(98, 1, 1), Shares(1, 8, 400)])
@pytest.mark.parametrize("many", [1_000, 1_000_000])
def test_a_random_split_has_the_sizes_of_its_shares(shares: Shares, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_MANY", many)
    draws = np.random.default_rng(3).random(200_003)
    drawn = DrawCounts(shares=shares)
    for piece in np.array_split(draws, 20):
        drawn.merge(DrawCounts(len(piece), draws=piece, shares=shares))
    cut = drawn.cut()
    splits = np.select([draws >= cut.test, draws >= cut.valid], [2, 1], 0)
    train, valid = (200_003 * share // sum(shares) for share in shares[:2])
    assert np.bincount(splits).tolist() == [train, valid, 200_003 - train - valid]
    assert (len(drawn.draws) < 10_000) == (many == 1_000)


@pytest.mark.parametrize("many", [1_000, 1_000_000])
def test_the_random_split_has_the_published_sizes(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_MANY", many)
    draws = np.random.default_rng(3).random(739_012)
    drawn = DrawCounts()
    for piece in np.array_split(draws, 50):
        drawn.merge(DrawCounts(len(piece), draws=piece))
    cut = drawn.cut()
    splits = np.select([draws >= cut.test, draws >= cut.valid], [2, 1], 0)
    assert np.bincount(splits).tolist() == [591_209, 73_901, 73_902]
    assert (len(drawn.draws) < 40_000) == (many == 1_000)


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 11, 25])
def test_few_rows_are_split_exactly_too(rows: int) -> None:
    draws = np.random.default_rng(rows).random(rows)
    cut = DrawCounts(rows, draws=draws).cut()
    splits = np.select([draws >= cut.test, draws >= cut.valid], [2, 1], 0)
    assert np.bincount(splits, minlength=3).tolist()[:2] == [rows * 8 // 10, rows // 10]


def test_terciles_hold_a_third_of_the_train_rows_each() -> None:
    keys = np.repeat(np.arange(9), [1, 1, 1, 3, 3, 6, 6, 6, 9])  # 36 rows; thirds end at 12 and 24.
    slices = Terciles.of(keys)
    # Counts 1 (middle 1.5) and 3 (middle 6) are low, 6 (middle 18) medium, 9 (middle 31.5) high.
    assert [slices.name(key) for key in range(9)] == ["low"] * 5 + ["medium"] * 3 + ["high"]
    assert slices.name(77) == "new"


def test_terciles_of_equal_counts_are_all_medium() -> None:
    slices = Terciles.of(np.arange(6))
    assert {slices.name(key) for key in range(6)} == {"medium"}


@pytest.mark.parametrize("given", [[8, 1], [], {"train": 8}, [8, 1, 1, 1], [8, 0, 1], [8, 1.5, 1], "811", [True, 1, 1]])
def test_shares_are_three_positive_whole_numbers(given: Any) -> None:
    with pytest.raises(ValueError, match="must be three positive whole numbers, of train, valid and test"):
        Shares.of(given)
