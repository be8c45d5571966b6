"""An interaction log becomes impressions: worked out a second time, row by row, in plain Python."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.data.build_logs import BUILD, build, click_log, rows_of
from tests.tables import write_csv
from tfctr.data.build import impressions, local
from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError


def by_key(rows: dict[str, list[dict[str, Any]]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every row by user, item and time, with its split."""
    found = {(row["user"], row["item"], row["time"]): row | {"split": split} for split in rows for row in rows[split]}
    assert len(found) == sum(map(len, rows.values()))
    return found


def test_every_column_is_what_plain_python_makes_of_the_log(tmp_path: Path) -> None:
    log = click_log()
    days = {"weekday": "weekday", "weekend": "weekend"}
    rows = by_key(build(tmp_path, log, slices=BUILD["slices"] | days))
    events = log.to_pylist()
    assert len(rows) == len(events)
    train = [row for row in rows.values() if row["split"] == "train"]
    of_user, of_item = Counter(row["user"] for row in train), Counter(row["item"] for row in train)
    shared = 0
    for event in events:
        row = rows[event["user"], event["item"], event["time"]]
        mine = [other for other in events if other["user"] == event["user"]]
        earlier = [other for other in mine if other["time"] < event["time"] and other["click"] == 1]
        shared += sum(other["time"] == event["time"] for other in mine) > 1
        # Python's sort keeps the order of the log within a second; the later row of it is the newer one.
        newest = sorted(earlier, key=lambda other: other["time"])[::-1][:5]
        assert row["clicks_item"] == [other["item"] for other in newest]
        assert row["clicks_time"] == [other["time"] for other in newest]
        assert row["label"] == event["click"]
        assert row["price"] == event["price"]
        assert row["request"] == f"{event['user']}-{event['time']}"
        when = datetime.fromtimestamp(event["time"], UTC)
        assert row["hour"] == f"{when.hour:02d}"
        assert row["weekday"] == str(when.isoweekday())
        assert row["weekend"] == ("yes" if when.isoweekday() > 5 else "no")
        assert row["activity"] in ("low", "medium", "high")
        assert (row["popularity"] == "new") == (of_item[event["item"]] == 0)
        assert "click" not in row
    assert shared > 20
    for name, key, counts in (("activity", "user", of_user), ("popularity", "item", of_item)):
        of_level = {level: [counts[r[key]] for r in rows.values() if r[name] == level] for level in ("low", "high")}
        assert max(of_level["low"]) < min(of_level["high"])


@pytest.mark.parametrize("seconds", [1, 20, 100, 10**9, 2**40])
def test_the_history_is_that_of_a_state_which_is_kept(tmp_path: Path, seconds: int) -> None:
    log = click_log()
    of_impressions = [{"column": "price", "above": 0}]
    rows = build(tmp_path, log, impressions=of_impressions, history_ttl_seconds=seconds, keep_negatives=0.5)
    events, states = by_key(rows), set()
    for user in range(30):
        mine = sorted((one for one in log.to_pylist() if one["user"] == user), key=lambda one: one["time"])
        made = None
        for event in mine:
            # What is no impression asks for no state. Negatives that are not kept do.
            if event["price"] > 0 and (made is None or event["time"] >= made + seconds):
                made = event["time"]
            row = events.get((user, event["item"], event["time"]))
            if row is not None:
                newest = [other for other in mine if other["time"] < made and other["click"] == 1][::-1][:5]
                assert row["clicks_item"] == [other["item"] for other in newest]
                assert row["clicks_time"] == [other["time"] for other in newest]
                states.add((user, made))
    assert len(states) == {1: 364, 20: 284, 100: 156}.get(seconds, 30)
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())["columns"]["clicks_item"]
    assert told.endswith(f"(clicks), of a state kept for {seconds} seconds" if seconds > 1 else "(clicks)")


