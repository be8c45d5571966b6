"""Public data sets, from small files in the publisher's layout to a trained epoch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.data.build_logs import rows_of
from tests.data.helpers import write_movielens
from tests.data.public_files import CONFIGS, PUBLIC_FILES, REPEATED
from tfctr.cli import app
from tfctr.data.build.datasets import build_file, dataset_names
from tfctr.data.check import check_dataset
from tfctr.data.prepare import Options, prepare, prepare_movielens
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features import load_feature_file

NAMES = sorted(PUBLIC_FILES)
CSV_NAMES = [name for name in NAMES if name not in ("microlens", "movielens-1m-ctr")]


@pytest.mark.parametrize("name", NAMES)
def test_small_files_become_the_rows_worked_out_by_hand(tmp_path: Path, name: str) -> None:
    files = PUBLIC_FILES[name]
    files.write(tmp_path / "source")
    manifest = prepare(name, tmp_path / "source", tmp_path / "out")
    made = rows_of(tmp_path / "out")
    if "all" in files.rows:
        counts = {split: len(rows) for split, rows in made.items()}
        total = len(files.rows["all"]) * REPEATED
        assert counts == {
            "train": int(0.8 * total),
            "valid": int(0.1 * total),
            "test": total - sum(list(counts.values())[:2]),
        }
        made = {"all": [row for rows in made.values() for row in rows]}
    expected = {split: rows * REPEATED for split, rows in files.rows.items()}
    assert {split: sorted(rows, key=str) for split, rows in made.items()} == {
        split: sorted(rows, key=str) for split, rows in expected.items()
    }
    assert manifest["dataset"] == name
    assert all(source["bytes"] for source in manifest["source"])
    check_dataset(str(tmp_path / "out"), load_feature_file(CONFIGS / files.features), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_is_trained_with_its_feature_file(tmp_path: Path, name: str) -> None:
    files = PUBLIC_FILES[name]
    files.write(tmp_path / "source")
    prepare(name, tmp_path / "source", tmp_path / "data")
    paths = [
        "--features",
        str(CONFIGS / files.features),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "run"),
    ]
    settings = ["--preset", files.preset, "--epochs", "1", "--set", "training.jit_compile=false"]
    result = CliRunner().invoke(app, ["train", *paths, *settings], catch_exceptions=False)
    assert "epoch 1: validation AUC" in result.output


def test_each_data_set_says_what_it_is_and_is_told_in_the_help() -> None:
    assert set(dataset_names()) == {*PUBLIC_FILES, "frappe", "movielens-1m"}
    text = re.sub(r"[│\s]+", "", CliRunner().invoke(app, ["data", "prepare", "--help"]).output)  # lines end anywhere
    assert all(name in text and build_file(name)["about"] for name in dataset_names())


def test_a_wrong_name_is_told_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no public data set 'movielens'; there are .*frappe.*movielens-1m-ctr"):
        prepare("movielens", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("seed", [None, 3])
def test_movielens_with_histories_is_written_with_its_default_options(tmp_path: Path, seed: int | None) -> None:
    source = write_movielens(tmp_path / "source")
    options = Options() if seed is None else Options(seed=seed)
    expected = prepare_movielens(source, tmp_path / "expected", options)
    assert prepare("movielens-1m", source, tmp_path / "out", seed=seed) == expected
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "expected")
    with pytest.raises(UserError, match="out holds a data set already"):
        prepare("movielens-1m", source, tmp_path / "out")
    prepare("movielens-1m", source, tmp_path / "out", force=True)


def test_a_seed_draws_another_random_split_and_is_refused_where_the_split_is_published(tmp_path: Path) -> None:
    PUBLIC_FILES["movielens-1m-ctr"].write(tmp_path / "source")
    made = []
    for place, seed in (("a", "1"), ("b", "2"), ("c", "1")):
        arguments = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / place), "--seed", seed]
        CliRunner().invoke(app, ["data", "prepare", "movielens-1m-ctr", *arguments], catch_exceptions=False)
        made.append(rows_of(tmp_path / place))
    assert made[0] == made[2] != made[1]
    assert {split: len(rows) for split, rows in made[0].items()} == dict(zip(SPLITS, (28, 3, 5), strict=True))
    arguments = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "d"), "--seed", "1"]
    result = CliRunner().invoke(app, ["data", "prepare", "frappe", *arguments])
    assert "frappe is split as published, so it takes no seed" in str(result.exception)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    PUBLIC_FILES[name].write(tmp_path / "source")
    for path in sorted((tmp_path / "source").iterdir()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=f"{path.name.removesuffix('.gz')}(: no such file or folder| is missing)"):
            prepare(name, tmp_path / "source", tmp_path / "out")
        path.write_bytes(content)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CSV_NAMES)
def test_a_wrong_header_and_a_bad_label_are_told_with_file_and_row(tmp_path: Path, name: str) -> None:
    PUBLIC_FILES[name].write(tmp_path / "source")
    path = next(path for path in sorted((tmp_path / "source").iterdir()) if path.suffix == ".csv")
    content = path.read_text()
    header, first, second, rest = content.split("\n", 3)
    label = build_file(name)["label"]["column"]
    place = header.split(",").index(label)
    values = second.split(",")
    values[place] = "2"
    path.write_text("\n".join([header, first, ",".join(values), rest]))
    with pytest.raises(UserError, match=rf"{path.name}, row 2: column '{label}' is 2; .* a label must be 0 or 1"):
        prepare(name, tmp_path / "source", tmp_path / "out")
    for column in {label, *(one.partition(".")[2] for one in build_file(name)["columns"])}:
        path.write_text(content.replace(header, f",{header},".replace(f",{column},", ",other,")[1:-1]))
        with pytest.raises(UserError, match=rf"{path.name}: no column '{column}'"):
            prepare(name, tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_no_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a directory; --source must hold the publisher's files"):
        prepare("frappe", tmp_path / "nowhere", tmp_path / "out")


def test_the_files_of_the_publisher_are_not_replaced_by_what_is_made_of_them(tmp_path: Path) -> None:
    PUBLIC_FILES["kkbox"].write(tmp_path / "source")
    out = tmp_path / "out"
    prepare("kkbox", tmp_path / "source", out)
    (tmp_path / "source").rename(out / "source")
    arguments = ["--source", str(out / "source"), "--out", str(out), "--force"]
    result = CliRunner().invoke(app, ["data", "prepare", "kkbox", *arguments])
    assert "is not replaced, since it holds what is not of its data set: source; move" in str(result.exception)
    assert sorted(path.name for path in (out / "source").iterdir()) == ["test.csv.gz", "train.csv", "valid.csv"]
    for path in (out / "source").iterdir():
        path.rename(out / path.name)
    (out / "source").rmdir()
    for force in (False, True):
        with pytest.raises(UserError, match=r"its data set: test.csv.gz, train.csv, valid.csv; move"):
            prepare("kkbox", out, out, force)
    assert (out / "train.csv").is_file()


@pytest.mark.parametrize("seed", [2**32, 2**64, 10**23])
def test_a_seed_that_none_can_be_is_refused(tmp_path: Path, seed: int) -> None:
    PUBLIC_FILES["tenrec"].write(tmp_path / "source")
    with pytest.raises(UserError, match=rf"tenrec: seed: Input should be less than 4294967296. Received: {seed}"):
        prepare("tenrec", tmp_path / "source", tmp_path / "out", seed=seed)
    arguments = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--seed", str(seed)]
    result = CliRunner().invoke(app, ["data", "prepare", "tenrec", *arguments])
    assert (result.exit_code, "--seed" in result.output) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--seed", "17"], "movielens-tag is split as published, so it takes no seed"),
        (["--split", "user-time"], "movielens-tag is written as published; of the options it takes"),
        (["--history-length", "50"], "movielens-tag is written as published; of the options it takes"),
    ],
)
def test_an_option_that_says_nothing_is_refused_also_with_its_default(
    tmp_path: Path, option: list[str], told: str
) -> None:
    PUBLIC_FILES["movielens-tag"].write(tmp_path / "source")
    arguments = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["data", "prepare", "movielens-tag", *arguments, *option])
    assert told in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_split_of_the_publisher_without_a_row_is_told_with_its_file(tmp_path: Path) -> None:
    PUBLIC_FILES["movielens-tag"].write(tmp_path / "source")
    valid = tmp_path / "source" / "valid.csv"
    valid.write_text(valid.read_text().partition("\n")[0] + "\n")
    told = r"the valid split would be empty .*/valid.csv has no row of data; look whether you have the whole file"
    with pytest.raises(UserError, match=told):
        prepare("movielens-tag", tmp_path / "source", tmp_path / "out")


def test_a_word_among_the_ages_of_kkbox_is_told_with_file_and_row(tmp_path: Path) -> None:
    PUBLIC_FILES["kkbox"].write(tmp_path / "source")
    train = tmp_path / "source" / "train.csv"
    train.write_text(train.read_text().replace(",13,30,female,", ",13,old,female,", 1))
    told = (
        r"train.csv, row 2: column 'bd' is 'old', .*; `changes.bd.between` asks numbers. A missing value is left empty"
    )
    with pytest.raises(UserError, match=told):
        prepare("kkbox", tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("criteo-x4", "two columns are called '0'; the first line must name the columns"),
        ("kkbox", "no column 'msno'; it has 1, u1, .*; its first line must name the columns"),
    ],
)
def test_a_file_without_the_names_of_its_columns_is_told(tmp_path: Path, name: str, told: str) -> None:
    PUBLIC_FILES[name].write(tmp_path / "source")
    train = tmp_path / "source" / "train.csv"
    lines = train.read_text().partition("\n")[2]
    if name == "kkbox":  # whose first row must have no value twice
        lines = lines.replace("0,,7", "0,m,7").replace("Dan Smith,,", "Dan Smith,x,").replace(",1,0,", ",8,0,")
        lines = lines.replace("explore,Explore", "a,b")
    train.write_text(lines)
    with pytest.raises(UserError, match=f"train.csv: {told}"):
        prepare(name, tmp_path / "source", tmp_path / "out")


def test_movielens_without_vectors_goes_with_its_feature_file_without_them(tmp_path: Path) -> None:
    PUBLIC_FILES["movielens-1m-ctr"].write(tmp_path / "source")
    prepare("movielens-1m", tmp_path / "source", tmp_path / "out")
    content = yaml.safe_load((CONFIGS / "movielens.yaml").read_text())
    with pytest.raises(UserError, match=r"candidate.item_vector.vectors: .*item_vectors.npz: no such file"):
        check_dataset(str(tmp_path / "out"), load_feature_file(CONFIGS / "movielens.yaml"), None)
    del content["candidate"]["item_vector"]
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(content))
    check_dataset(str(tmp_path / "out"), load_feature_file(tmp_path / "features.yaml"), None)
