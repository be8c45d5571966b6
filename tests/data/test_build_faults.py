"""What `tfctr data build` says of bad input, and that nothing half-written is left; a killed build is continued."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.data.build_logs import BUILD, build, click_log
from tests.data.helpers import content as content_of
from tests.tables import write_csv
from tfctr.data.build import local
from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of
from tfctr.data.staging import resumed_directory, staged_directory
from tfctr.errors import UserError

LOG = BUILD["log"]


def with_value(name: str, row: int, value: Any) -> pa.Table:
    """The log with one value changed."""
    log = click_log(12)
    values = log[name].to_pylist()
    values[row] = value
    return log.set_column(log.schema.get_field_index(name), name, pa.array(values))


def with_text_time(row: int) -> pa.Table:
    texts = [str(time) for time in click_log(12)["time"].to_pylist()]
    texts[row] = "yesterday"
    return click_log(12).set_column(2, "time", pa.array(texts))


def with_text_label(row: int) -> pa.Table:
    texts = [str(label) for label in click_log(12)["click"].to_pylist()]
    texts[row] = "yes"
    return click_log(12).set_column(3, "click", pa.array(texts))


@pytest.mark.parametrize(
    ("log", "changed", "match"),
    [
        (with_value("user", 7, None), {}, r"log.parquet, row 8: column 'user' is missing; .*log.where"),
        (with_value("time", 7, None), {}, r"log.parquet, row 8: column 'time' is missing"),
        (with_value("click", 7, None), {}, r"log.parquet, row 8: column 'click' is missing, so the row has no label"),
        (with_value("click", 7, 2), {}, r"row 8: column 'click' is 2; .* a label must be 0 or 1"),
        (
            with_value("click", 7, 0.5),
            {"histories": {}},
            r"log.parquet, row 8: column 'click' is 0.5; .* must be 0 or 1",
        ),
        (with_text_label(7), {"histories": {}}, r"log.parquet, row 8: column 'click' is 'yes'; .* must be 0 or 1"),
        (
            click_log(12).set_column(3, "click", pa.array([[1]] * click_log(12).num_rows)),
            {"histories": {}},
            r"log.parquet, row \d+: column 'click' is \[1\]; .* must be 0 or 1",
        ),
        (
            with_value("time", 7, 1_700_000_000_000),
            {},
            r"row 8: .* no time between 1970 and 2100 in seconds; .*milliseconds",
        ),
        (with_value("time", 7, -5), {}, r"row 8: column 'time' is -5"),
        (with_text_time(7), {}, r"row 8: column 'time' is 'yesterday'; a time is a timestamp, or whole seconds"),
        (
            click_log(12),
            {"impressions": [{"column": "item", "one_of": [10**23]}]},
            r"column 'item' of the log is int64; `one_of: \[1000+\]` can't be asked of it",
        ),
        (
            click_log(12).set_column(0, "user", pa.array([[1]] * click_log(12).num_rows)),
            {},
            r"log.parquet: column 'user' is list<.*int64>; a user or item is one value",
        ),
        (
            click_log(12),
            {"log": LOG | {"time_format": "milliseconds"}},
            r"column 'time' is 17\d+, which is no time between 1971 and 2100 in milliseconds; .* left out \(seconds\)",
        ),
        (
            click_log(12),
            {"log": LOG | {"user": "usr"}},
            r"log.parquet: no column 'usr'; it has user, item, time, click, price$",
        ),
        (
            click_log(12),
            {"log": LOG | {"rename": {"itm": "product"}, "item": "product"}},
            r"log.parquet: no column 'itm', which `rename` calls 'product'; it has user, item, time, click, price$",
        ),
        (
            click_log(12),
            {"log": LOG | {"rename": {"price": "item"}}},
            r"log.parquet: `rename` calls 'price' 'item', and another column is called so; rename that one too",
        ),
        (
            click_log(12),
            {"log": LOG | {"rename": {"item": "product"}}},
            r"log.parquet: no column 'item'; it has user, product, time, click, price$",
        ),
        (click_log(12), {"log": LOG | {"path": "none.parquet"}}, r"none.parquet: no such file or folder; `log.path`"),
        (click_log(12), {"log": LOG | {"path": __file__}}, r"`log.path` must be a .parquet"),
        (click_log(12), {"label": {"column": "rating"}}, r"log.parquet: no column 'rating'"),
        (click_log(12), {"columns": {"price": "log.cost"}}, r"log.parquet: no column 'cost'"),
        (click_log(12), {"label": {"column": "price"}}, r"row \d+: column 'price' is -?[0-9.]+; .* must be 0 or 1"),
        (click_log(12), {"log": LOG | {"time": "price"}}, r"is -?[0-9.]+, which is no time|column 'price'"),
        (
            click_log(12).set_column(0, "user", click_log(12)["user"].cast(pa.string())),
            {"impressions": [{"column": "user", "above": 3}]},
            r"column 'user' of the log is string; `above: 3.0` can't be asked of it",
        ),
        (
            pa.concat_tables([click_log(12), click_log(12).slice(5, 1)]),
            {},
            r"log.parquet, row \d+: a second row of user \d+, item \d+ in one second; `log.duplicates` may be drop",
        ),
        (
            click_log(12).set_column(0, "user", pa.array([b"\xff"] * click_log(12).num_rows)),
            {},
            "the log or a table can't be used: ",
        ),
        (with_value("time", 7, 14), {"log": LOG | {"time_format": "%y"}}, "no time between 1970 and 2100|is '1"),
        (
            click_log(12).set_column(1, "item", pa.array([f"i{row}" for row in range(click_log(12).num_rows)])),
            {"changes": {"clicks_item": {"without": ["i3"]}}},
            r"changes.clicks_item.without: .* each event of 'log.item' is string; .*histories.clicks.events",
        ),
        (click_log(12).slice(0, 0), {}, "log.parquet: the log has no row"),
        (click_log(12).slice(0, 1), {}, "the valid split would be empty"),
        (click_log(12), {"request": "price"}, "the column 'price' is made twice: it is log.price too"),
        (click_log(12), {"item_vectors": "none.npz"}, "item vectors: .*none.npz is missing"),
    ],
)
def test_a_bad_log_is_one_line_and_leaves_nothing(
    tmp_path: Path, log: pa.Table, changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match) as raised:
        build(tmp_path, log, **changed)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"histories": {"h": {"length": 0, "columns": {"a": "log.item"}}}},
            "histories.h.length: .*greater than or equal",
        ),
        ({"histories": {"h": {"length": 3, "columns": {"a": "shop.item"}}}}, "histories.h.columns.a"),
        ({"histories": {"h": {"length": 3, "columns": {"a": "items.genres"}}}}, "the file has no `items`"),
        ({"log": LOG | {"time": None}}, "log.time must name a column: histories.clicks needs it"),
        ({"log": LOG | {"user": None}}, "log.user must name a column: histories.clicks needs it"),
        ({"log": LOG | {"item": None}}, "log.item must name a column: slices.popularity needs it"),
        ({"impressions": [{"column": "click"}]}, "impressions.0: must have one of above, below"),
        ({"impressions": [{"column": "click", "above": 1, "below": 3}]}, "must have one of .* Received: above, below"),
        ({"request": "clicks_item"}, "the column 'clicks_item' is made twice"),
        ({"keep_negatives": 0}, "keep_negatives: .*greater than 0"),
        ({"history_ttl_seconds": 0}, "history_ttl_seconds: .*greater than or equal to 1"),
        (
            {"history_ttl_seconds": 60, "histories": {}},
            "history_ttl_seconds: the file has no `histories` that are made; leave it",
        ),
        ({"split": "weekly"}, "split: .*'user-time'"),
        ({"shares": [7, 2, 0]}, "shares: must be three positive whole numbers, of train, valid and test"),
        ({"split": "leave-last-out", "shares": [7, 2, 1]}, "shares: leave-last-out has none"),
        ({"log": LOG | {"path": {"train": "a.parquet"}}}, "train, valid and test"),
        ({"log": LOG | {"path": {"train": "a", "valid": "b", "test": "c"}}, "split": "random"}, "nothing to split"),
        ({"log": LOG | {"rename": {"a": "b", "c": "b"}}}, "log.rename: two columns would be called 'b'"),
        ({"log": LOG | {"rename": {"a": "is b"}}}, "log.rename.a: "),
        ({"labels": {}}, "labels: unknown key. Allowed: about, changes, columns, "),
        ({"log": "log.parquet", "split": "random"}, "log: "),
        ({"log": 5}, "log: "),
    ],
)
def test_a_bad_build_file_is_one_line(changed: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match) as raised:
        build_of(BUILD | changed, "build.yaml")
    assert str(raised.value).startswith("build.yaml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ({"id": [1, 2, 2], "a": [1, 2, 3]}, "items.parquet: id '2' stands in 2 rows; keep one"),
        ({"item": [1], "a": [1]}, "items.parquet: no column 'id'; it has item, a"),
        ({"id": ["x", "y"], "a": [1, 2]}, "items: no item of the log is in the table, whose id is such as 'x'"),
        ({"id": [None, None], "a": [1, 2]}, "items.parquet: the table of items has no row with a id"),
        ({"id": [1], "price": [1]}, "'price' is a column of two tables, log.price and items.price; `rename` one, or"),
    ],
)
def test_a_bad_table_of_items(tmp_path: Path, items: dict[str, list[int]], match: str) -> None:
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    with pytest.raises(UserError, match=match):
        build(tmp_path, click_log(12), items={"path": "items.parquet", "key": "id"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "log.parquet"]


@pytest.mark.parametrize("size", [20_000, 1 << 30])
def test_a_missing_column_is_told_with_its_file(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BUCKET_BYTES", size)
    with pytest.raises(UserError, match=r"log.parquet: no column 'usr'; it has user, item, time, click, price$"):
        build(tmp_path, click_log(200), log=LOG | {"user": "usr"})


def test_users_written_in_two_ways(tmp_path: Path) -> None:
    lines = ["user,item,time,click,price", *(f"{i % 9},{i},{1_700_000_000 + i},1,1" for i in range(90)), "1.0,5,9,1,1"]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"log.csv: the user 'user' is written as a number with a point"):
        build_dataset(build_of(BUILD | {"log": LOG | {"path": "log.csv"}}, "b"), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("empty_first", [True, False])
def test_files_that_differ_in_what_does_not_matter(tmp_path: Path, empty_first: bool) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(30)
    parts = [log.slice(0, 400), log.slice(400).select(["price", "click", "time", "item", "user"])]
    parts[1] = parts[1].append_column("more", pa.array(range(len(parts[1]))))
    parts[1] = parts[1].set_column(0, "price", pa.nulls(len(parts[1])))
    if empty_first:
        parts.insert(0, log.slice(0, 0))
    for number, part in enumerate(parts):
        pq.write_table(part, tmp_path / "log" / f"{number}.parquet")
    manifest = build_dataset(build_of(BUILD | {"log": LOG | {"path": "log"}}, "b"), tmp_path, tmp_path / "out")
    assert sum(count["rows"] for count in manifest["splits"].values()) == log.num_rows


def test_files_of_two_types(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(12)
    pq.write_table(log, tmp_path / "log" / "a.parquet")
    pq.write_table(log.set_column(4, "price", log["price"].cast(pa.string())), tmp_path / "log" / "b.parquet")
    with pytest.raises(UserError, match=r"b.parquet: column 'price' is string; in the first file it is float"):
        build_dataset(build_of(BUILD | {"log": LOG | {"path": "log"}}, "b"), tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("item", 2.5, "is double; in the first file it is int64, which can't hold it: Float value 2.5"),
        ("price", 1e300, "is double; in the first file it is float, which can't hold all its digits"),
        ("price", 0.1, "is double; in the first file it is float, which can't hold all its digits"),
    ],
)
def test_a_later_file_whose_numbers_the_first_one_can_not_hold(
    tmp_path: Path, name: str, value: float, told: str
) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(12)
    pq.write_table(log, tmp_path / "log" / "a.parquet")
    pq.write_table(with_value(name, 3, value), tmp_path / "log" / "b.parquet")
    with pytest.raises(UserError, match=f"b.parquet: column '{name}' {told}"):
        build_dataset(build_of(BUILD | {"log": LOG | {"path": "log"}}, "b"), tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%Y-%m-%d", "2023-02-30"),
        ("%d.%m.%Y %H:%M", "31.04.2023 10:00"),
        ("%Y-%m-%d %H:%M:%S.%f", "2023-02-29 10:00:00.5"),
    ],
)
def test_a_day_that_never_was(tmp_path: Path, pattern: str, text: str) -> None:
    log = click_log(12).set_column(2, "time", pa.array([text] * click_log(12).num_rows))
    with pytest.raises(UserError, match=f"log.parquet, row 1: column 'time' is '{text}'; time_format is {pattern}"):
        build(tmp_path, log, log=LOG | {"time_format": pattern})


def test_a_column_of_a_name_that_is_used_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log.parquet: the column 'tfctr row' has a name that is used here"):
        build(tmp_path, click_log(12).append_column("tfctr row", click_log(12)["item"]))


@pytest.mark.parametrize("rule", [{"above": 5}, {"present": True}])
def test_labels_of_one_class_are_told(tmp_path: Path, rule: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = build(tmp_path, click_log(12), label={"column": "click", **rule})["train"]
    every = 0 if "above" in rule else 1
    told = f"warning: all {len(rows):,} labels of train are {every}; look at `label`\n"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "wanted", "told"),
    [
        (["007", "008"], [7], r"is string; `one_of: \[7\]` can't be asked of it; write texts in quotes"),
        (["yes", "no"], [True], r"is string; `one_of: \[True\]` can't be asked of it; write texts in quotes"),
        ([True, False], [2], r"is bool; `one_of: \[2\]` can't be asked of it$"),
    ],
)
def test_values_that_a_column_can_not_have(tmp_path: Path, values: list[Any], wanted: list[Any], told: str) -> None:
    log = click_log(12)
    log = log.append_column("kind", pa.array([values[row % 2] for row in range(log.num_rows)]))
    with pytest.raises(UserError, match=f"column 'kind' of the log {told}"):
        build(tmp_path, log, impressions=[{"column": "kind", "one_of": wanted}])


NO_NUMBER = r"log.csv, row 8: column '{}' is 'NA', which is no number.*{}.*`log.csv.nulls`"


@pytest.mark.parametrize("size", [20_000, 1 << 30])
@pytest.mark.parametrize(
    ("column", "changed", "asks"),
    [
        ("price", {"impressions": [{"column": "price", "above": 0}]}, "`above: 0.0`"),
        ("price", {"log": LOG | {"where": [{"column": "price", "at_most": 9}]}}, "`at_most: 9.0`"),
        ("item", {"impressions": [{"column": "item", "none_of": [1, 2]}]}, r"`none_of: \[1, 2\]`"),
        (
            "price",
            {"histories": {"h": BUILD["histories"]["clicks"] | {"events": [{"column": "price", "below": 1}]}}},
            "`below: 1.0`",
        ),
        ("price", {"label": {"column": "price", "at_least": 0}}, "`at_least: 0.0`"),
        ("click", {"histories": {}}, "a label must be 0 or 1"),
        ("time", {}, "a time is a timestamp"),
        (
            "price",
            {"columns": {"dear": "log.price"}, "changes": {"dear": {"between": [0, 1]}}},
            "`changes.dear.between` asks numbers. A missing value is left empty",
        ),
    ],
)
def test_a_word_among_the_numbers_of_a_csv_is_told_where_numbers_are_asked(
    tmp_path: Path, column: str, changed: dict[str, Any], asks: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_BUCKET_BYTES", size)
    log = click_log(12)
    texts = [str(value) for value in log[column].to_pylist()]
    texts[7] = texts[9] = "NA"
    write_csv(tmp_path / "log.csv", log.set_column(log.schema.get_field_index(column), column, pa.array(texts)))
    content = BUILD | changed
    content["log"] = content["log"] | {"path": "log.csv"}
    with pytest.raises(UserError, match=NO_NUMBER.format(column, asks)) as raised:
        build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out")
    assert "\n" not in str(raised.value)

    present = {"column": column, "present": True}
    content["log"] |= {"csv": {"nulls": ["NA"]}, "where": [*content["log"].get("where", ()), present]}
    build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out")


def test_the_only_word_among_numbers_of_a_csv_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    log = click_log(12)
    prices = [str(price) for price in log["price"].to_pylist()]
    prices[7] = prices[9] = "NA"
    kinds = [("007", "12", "x", "y")[row % 4] for row in range(log.num_rows)]
    log = log.set_column(4, "price", pa.array(prices)).append_column("kind", pa.array(kinds))
    write_csv(tmp_path / "log.csv", log)
    ages = ["31", "unknown", *["42"] * 10]
    write_csv(tmp_path / "users.csv", pa.table({"id": range(12), "age": ages, "name": list("abcdefghijkl")}))

    content = BUILD | {"log": LOG | {"path": "log.csv"}, "users": {"path": "users.csv", "key": "id"}}
    build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out")

    told = [line.replace(f"{tmp_path}/", "") for line in capsys.readouterr().err.splitlines()]
    all_texts = (
        "the only word among numbers, so all of the column are texts; if it stands for a missing value, leave that "
        "empty, or name the word in"
    )
    assert told == [
        f"warning: users.csv, row 2: column 'age' is 'unknown', {all_texts} `users.csv.nulls` of the build file",
        f"warning: log.csv, row 8: column 'price' is 'NA', {all_texts} `log.csv.nulls` of the build file",
    ]

    content["log"] |= {"csv": {"nulls": ["NA"]}}
    content["users"] |= {"csv": {"nulls": ["unknown"]}}
    build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out", force=True)
    assert capsys.readouterr().err == ""


def test_a_word_among_the_numbers_of_a_table_that_are_changed_is_told(tmp_path: Path) -> None:
    pq.write_table(click_log(12), tmp_path / "log.parquet")
    ages = pa.array(["31", "old", "young", *["42"] * 9])
    write_csv(tmp_path / "users.csv", pa.table({"id": range(12), "age": ages}))
    content = BUILD | {"users": {"path": "users.csv", "key": "id"}, "columns": ["log.user", "log.item", "users.age"]}
    content |= {"changes": {"age": {"between": [0, 40, 99]}}}
    told = r"users.csv, row 2: column 'age' is 'old', .*; `changes.age.between` asks numbers.*`users.csv.nulls`"
    with pytest.raises(UserError, match=told):
        build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("kind", {"between": [0, 1]}, "changes.kind.between: needs numbers; the column is string"),
        ("price", {"part": "^."}, "changes.price.part: needs texts; the column is float"),
        ("price", {"without": [1]}, "changes.price.without: needs lists; the column is float"),
    ],
)
def test_a_change_of_values_of_another_type_is_told_with_the_file(
    tmp_path: Path, column: str, change: dict[str, Any], told: str
) -> None:
    log = click_log(12)
    log = log.append_column("kind", pa.array(["a"] * log.num_rows))
    with pytest.raises(UserError, match=f"log.parquet: {told}"):
        build(tmp_path, log, columns=[f"log.{column}"], changes={column: change})


def test_a_log_that_lies_in_the_data_set_is_not_replaced_by_what_is_made_of_it(tmp_path: Path) -> None:
    build(tmp_path, click_log(30))
    out = tmp_path / "out"
    before = content_of(out)
    content = {"log": {"path": "train"}, "label": {"column": "click"}, "columns": ["log.item"], "split": "random"}
    for base in (out, tmp_path / "link"):
        if base != out:
            base.symlink_to(out)
        with pytest.raises(UserError, match=r"train/part-00000.parquet: is read, and .*out would be replaced with it"):
            build_dataset(build_of(content, "b"), base, out, force=True)
    assert content_of(out) == before


def test_a_given_split_without_impressions_is_told_with_its_file(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        for part in range(2):
            kind = pa.array([int(split != "valid")] * 12)
            log = click_log(12).slice(12 * part, 12).append_column("kind", kind)
            pq.write_table(log, tmp_path / split / f"{part}.parquet")
    path = {split: split for split in ("train", "valid", "test")}
    content = {"log": {"path": path, "where": [{"column": "kind", "one_of": [1]}]}, "label": {"column": "click"}}
    told = r"the valid split would be empty .*/valid has no row that becomes one of it; .* and at `log.where`$"
    with pytest.raises(UserError, match=told):
        build_dataset(build_of(content, "b"), tmp_path, tmp_path / "out")


def test_a_table_without_a_column_is_told_before_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(local, "_fill", read)
    with pytest.raises(UserError, match=r"log.parquet: no column 'cost'"):
        build(tmp_path, click_log(12), columns={"cost": "log.cost"})


def test_a_damaged_file_and_a_broken_quote(tmp_path: Path) -> None:
    pq.write_table(click_log(12), tmp_path / "log.parquet")
    raw = bytearray((tmp_path / "log.parquet").read_bytes())
    raw[200:400] = b"\xff" * 200
    (tmp_path / "log.parquet").write_bytes(raw)
    with pytest.raises(UserError, match=r"log.parquet is damaged or no Parquet file"):
        build_dataset(build_of(BUILD, "b"), tmp_path, tmp_path / "out")
    lines = ["user,item,time,click,price", *(f"{i % 99},{i},{1_700_000_000 + i},{i % 2},1.5" for i in range(60_000))]
    lines[40_000] = '7,"5,1700000000,1,1.5'
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UserError, match=r"log.csv.gz, line 40001: a quote .* is open") as raised:
        build_dataset(build_of(BUILD | {"log": LOG | {"path": "log.csv.gz"}}, "b"), tmp_path, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv.gz", "log.parquet"]


def in_a_process(directory: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """`tfctr data build` as a user starts it, with buckets so small that there are many."""
    command = "from tfctr.data.build import local; local._BUCKET_BYTES = 20_000; from tfctr.cli import main; main()"
    arguments = ["data", "build", str(directory / "build.yaml"), "--out", str(directory / "out")]
    return subprocess.Popen(
        [sys.executable, "-c", command, *arguments], text=True, preexec_fn=before, stdout=-1, stderr=-1
    )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A log that is built in many buckets."""
    pq.write_table(click_log(3_000), tmp_path / "log.parquet")
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(BUILD, sort_keys=False))
    return tmp_path


