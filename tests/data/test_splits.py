import numpy as np
import pytest

from tfctr.data.splits import Terciles, assign_splits


def test_the_last_tenth_of_each_user_is_test_and_the_one_before_it_valid() -> None:
    user = np.repeat([1, 2], [10, 20])
    time = np.concatenate([np.arange(10), np.arange(20)])
    expected = [0] * 8 + [1, 2] + [0] * 16 + [1, 1, 2, 2]
    assert assign_splits("user-time", user, time, 0).tolist() == expected


def test_a_second_of_a_user_is_never_cut() -> None:
    time = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7, 7])  # The middle of the last three is rank 8.5 of 10: valid.
    assert assign_splits("user-time", np.ones(10, int), time, 0).tolist() == [0] * 7 + [1] * 3
    time = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])  # The middle of the last two is 9.0 of 10, not above 0.9.
    assert assign_splits("user-time", np.ones(10, int), time, 0).tolist() == [0] * 8 + [1] * 2


@pytest.mark.parametrize("split", ["user-time", "global-time"])
def test_seconds_stay_whole_and_ordered_on_random_data(split: str) -> None:
    rng = np.random.default_rng(5)
    user = np.sort(rng.integers(40, size=4000))
    time = rng.integers(500, size=4000)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    splits = assign_splits(split, user, time, 0)  # type: ignore[arg-type]
    group = user if split == "user-time" else np.zeros_like(user)
    for key in np.unique(group):
        mine = group == key
        edges = [(time[mine & (splits == s)].min(), time[mine & (splits == s)].max()) for s in range(3)]
        assert edges[0][1] < edges[1][0]
        assert edges[1][1] < edges[2][0]
    shares = np.bincount(splits) / len(splits)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_the_random_split_has_the_published_sizes() -> None:
    n = 739_012
    splits = assign_splits("random", np.zeros(n, int), np.zeros(n, int), 3)
    assert np.bincount(splits).tolist() == [591_209, 73_901, 73_902]
    assert (splits == assign_splits("random", np.zeros(n, int), np.zeros(n, int), 3)).all()
    assert (splits != assign_splits("random", np.zeros(n, int), np.zeros(n, int), 4)).any()


def test_terciles_hold_a_third_of_the_train_rows_each() -> None:
    keys = np.repeat(np.arange(9), [1, 1, 1, 3, 3, 6, 6, 6, 9])  # 36 rows; thirds end at 12 and 24.
    slices = Terciles.of(keys)
    # Counts 1 (middle 1.5) and 3 (middle 6) are low, 6 (middle 18) medium, 9 (middle 31.5) high.
    assert [slices.name(key) for key in range(9)] == ["low"] * 5 + ["medium"] * 3 + ["high"]
    assert slices.name(77) == "new"


def test_terciles_of_equal_counts_are_all_medium() -> None:
    slices = Terciles.of(np.arange(6))
    assert {slices.name(key) for key in range(6)} == {"medium"}
