"""What the names of columns say."""

from __future__ import annotations

import pytest

from tfctr.project.names import Names, before, named_in, names_an_id, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("History_itemIDs", ["history", "item", "id"]),
        ("clickedItems", ["clicked", "item"]),
        ("user-item_affinity_0", ["user", "item", "affinity", "0"]),
        ("price (EUR)", ["price", "eur"]),
        ("hist_ts", ["hist", "ts"]),
        ("商品", []),
        ("", []),
    ],
)
def test_words(name: str, expected: list[str]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("history", "column"),
    [
        ("history_item_id", "item_id"),
        ("clickedItems", "item_id"),
        ("item_ids", "item_id"),
        ("past_item_category", "item_category"),  # the longest
        ("past_user", None),
        ("item_id", "item_category_of"),
    ],
)
def test_named_in(history: str, column: str | None) -> None:
    columns = ["item_id", "item_category", "colour"]
    assert named_in(history, columns) == (column if column in columns else None)


def test_before() -> None:
    assert before("my_history_itemId", "item_id") == "my_history"
    assert before("item_ids", "item_id") == ""
    assert before("clicked", "商品") == ""


def test_names_an_id() -> None:
    assert names_an_id("siteId")
    assert names_an_id("zip")
    assert not names_an_id("id_count")


def test_every_name_is_given_once() -> None:
    names = Names(["label", "click_hour"], ["state_user_"])
    columns = ["205", "a-b", "a_b", "A_B", "Label", "class", "self", "state_user_x", "价格", "click-hour"]
    assert [names.of(column) for column in columns] == [
        "column_205", "a_b", "a_b_2", "A_B_3", "Label_2", "class_2", "self_2", "column_state_user_x", "column",
        "click_hour_2",
    ]  # fmt: skip