def test_a_user_is_split_by_time_and_a_second_never_is(tmp_path: Path) -> None:
    rows = build(tmp_path, click_log())
    for user in range(30):
        times = [[row["time"] for row in rows[split] if row["user"] == user] for split in SPLITS]
        assert max(times[0]) < min(times[1])
        assert max(times[1]) < min(times[2])


@pytest.mark.parametrize("users", [1, 4, 30])
def test_as_many_buckets_as_there_may_be_give_the_same_rows(
    tmp_path: Path, users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = click_log(users)
    for split in ("user-time", "global-time", "random", "random-request", "leave-last-out"):
        changes = {"split": split, "keep_negatives": 0.5, "history_ttl_seconds": 50}
        whole = by_key(build(tmp_path / "whole", log, **changes))
        with monkeypatch.context() as changed:
            changed.setattr(local, "_BUCKET_BYTES", 2_000)
            pieces = by_key(build(tmp_path / "pieces", log, **changes))
        assert whole == pieces


def test_the_order_of_the_log_does_not_matter(tmp_path: Path) -> None:
    log = click_log()
    order = np.lexsort((log["time"].to_numpy(), log["user"].to_numpy()))
    seconds = [(user, time) for user, time in zip(*(log[key].to_pylist() for key in ("user", "time")), strict=True)]
    once = [seconds.count(second) == 1 for second in seconds]
    log, sorted_log = log.filter(pa.array(once)), log.take(pa.array(order)).filter(pa.array(np.array(once)[order]))
    assert by_key(build(tmp_path / "a", log)) == by_key(build(tmp_path / "b", sorted_log))


def test_global_time_cuts_all_users_at_one_second(tmp_path: Path) -> None:
    log = click_log()
    rows = build(tmp_path, log, split="global-time")
    times = [[row["time"] for row in rows[split]] for split in SPLITS]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])
    np.testing.assert_allclose([len(one) / log.num_rows for one in times], [0.8, 0.1, 0.1], atol=0.01)


def test_requests_are_drawn_as_wholes_by_the_seed(tmp_path: Path) -> None:
    log = click_log(60)
    rows = by_key(build(tmp_path, log, split="random-request", shares=[5, 3, 2], seed=3))
    splits: dict[tuple[int, int], set[str]] = {}
    for (user, _, time), row in rows.items():
        splits.setdefault((user, time), set()).add(row["split"])
    assert len(rows) == log.num_rows > len(splits)
    assert {len(found) for found in splits.values()} == {1}
    sizes = Counter(row["split"] for row in rows.values())
    np.testing.assert_allclose([sizes[split] / len(rows) for split in SPLITS], [0.5, 0.3, 0.2], atol=0.05)
    assert rows != by_key(build(tmp_path, log, split="random-request", shares=[5, 3, 2], seed=4))


def test_the_last_second_of_a_user_is_left_out(tmp_path: Path) -> None:
    log = click_log(20).to_pylist() + [
        {"user": 99, "item": item, "time": 1_700_000_000 + item, "click": 1, "price": 0.0} for item in (1, 2)
    ]
    rows = build(tmp_path, pa.Table.from_pylist(log), split="leave-last-out")
    for user in range(20):
        seconds = sorted({event["time"] for event in log if event["user"] == user})
        assert {row["time"] for row in rows["test"] if row["user"] == user} == {seconds[-1]}
        assert {row["time"] for row in rows["valid"] if row["user"] == user} == {seconds[-2]}
    assert [row["item"] for row in rows["train"] if row["user"] == 99] == [1, 2]


def test_a_share_of_the_negatives_of_train_is_kept(tmp_path: Path) -> None:
    log = click_log(100)
    all_rows, some = build(tmp_path / "all", log), build(tmp_path / "some", log, keep_negatives=0.25)
    for split in ("valid", "test"):
        assert all_rows[split]
        assert [r["item"] for r in all_rows[split]] == [r["item"] for r in some[split]]
    negatives, kept = (sum(row["label"] == 0 for row in rows["train"]) for rows in (all_rows, some))
    assert abs(kept / negatives - 0.25) < 0.03
    assert sum(row["label"] for row in all_rows["train"]) == sum(row["label"] for row in some["train"])
    roles = json.loads((tmp_path / "some" / "out" / "dataset.json").read_text())["roles"]
    assert roles["negative_sampling_rate"] == 0.25


