"""A log is built on Beam as it is on one machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import data_build
from pipeline.configs import beam_args
from pipeline.data_build import build_on_beam
from pipeline.errors import for_people
from tests.data.build_logs import BUILD, click_log, rows_of
from tests.data.public_files import PUBLIC_FILES
from tests.tables import write_csv
from tests.workbench import ROOT
from tfctr.data.build import local
from tfctr.data.build import log as build_log
from tfctr.data.build.datasets import build_file
from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of
from tfctr.data.prepare import prepare
from tfctr.errors import UserError


def counted(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Counter[str]]:
    """The rows of each split, in no order."""
    return {split: Counter(json.dumps(row, sort_keys=True) for row in found) for split, found in rows.items()}


def with_a_missing_label() -> pa.Table:
    """A log whose row 8 has no label."""
    log = click_log(12)
    values = log["click"].to_pylist()
    values[7] = None
    return log.set_column(3, "click", pa.array(values))


@pytest.mark.parametrize(
    "split",
    [
        {"split": "user-time"},
        {"split": "global-time", "shares": [7, 2, 1]},
        {"split": "random", "shares": [7, 2, 1]},
        {"split": "random-request", "shares": [3, 1, 1]},
        {"split": "leave-last-out"},
    ],
    ids=lambda split: split["split"],
)
def test_beam_writes_the_rows_that_one_machine_writes(
    tmp_path: Path, split: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(40)
    for number in range(3):
        pq.write_table(log.slice(number * 400, 400), tmp_path / "log" / f"{number}.parquet")
    log_of = BUILD["log"] | {"path": "log"}
    changes = {"log": log_of, **split, "keep_negatives": 0.5, "history_ttl_seconds": 50}
    build = build_of(BUILD | changes, "build.yaml")
    monkeypatch.setattr(data_build, "_BUCKET_BYTES", 3_000)
    here = build_dataset(build, tmp_path, tmp_path / "here")
    there = build_on_beam(build, tmp_path, tmp_path / "there")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "there"))
    assert here == there
    assert data_build.Work(build, tmp_path).buckets > 5
    written = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert written == ["dataset.json", "test", "train", "valid"]


@pytest.mark.parametrize("name", ["amazon", "microlens", "avazu-x4"])
def test_beam_writes_public_data_sets_too(tmp_path: Path, name: str) -> None:
    PUBLIC_FILES[name].write(tmp_path / "source")
    here = prepare(name, tmp_path / "source", tmp_path / "here")
    there = build_on_beam(build_of(build_file(name), name), tmp_path / "source", tmp_path / "there")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "there"))
    assert here["columns"] == there["columns"]
    assert (tmp_path / "there" / "item_vectors.npz").is_file() == (name == "microlens")


def test_texts_have_the_type_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(40)
    log = log.set_column(4, "price", log["item"])
    for number in range(2):
        part = log.slice(number * 700, 700)
        part = part.set_column(4, "price", pa.array([f"{number * 0.5 + price}" for price in part["price"].to_pylist()]))
        pyarrow.csv.write_csv(part, tmp_path / "log" / f"{number}.csv", pa.csv.WriteOptions(quoting_style="none"))
    build = build_of(BUILD | {"log": BUILD["log"] | {"path": "log"}}, "build.yaml")
    build_dataset(build, tmp_path, tmp_path / "here")
    build_on_beam(build, tmp_path, tmp_path / "there")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "there"))
    assert isinstance(rows_of(tmp_path / "there")["test"][0]["price"], float)


def test_the_only_word_among_numbers_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    log = click_log(12)
    prices = [str(price) for price in log["price"].to_pylist()]
    prices[7] = "NA"
    write_csv(tmp_path / "log.csv", log.set_column(4, "price", pa.array(prices)))
    write_csv(tmp_path / "users.csv", pa.table({"id": range(12), "age": ["31", "unknown", *["42"] * 10]}))
    content = {"log": BUILD["log"] | {"path": "log.csv"}, "users": {"path": "users.csv", "key": "id"}}
    build = build_of(BUILD | content, "build.yaml")
    build_dataset(build, tmp_path, tmp_path / "here")
    expected = capsys.readouterr().err
    build_on_beam(build, tmp_path, tmp_path / "there")
    told = [line for line in capsys.readouterr().err.splitlines(keepends=True) if line.startswith("warning: ")]
    assert "".join(told) == expected
    assert [re.search(r"/(\w+.csv, row \d+): column '(\w+)'", line).groups() for line in told] == [
        ("users.csv, row 2", "age"),
        ("log.csv, row 8", "price"),
    ]


def test_tables_and_a_given_split(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(500), "brand": [f"b{i % 5}" for i in range(500)]}), tmp_path / "items.parquet")
    for split, users in (("train", 9), ("valid", 4), ("test", 3)):
        pq.write_table(click_log(users), tmp_path / f"{split}.parquet")
    log = BUILD["log"] | {"path": {s: f"{s}.parquet" for s in ("train", "valid", "test")}, "duplicates": "keep"}
    build = build_of(BUILD | {"log": log, "items": {"path": "items.parquet", "key": "id"}}, "build.yaml")
    assert build_dataset(build, tmp_path, tmp_path / "here") == build_on_beam(build, tmp_path, tmp_path / "there")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "there"))


def test_a_log_without_users_and_with_an_empty_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    log = click_log(40)
    for number, part in enumerate((log.slice(0, 0), log.slice(0, 500), log.slice(500).select(log.column_names[::-1]))):
        pq.write_table(part, tmp_path / "log" / f"{number}.parquet")
    content = {"log": {"path": "log"}, "label": {"column": "click"}, "split": "random"}
    build = build_of(content, "build.yaml")
    monkeypatch.setattr(data_build, "_BUCKET_BYTES", 3_000)
    monkeypatch.setattr(build_log, "_ROWS_AT_ONCE", 100)
    assert build_dataset(build, tmp_path, tmp_path / "here") == build_on_beam(build, tmp_path, tmp_path / "there")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "there"))


def test_a_part_that_was_not_moved_to_its_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(click_log(12), tmp_path / "log.parquet")
    whole_write = data_build._ParquetSink.write
    monkeypatch.setattr(
        data_build._ParquetSink, "write", lambda sink, element: whole_write(sink, (element[0], element[1].slice(1)))
    )
    with pytest.raises(UserError, match=r"rows of train were written"):
        build_on_beam(build_of(BUILD, "build.yaml"), tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_there_are_as_many_groups_of_users_as_the_log_needs(tmp_path: Path) -> None:
    pq.write_table(click_log(40), tmp_path / "log.parquet")
    files = build_log.log_files(build_of(BUILD, "build.yaml"), tmp_path)
    assert build_log.bucket_count(files, build_of(BUILD, "build.yaml"), 10) > local._MOST_BUCKETS


def test_a_bad_table_is_told_before_beam_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_build.beam, "Pipeline", None)
    pq.write_table(click_log(12), tmp_path / "log.parquet")
    pq.write_table(pa.table({"id": [1, 1]}), tmp_path / "items.parquet")
    build = build_of(BUILD | {"items": {"path": "items.parquet", "key": "id"}}, "build.yaml")
    with pytest.raises(UserError, match=r"items.parquet: id '1' stands in 2 rows; keep one"):
        build_on_beam(build, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_row_is_one_line_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    pq.write_table(with_a_missing_label(), tmp_path / "log.parquet")
    with pytest.raises(
        UserError, match=r"log.parquet, row 8: column 'click' is missing, so the row has no label"
    ) as told:
        build_on_beam(build_of(BUILD, "build.yaml"), tmp_path, tmp_path / "out", arguments=beam_args(workers))
    assert "\n" not in str(told.value)
    assert "[while running" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_what_else_a_worker_met_is_told_by_its_last_line(tmp_path: Path) -> None:
    traceback = (
        "Traceback (most recent call last):\n  File ...\nKeyError: 1\n\nDuring handling of the above exception:\n\n"
        "Traceback (most recent call last):\n  File ...\nOSError: [Errno 28] No space left [while running 'Counts']\n"
    )
    told = str(for_people(RuntimeError(traceback), tmp_path / "log"))
    assert told == f"the run failed: OSError: [Errno 28] No space left\nthe whole story: {tmp_path / 'log'}"
    assert str(for_people(ValueError("no\nyes"), tmp_path)).startswith("the run failed: ValueError: no\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_builds_or_says_in_one_line_why_not(tmp_path: Path, workers: str) -> None:
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(BUILD, sort_keys=False))
    command = [sys.executable, "-m", "pipeline.data_build", str(tmp_path / "build.yaml"), "--workers", workers]

    def run(out: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--out", str(tmp_path / out)], text=True, capture_output=True, check=False, cwd=ROOT
        )

    pq.write_table(click_log(12), tmp_path / "log.parquet")
    made = run("made")
    assert made.returncode == 0, made.stderr
    build_dataset(build_of(BUILD, "build.yaml"), tmp_path, tmp_path / "here")
    assert counted(rows_of(tmp_path / "here")) == counted(rows_of(tmp_path / "made"))
    pq.write_table(with_a_missing_label(), tmp_path / "log.parquet")
    refused = run("refused")
    assert refused.returncode == 2
    told = [line for line in refused.stderr.splitlines() if not re.match("WARNING: All log|[IW]0000 ", line)]
    assert len(told) == 1
    assert told[0].startswith(f"error: {tmp_path / 'log.parquet'}, row 8: column 'click' is missing, so the row has no")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["build.yaml", "here", "log.parquet", "made", "made.log", "refused.log"]