def test_a_killed_build_is_continued(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = in_a_process(large)
    work = large / ".out.unfinished" / "buckets"
    while process.poll() is None and len(list(work.glob("done-*"))) < 3:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in work.glob("done-*")}
    assert len(done) >= 3
    assert not (large / "out").exists()
    written: list[int] = []
    whole_write = local._write

    def noting(directory: Path, number: int, *more: Any) -> None:
        before = set(work.glob("done-*"))
        whole_write(directory, number, *more)
        written.extend([number] if set(work.glob("done-*")) - before else [])

    monkeypatch.setattr(local, "_write", noting)
    monkeypatch.setattr(local, "_BUCKET_BYTES", 20_000)
    build_dataset(build_of(BUILD, "b"), large, large / "out")
    assert written
    assert not {f"done-{number:05d}" for number in written} & set(done)
    build_dataset(build_of(BUILD, "b"), large, large / "whole")
    assert content_of(large / "out") == content_of(large / "whole")
    assert sorted(path.name for path in large.iterdir()) == ["build.yaml", "log.parquet", "out", "whole"]


def test_a_changed_log_is_not_continued(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(local, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(build_of(BUILD, "b"), large, large / "out")
    assert (large / ".out.unfinished" / "buckets" / "types.json").is_file()
    pq.write_table(click_log(50), large / "log.parquet")
    manifest = build_dataset(build_of(BUILD, "b"), large, large / "out")
    assert sum(count["rows"] for count in manifest["splits"].values()) == click_log(50).num_rows


def test_a_part_of_a_table_that_changed_is_not_continued(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = large / "items"
    items.mkdir()
    pq.write_table(pa.table({"id": range(500), "brand": ["old"] * 500}), items / "a.parquet")
    build_file = build_of(BUILD | {"items": {"path": "items", "key": "id"}}, "b")
    monkeypatch.setattr(local, "_BUCKET_BYTES", 20_000)
    whole_write = local._write

    def twice(directory: Path, number: int, *more: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        whole_write(directory, number, *more)

    with monkeypatch.context() as changed:
        changed.setattr(local, "_write", twice)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(build_file, large, large / "out")
    with (items / "a.parquet").open("r+b") as part:  # In place: the folder does not change.
        pq.write_table(pa.table({"id": range(500), "brand": ["new"] * 500}), part)
        part.truncate()
    build_dataset(build_file, large, large / "out")
    assert set(pq.read_table(large / "out" / "train", columns=["brand"])["brand"].to_pylist()) == {"new"}


def test_a_kill_while_the_buckets_are_removed(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def partly(directory: Path) -> None:
        (directory / "bucket-00000.arrow").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_BUCKET_BYTES", 200_000)
    with monkeypatch.context() as changed:
        changed.setattr(local.shutil, "rmtree", partly)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(build_of(BUILD, "b"), large, large / "out")
    build_dataset(build_of(BUILD, "b"), large, large / "out")
    build_dataset(build_of(BUILD, "b"), large, large / "whole")
    assert content_of(large / "out") == content_of(large / "whole")


def test_what_a_kill_left_of_a_replaced_data_set_is_no_hindrance(tmp_path: Path) -> None:
    build(tmp_path, click_log(12))
    left = tmp_path / "..out.unfinished.old"
    for name in (".out.unfinished.old", left.name):
        (tmp_path / name / "train").mkdir(parents=True)
    build(tmp_path, click_log(13))
    assert (tmp_path / "out" / "dataset.json").is_file()
    assert not (tmp_path / ".out.unfinished.old").exists()


def test_two_builds_of_one_data_set_do_not_meet(tmp_path: Path) -> None:
    with resumed_directory(tmp_path / "out", False, "another") as directory:
        (directory / "theirs").touch()
        with pytest.raises(UserError, match="out: another run is under way here"):
            build(tmp_path, click_log(12))
        (directory / "theirs").unlink()


def test_another_data_set_is_not_made_in_the_same_place(tmp_path: Path) -> None:
    with (
        staged_directory(tmp_path / "out"),
        pytest.raises(UserError, match="out: another run is under way here"),
        staged_directory(tmp_path / "out"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_comes_while_a_build_runs_does_not_cost_the_work(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def build() -> None:
        with resumed_directory(out, False, "key") as directory:
            (directory / "dataset.json").write_text("{}")
            out.mkdir()
            (out / "note.txt").touch()

    with pytest.raises(UserError, match="is not empty"):
        build()
    assert (out / "note.txt").is_file()
    (out / "note.txt").unlink()
    with resumed_directory(out, False, "key") as directory:
        assert (directory / "dataset.json").is_file()
    assert [path.name for path in out.iterdir()] == ["dataset.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_kills_while_the_log_is_read_leave_one_set_of_buckets(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = large / ".out.unfinished" / "buckets" / ".bucket-00000.arrow.1.partial"

    def killed(paths: tuple[Path, ...], *_: Any) -> None:
        assert not left.exists()
        left.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_fill", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build_dataset(build_of(BUILD, "b"), large, large / "out")
    assert left.exists()


def test_what_kills_have_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.1.partial" / "train").mkdir(parents=True)
    (tmp_path / ".other.1.partial").mkdir()
    with staged_directory(tmp_path / "out") as directory:
        assert {path.name for path in tmp_path.iterdir()} == {".other.1.partial", ".out.lock", directory.name}


def test_a_full_disk_is_one_line_and_leaves_nothing(large: Path) -> None:
    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    process = in_a_process(large, small_disk)
    _, told = process.communicate()
    assert process.returncode == 2
    assert told.startswith("error: cannot write")
    assert told.count("\n") == 1
    assert sorted(path.name for path in large.iterdir()) == ["build.yaml", "log.parquet"]


def test_rows_without_a_user_can_be_left_out(tmp_path: Path) -> None:
    where = [{"column": "user", "present": True}]
    rows = build(tmp_path, with_value("user", 7, None), log=LOG | {"where": where})
    assert sum(map(len, rows.values())) == click_log(12).num_rows - 1
    assert np.isin([row["user"] for split in rows.values() for row in split], range(12)).all()