def test_test_rows_decide_no_slice(tmp_path: Path) -> None:
    log = click_log().to_pylist()
    last = {user: max(event["time"] for event in log if event["user"] == user) for user in range(30)}
    honest = build(tmp_path / "honest", pa.Table.from_pylist(log))
    for event in log:
        if event["time"] == last[event["user"]]:
            event |= {"item": event["item"] + 1000, "click": 1 - event["click"]}
    poisoned = build(tmp_path / "poisoned", pa.Table.from_pylist(log))
    assert honest["train"] == poisoned["train"]
    assert honest["test"] != poisoned["test"]


def test_tables_of_users_and_items_are_joined(tmp_path: Path) -> None:
    log = click_log(10)
    tmp_path.mkdir(exist_ok=True)
    items = pa.table({"id": list(range(400)), "genres": [[f"g{i % 7}", "all"] for i in range(400)]})
    pq.write_table(items, tmp_path / "items.parquet")
    (tmp_path / "users.csv").write_text("uid;zip\n" + "".join(f"{user};0{user}\n" for user in range(9)))
    changed = {
        "users": {"path": "users.csv", "key": "uid", "csv": {"delimiter": ";"}},
        "items": {"path": "items.parquet", "key": "id"},
        "histories": {"clicks": {"length": 3, "columns": {"clicks_genres": "items.genres"}}},
    }
    rows = build(tmp_path, log, **changed)
    for split_rows in rows.values():
        for row in split_rows:
            assert row["zip"] == (f"0{row['user']}" if row["user"] < 9 else None)  # A zero in front makes it a text.
            assert row["genres"] == ([f"g{row['item'] % 7}", "all"] if row["item"] < 400 else None)
            assert all(genres is None or genres[1] == "all" for genres in row["clicks_genres"])
    columns = json.loads((tmp_path / "out" / "dataset.json").read_text())["columns"]
    assert columns["zip"] == "users.zip"
    assert columns["genres"] == "items.genres"


