"""Frappe's own files become impressions as they are split."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.data.build_logs import rows_of
from tfctr.cli import app
from tfctr.data.prepare import prepare
from tfctr.errors import UserError

HEADER = "label,user,item,daytime,weather\n"
FILES = {"train": "0,1,7,50,60\n1,1,8,51,60\n1,2,7,50,61\n", "valid": "1,1,9,50,60\n", "test": "0,2,9,50,61\n"}


def published(directory: Path) -> Path:
    """A directory with the publisher's layout: train is packed."""
    directory.mkdir()
    for split, lines in FILES.items():
        packed = split == "train"
        content = (HEADER + lines).encode()
        name = f"{split}.csv.gz" if packed else f"{split}.csv"
        (directory / name).write_bytes(gzip.compress(content) if packed else content)
    return directory


def test_the_published_splits_are_kept_row_by_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = prepare("frappe", published(tmp_path / "source"), out)
    rows = rows_of(out)
    names = ("label", "user", "item", "daytime", "weather")
    for split, lines in FILES.items():
        expected = [dict(zip(names, map(int, line.split(",")), strict=True)) for line in lines.splitlines()]
        assert sorted(rows[split], key=str) == sorted(
            ({name: row[name] for name in [*names[1:], "label"]} for row in expected), key=str
        )
    assert manifest["splits"]["train"] == {"rows": 3, "positives": 2, "users": 2}
    written = json.loads((out / "dataset.json").read_text())
    assert [source["file"] for source in written["source"]] == ["train.csv.gz", "valid.csv", "test.csv"]
    assert written["roles"]["sides"] == {"user": "user", "item": "candidate"}


def test_a_missing_file_and_an_option_of_another_data_set_are_one_line(tmp_path: Path) -> None:
    source = published(tmp_path / "source")
    (source / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"valid.csv: no such file or folder, and no valid.csv.gz"):
        prepare("frappe", source, tmp_path / "out")
    arguments = ["data", "prepare", "frappe", "--source", str(source), "--out", str(tmp_path / "out"), "--users", "3"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert "frappe is written as published" in str(result.exception)
    assert not (tmp_path / "out").exists()