def test_csv_gives_the_rows_that_parquet_gives(tmp_path: Path) -> None:
    log = click_log(12)
    parquet = build(tmp_path / "parquet", log)
    (tmp_path / "csv").mkdir()
    with gzip.open(tmp_path / "csv" / "log.csv.gz", "wb") as file:
        pyarrow.csv.write_csv(log.set_column(4, "price", log["price"].cast(pa.float64())), file)
    content = BUILD | {"log": BUILD["log"] | {"path": "log.csv.gz"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path / "csv", tmp_path / "csv" / "out")
    assert by_key(rows_of(tmp_path / "csv" / "out")) == by_key(parquet)


@pytest.mark.parametrize("form", ["milliseconds", "microseconds", "timestamp", "text"])
def test_times_of_other_forms_become_seconds(tmp_path: Path, form: str) -> None:
    log = click_log(12)
    seconds = log["time"].to_numpy()
    changed: dict[str, Any] = {}
    if form == "milliseconds":
        times: pa.Array = pa.array(seconds * 1000 + 999)
        changed["time_format"] = "milliseconds"
    elif form == "microseconds":
        times = pa.array(seconds * 1_000_000 + 999_999)
        changed["time_format"] = "microseconds"
    elif form == "timestamp":
        times = pa.array(seconds * 1000 + 999).cast(pa.timestamp("ms", "Europe/Berlin"))
    else:
        epoch = datetime(1970, 1, 1)
        times = pa.array([str(epoch + timedelta(seconds=int(second))) for second in seconds])
        changed["time_format"] = "%Y-%m-%d %H:%M:%S"
    other = build(tmp_path / "other", log.set_column(2, "time", times), log=BUILD["log"] | changed)
    assert by_key(other) == by_key(build(tmp_path / "seconds", log))


@pytest.mark.parametrize(
    ("pattern", "text", "seconds"),
    [
        ("%Y-%m-%d %H:%M:%S", "2023-2-8  1:00:00", 1_675_818_000),
        ("%Y-%m-%dT%H:%M:%S.%fZ", "2023-02-08T01:00:00.999999Z", 1_675_818_000),
        ("%Y-%m-%d %H:%M:%S%z", "2023-02-08 02:00:00+0100", 1_675_818_000),
        ("%d %b %Y", "08 Feb 2023", 1_675_814_400),
        ("%Y%m%d%H", "2023020801", 1_675_818_000),
    ],
)
def test_patterns_of_times(tmp_path: Path, pattern: str, text: str, seconds: int) -> None:
    log = click_log(12).set_column(2, "time", pa.array([text] * click_log(12).num_rows))
    rows = build(tmp_path, log, log=BUILD["log"] | {"time_format": pattern}, split="random", histories={})
    assert {row["time"] for split in rows.values() for row in split} == {seconds}


@pytest.mark.parametrize(
    ("key", "wanted", "holds"),
    [
        ("above", 0.1, lambda value: value > 0.15),
        ("at_most", 0.1, lambda value: value < 0.15),
        ("at_least", 0.2, lambda value: value > 0.15),
        ("below", 0.2, lambda value: value < 0.15),
    ],
)
def test_a_limit_is_a_number_as_the_column_holds_it(
    tmp_path: Path, key: str, wanted: float, holds: Callable[[float], bool]
) -> None:
    log = click_log(12)
    rated = pa.array([(0.1, 0.2, 0.3)[row % 3] for row in range(log.num_rows)], pa.float32())
    log = log.append_column("rated", rated).append_column("beside", rated)
    rows = build(tmp_path, log, label={"column": "rated", key: wanted})
    assert all(row["label"] == holds(row["beside"]) for split in rows.values() for row in split)


def test_labels_that_are_written_as_floats_or_texts_of_digits_are_labels(tmp_path: Path) -> None:
    plain = click_log(12)
    expected = by_key(build(tmp_path / "plain", plain, histories={}))
    for name, kind in (("floats", pa.float64()), ("texts", pa.string())):
        other = plain.set_column(3, "click", plain["click"].cast(kind))
        assert by_key(build(tmp_path / name, other, histories={})) == expected


def test_texts_that_are_booleans_are_labels(tmp_path: Path) -> None:
    lines = ["user,item,time,click", *(f"{i % 5},{i},{1_700_000_000 + i},{i % 3 == 0}" for i in range(300))]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    for label in ({"column": "click"}, {"column": "click", "one_of": [True]}):
        content = {"log": BUILD["log"] | {"path": "log.csv"}, "label": label}
        build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out", force=True)
        rows = [row for split in rows_of(tmp_path / "out").values() for row in split]
        assert len(rows) == 300
        assert all(row["label"] == (row["item"] % 3 == 0) for row in rows)


def test_a_first_file_without_a_number_has_the_type_of_the_next(tmp_path: Path) -> None:
    log = click_log(12)
    names = pa.array([f"n{row}" for row in range(log.num_rows)])
    later = log.append_column("name", pa.array([None] * 100 + names.to_pylist()[100:]))
    expected = by_key(build(tmp_path / "one", later))
    (tmp_path / "two" / "log").mkdir(parents=True)
    missing = log.slice(0, 100).append_column("name", pa.array([np.nan] * 100))
    for number, part in enumerate((missing, log.append_column("name", names).slice(100))):
        pq.write_table(part, tmp_path / "two" / "log" / f"{number}.parquet")
    content = BUILD | {"log": BUILD["log"] | {"path": "log"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path / "two", tmp_path / "two" / "out")
    assert by_key(rows_of(tmp_path / "two" / "out")) == expected


def test_a_column_that_the_first_file_lacks_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(12)
    for number, part in enumerate((log.slice(0, 100), log.append_column("more", log["item"]).slice(100))):
        pq.write_table(part, tmp_path / "log" / f"{number}.parquet")
    content = BUILD | {"log": BUILD["log"] | {"path": "log"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    told = f"warning: {tmp_path / 'log' / '1.parquet'}: the first file lacks 'more', so it is left out\n"
    assert told in capsys.readouterr().err
    named = content | {"columns": {"item": "log.item"}, "histories": {}}
    build_dataset(build_of(named, "build.yaml"), tmp_path, tmp_path / "named")
    assert "warning" not in capsys.readouterr().err


def test_halves_are_numbers(tmp_path: Path) -> None:
    log = click_log(12)
    halves = log.append_column("half", pa.array(np.arange(log.num_rows).astype(np.float16)))
    rows = build(tmp_path, halves)
    assert {row["half"] for split in rows.values() for row in split} == set(map(float, range(log.num_rows)))


def test_a_time_with_a_point_stays_a_text(tmp_path: Path) -> None:
    lines = ["user,item,time,click", *(f"{i % 3},{i},2024.{1 + i % 12:02d},{i % 2}" for i in range(120))]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    content = {
        "log": BUILD["log"] | {"path": "log.csv", "time_format": "%Y.%m"},
        "label": BUILD["label"],
        "split": "global-time",
    }
    build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    months = {
        datetime.fromtimestamp(row["time"], UTC).month: split
        for split, rows in rows_of(tmp_path / "out").items()
        for row in rows
    }
    assert months == {month: SPLITS[max(0, month - 10)] for month in range(1, 13)}


def test_a_log_without_user_item_or_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    log = pa.table({"205": rng.integers(0, 9, 3000), "y": rng.integers(0, 2, 3000)})
    content = {"log": {"path": "log.parquet"}, "label": {"column": "y"}, "split": "random"}
    tmp_path.mkdir(exist_ok=True)
    pq.write_table(log, tmp_path / "log.parquet")
    manifest = build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert set(rows["train"][0]) == {"205", "label"}
    np.testing.assert_allclose([len(rows[split]) / 3000 for split in SPLITS], [0.8, 0.1, 0.1], atol=0.02)
    assert Counter((row["205"], row["label"]) for split in rows.values() for row in split) == Counter(
        zip(log["205"].to_pylist(), log["y"].to_pylist(), strict=True)
    )
    assert manifest["splits"]["train"].keys() == {"rows", "positives"}


@pytest.mark.parametrize("name", ["user", "item", "click"])
def test_what_is_no_number_is_missing(tmp_path: Path, name: str) -> None:
    log = click_log(12)
    values = log[name].to_numpy().astype(float)
    values[7] = np.nan
    table = log.set_column(log.schema.get_field_index(name), name, pa.array(values))
    content = {**BUILD, "label": {"column": "click", "above": 0}}
    with pytest.raises(UserError, match=rf"log.parquet, row 8: column '{name}' is missing"):
        build(tmp_path, table, **content)
    where = [{"column": name, "present": True}]
    rows = build(tmp_path, table, **{**content, "log": BUILD["log"] | {"where": where}})
    assert sum(map(len, rows.values())) == log.num_rows - 1


def test_what_is_no_number_in_a_later_file_is_missing(tmp_path: Path) -> None:
    log = click_log(12)
    stock = [None if row % 3 == 0 else row for row in range(log.num_rows)]
    expected = by_key(build(tmp_path / "one", log.append_column("stock", pa.array(stock))))
    (tmp_path / "two" / "log").mkdir(parents=True)
    whole = log.append_column("stock", pa.array(stock, pa.int64())).slice(0, 100)
    gaps = pa.array([np.nan if value is None else float(value) for value in stock])
    for number, part in enumerate((whole, log.append_column("stock", gaps).slice(100))):
        pq.write_table(part, tmp_path / "two" / "log" / f"{number}.parquet")
    content = BUILD | {"log": BUILD["log"] | {"path": "log"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path / "two", tmp_path / "two" / "out")
    assert by_key(rows_of(tmp_path / "two" / "out")) == expected


def test_a_table_may_hold_dictionaries_and_have_a_value_in_its_second_file_only(tmp_path: Path) -> None:
    items = tmp_path / "items"
    items.mkdir()
    brands = [f"b{i % 7}" for i in range(250)]
    for part, start, brand in (
        ("a", 0, pa.nulls(252)),
        ("b", 250, pa.array([*brands, None, None]).dictionary_encode()),
    ):
        keys = pa.array([*range(start, start + 250), None, None])
        pq.write_table(pa.table({"id": keys, "brand": brand}), items / f"{part}.parquet")
    rows = build(
        tmp_path,
        click_log(12),
        items={"path": "items", "key": "id"},
        columns={"user": "log.user", "item": "log.item", "brand": "items.brand"},
    )
    for row in (row for split in rows.values() for row in split):
        assert row["brand"] == (None if row["item"] < 250 else f"b{(row['item'] - 250) % 7}")


def test_a_first_file_of_a_table_may_lack_every_number(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    none, some = pa.array([np.nan] * 250), pa.array([f"b{i}" for i in range(250, 500)])
    for number, brand in enumerate((none, some)):
        table = pa.table({"id": np.arange(250) + 250 * number, "brand": brand})
        pq.write_table(table, tmp_path / "items" / f"{number}.parquet")
    rows = build(tmp_path, click_log(12), items={"path": "items", "key": "id"})
    found = [(row["item"], row["brand"]) for split in rows.values() for row in split]
    assert all(brand == (f"b{item}" if item >= 250 else None) for item, brand in found)


def test_a_column_may_have_its_first_value_in_a_later_file(tmp_path: Path) -> None:
    log = click_log(12)
    (tmp_path / "log").mkdir()
    pq.write_table(log.slice(0, 100).append_column("place", pa.nulls(100)), tmp_path / "log" / "a.parquet")
    places = pa.array([f"p{i % 3}" for i in range(log.num_rows - 100)])
    pq.write_table(log.slice(100).append_column("place", places), tmp_path / "log" / "b.parquet")
    content = {**BUILD, "log": BUILD["log"] | {"path": "log"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    found = [row["place"] for split in rows_of(tmp_path / "out").values() for row in split]
    assert found.count(None) == 100
    assert len(set(found)) == 4


@pytest.mark.parametrize("size", [2_000, 1 << 30])
def test_a_log_without_users_is_made_in_pieces_too(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BUCKET_BYTES", size)
    pq.write_table(pa.table({"place": np.arange(900) % 7, "y": np.arange(900) % 2}), tmp_path / "log.parquet", 50)
    content = {"log": {"path": "log.parquet"}, "label": {"column": "y"}, "split": "random"}
    build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [len(rows[split]) for split in SPLITS] == [720, 90, 90]
    assert (len(list((tmp_path / "out" / "train").iterdir())) > 3) == (size == 2_000)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"above": 3}, lambda x: x is not None and x > 3),
        ({"below": 3}, lambda x: x is not None and x < 3),
        ({"at_least": 3}, lambda x: x is not None and x >= 3),
        ({"at_most": 3}, lambda x: x is not None and x <= 3),
        ({"one_of": [1, 5]}, lambda x: x in (1, 5)),
        ({"none_of": [1, 5]}, lambda x: x is not None and x not in (1, 5)),
        ({"present": True}, lambda x: x is not None),
        ({"present": False}, lambda x: x is None),
    ],
)
def test_conditions_and_rules(tmp_path: Path, rule: dict[str, Any], holds: Callable[[int | None], bool]) -> None:
    log = click_log(40)
    ratings = [None if number % 7 == 6 else number % 7 for number in range(log.num_rows)]
    log = log.append_column("rating", pa.array(ratings))
    rows = by_key(build(tmp_path, log, impressions=[{"column": "rating", **rule}], split="random"))
    assert len(rows) == sum(map(holds, ratings))
    assert all(holds(row["rating"]) for row in rows.values())
    if "present" in rule:
        rows = by_key(build(tmp_path, log, label={"column": "rating", **rule}))
        expected = dict(
            zip(zip(*(log[key].to_pylist() for key in ("user", "item", "time")), strict=True), ratings, strict=True)
        )
        assert all(row["label"] == holds(expected[key]) for key, row in rows.items())


def test_keys_of_two_number_types_are_one_key(tmp_path: Path) -> None:
    log = click_log(12)
    items = pa.table({"id": np.arange(500) + 10.0**10, "brand": [f"b{item}" for item in range(500)]})
    pq.write_table(items, tmp_path / "items.parquet")
    log = log.set_column(1, "item", pa.array(log["item"].to_numpy() + 10**10))
    rows = build(tmp_path, log, items={"path": "items.parquet", "key": "id"})
    assert all(row["brand"] == f"b{row['item'] - 10**10}" for split in rows.values() for row in split)


def test_whole_keys_of_two_widths_are_compared_digit_by_digit(tmp_path: Path) -> None:
    first = 2**60  # a float64 holds one in 256 of the numbers there
    log = click_log(12)
    log = log.set_column(1, "item", pa.array(log["item"].to_numpy() + first))
    items = pa.table({"id": pa.array(np.arange(500) + first, pa.uint64()), "brand": [f"b{i}" for i in range(500)]})
    pq.write_table(items, tmp_path / "items.parquet")
    rows = build(tmp_path, log, items={"path": "items.parquet", "key": "id"})
    assert all(row["brand"] == f"b{row['item'] - first}" for split in rows.values() for row in split)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("user", pa.int32()), ("item", pa.float64()), ("price", pa.float64()), ("name", pa.large_string())],
)
def test_files_may_hold_one_column_in_two_widths(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    log = click_log(12).append_column("name", pa.array([f"n{row}" for row in range(click_log(12).num_rows)]))
    expected = by_key(build(tmp_path / "one", log))
    (tmp_path / "two" / "log").mkdir(parents=True)
    later = log.slice(100)
    later = later.set_column(log.schema.get_field_index(name), name, later[name].cast(kind))
    for number, part in enumerate((log.slice(0, 100), later)):
        pq.write_table(part, tmp_path / "two" / "log" / f"{number}.parquet")
    content = BUILD | {"log": BUILD["log"] | {"path": "log"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path / "two", tmp_path / "two" / "out")
    assert by_key(rows_of(tmp_path / "two" / "out")) == expected


def test_rows_without_an_item_are_no_item(tmp_path: Path) -> None:
    log = click_log(12)
    items = [None if row % 3 else item for row, item in enumerate(log["item"].to_pylist())]
    log = log.set_column(1, "item", pa.array(items, pa.int64()))
    pq.write_table(log, tmp_path / "log.parquet")
    changed: dict[str, Any] = {"histories": {}, "log": BUILD["log"] | {"duplicates": "keep"}}
    manifest = build_dataset(build_of(BUILD | changed, "build.yaml"), tmp_path, tmp_path / "out")
    train = rows_of(tmp_path / "out")["train"]
    assert manifest["slices"]["popularity"]["keys"] == len({row["item"] for row in train} - {None})
    assert {row["popularity"] for row in train if row["item"] is None} == {"new"}


def test_what_the_label_is_made_of_is_told(tmp_path: Path) -> None:
    build(tmp_path, click_log(12), columns={"user": "log.user", "clicked": "log.click", "price": "log.price"})
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["roles"]["outcome"] == ["clicked"]


def test_long_histories_are_made_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = by_key(build(tmp_path / "whole", click_log()))
    monkeypatch.setattr(impressions, "_VALUES_AT_ONCE", 7)
    assert by_key(build(tmp_path / "pieces", click_log())) == whole
    assert pq.ParquetFile(tmp_path / "pieces/out/train/part-00000.parquet").num_row_groups > 20


def test_a_split_that_is_given(tmp_path: Path) -> None:
    logs = {name: click_log(users) for name, users in (("a", 5), ("b", 3), ("c", 2))}
    for name, log in logs.items():
        pq.write_table(log, tmp_path / f"{name}.parquet")
    paths = {"train": "a.parquet", "valid": "b.parquet", "test": "c.parquet"}
    content = BUILD | {"log": BUILD["log"] | {"path": paths, "duplicates": "keep"}}
    build_dataset(build_of(content, "build.yaml"), tmp_path, tmp_path / "out")
    assert [len(rows) for rows in rows_of(tmp_path / "out").values()] == [log.num_rows for log in logs.values()]


def test_a_user_with_a_hundred_thousand_events(tmp_path: Path) -> None:
    count = 100_000
    log = pa.table(
        {
            "user": np.zeros(count, np.int64),
            "item": np.arange(count),
            "time": 1_600_000_000 + np.arange(count),
            "click": np.ones(count, np.int64),
            "price": np.zeros(count, np.float32),
        }
    )
    changed: dict[str, Any] = {"label": {"column": "item", "above": 9}}
    last = build(tmp_path, log, **changed)["test"][-1]
    assert last["clicks_item"] == [count - 2 - step for step in range(5)]


def test_duplicates_are_dropped_or_kept_when_asked(tmp_path: Path) -> None:
    log = click_log(12)
    twice = pa.concat_tables([log, log.set_column(3, "click", pa.array(1 - log["click"].to_numpy()))])
    dropped = build(tmp_path / "drop", twice, log=BUILD["log"] | {"duplicates": "drop"})
    assert by_key(dropped) == by_key(build(tmp_path / "once", log))
    kept = build(tmp_path / "keep", twice, log=BUILD["log"] | {"duplicates": "keep"})
    assert sum(map(len, kept.values())) == 2 * log.num_rows


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
@pytest.mark.parametrize("all_named", [True, False])
def test_one_column_may_be_renamed(tmp_path: Path, name: str, all_named: bool) -> None:
    plain = click_log(12)
    theirs = plain.rename_columns(["user", "Played Item", "time", "is click", "price"])
    write = write_csv if name == "log.csv" else lambda path, rows: pq.write_table(rows, path)
    write(tmp_path / name, theirs)
    write(tmp_path / name.replace("log", "items"), pa.table({"The Id": range(500), "brand": range(500)}))
    named = {"columns": {"item": "log.item", "user": "log.user", "brand": "items.brand"}} if all_named else {}
    log = BUILD["log"] | {"path": name, "rename": {"Played Item": "item", "is click": "click"}}
    items = {"path": name.replace("log", "items"), "key": "sku", "rename": {"The Id": "sku"}}
    build_dataset(build_of(BUILD | {"log": log, "items": items, **named}, "build.yaml"), tmp_path, tmp_path / "out")

    rows = [row for split in rows_of(tmp_path / "out").values() for row in split]
    assert sorted(row["item"] for row in rows) == sorted(plain["item"].to_pylist())
    assert all(row["brand"] == row["item"] for row in rows)
    assert ("price" in rows[0]) == (not all_named)


def test_a_header_that_is_the_given_columns_is_no_row_and_long_numbers_are_texts(tmp_path: Path) -> None:
    lines = [f"{10**19 + row},{row % 2},{row % 7}" for row in range(40)]
    for split, first in (("train", ["id,click,place"]), ("valid", []), ("test", [])):
        (tmp_path / f"{split}.csv").write_text("\n".join([*first, *lines]))
    log = {"path": {split: f"{split}.csv" for split in SPLITS}, "csv": {"columns": ["id", "click", "place"]}}
    build_dataset(build_of({"log": log, "label": {"column": "click"}}, "b"), tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [len(rows[split]) for split in SPLITS] == [40, 40, 40]
    assert rows["train"][1] == {"id": "10000000000000000001", "place": 1, "label": 1}
