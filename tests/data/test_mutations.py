"""A hundred broken data sets, made from one good one: each is refused in a line, before a model is built."""

from __future__ import annotations

import gzip
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.records import example
from tfctr.data.check import check_dataset
from tfctr.data.log import checked_rows
from tfctr.data.sources import read, split_files
from tfctr.data.sources.records import located_records, masked_crc32c
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.features.columns import INT64_MISSING
from tfctr.features.parsing import dense, outcomes, parse_examples, ragged, sliceable
from tfctr.features.row_checks import column_rules
from tfctr.training.experiment import Experiment
from tfctr.training.workspace import train_in_workspace

Row = dict[str, list[Any]]
Mutation = Callable[[Row], object]

FILE = FeatureFile.model_validate(
    {
        "labels": {"click": "label"},
        "weight": "importance",
        "group": "user_id",
        "request": "request_id",
        "timestamp": "timestamp",
        "meta": ["segment"],
        "embedding_dimension": 4,
        "user": {"user_id": {"vocabulary": {"type": "hash", "buckets": 8}}, "mood": {"kind": "numeric"}},
        "candidate": {
            "item_id": {},
            "genres": {"dtype": "string", "max_values": 2},
            "year": {"kind": "numeric", "dtype": "int64", "transform": "log1p"},
            "price": {"kind": "numeric", "transform": "bucketize", "buckets": 4},
            "vector": {"kind": "frozen", "key": "item_id", "vectors": "vectors.npz"},
        },
        "bias": {"position": {"vocabulary": {"type": "identity", "size": 4}, "default": 0}},
        "sequences": {
            "history": {
                "max_length": 4,
                "fields": {
                    "seen": {"share": "item_id"},
                    "paid": {"kind": "numeric"},
                    "seen_time": {"kind": "event_time"},
                },
            }
        },
    }
)
RULES = column_rules(FILE)
HISTORY = ("seen", "paid", "seen_time")
NOW = 1_700_000_000
EXPERIMENT = Experiment.model_validate(
    {"preset": "mlp", "model": {"interaction": {"hidden": [4]}}, "training": {"epochs": 1, "jit_compile": False}}
)


def row(number: int) -> Row:
    return {
        "label": [number % 2],
        "importance": [0.5],
        "request_id": [b"r"],
        "timestamp": [NOW],
        "segment": [b"new"],
        "user_id": [number % 5],
        "mood": [0.25 * number],
        "item_id": [number % 7],
        "genres": [b"a|b"],
        "year": [1990 + number % 9],
        "price": [float(number)],
        "position": [number % 4],
        "seen": [1, 2, 3],
        # NaN says that this one event has no price.
        "paid": [1.5, math.nan, 2.5],
        "seen_time": [NOW - 1, NOW - 5, NOW - 5],
    }


def framed(record: bytes) -> bytes:
    length = len(record).to_bytes(8, "little")
    return length + masked_crc32c(length) + record + masked_crc32c(record)


def write(path: Path, records: list[bytes]) -> None:
    content = b"".join(map(framed, records))
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("good")
    np.savez(data / "vectors.npz", ids=np.arange(7), vectors=np.ones((7, 3), np.float32))
    for split in ("train", "valid", "test"):
        (data / split).mkdir()
        # Plain and packed files may stand side by side.
        write(data / split / "a.tfrecord", [example(row(number)) for number in range(6)])
        write(data / split / "b.tfrecord.gz", [example(row(number)) for number in range(6, 16)])
    return data


def put(name: str, *values: Any) -> Mutation:
    return lambda columns: columns.update({name: list(values)})


def other_type(name: str) -> Mutation:
    value: Any = {"int64": b"1", "string": 1, "float32": 1}[RULES[name].dtype]
    return lambda columns: columns.update({name: [value] * len(columns[name])})


def longer(name: str) -> Mutation:
    return lambda columns: columns[name].append(columns[name][-1])


# What stands in one record, the fourth of the second file: what is done to it, and what is said.
RECORD: dict[str, tuple[Mutation, str]] = {
    "label missing": (put("label"), "label must be 0 or 1. Received: nothing"),
    **{f"label {value}": (put("label", value), f"label must be 0 or 1. Received: {value}") for value in (2, -1)},
    "label of the missing value": (put("label", INT64_MISSING), "label must be 0 or 1. Received: nothing"),
    **{
        f"weight {value}": (
            put("importance", value),
            f"importance must be a finite number, 0 or.*: {value}",
        )
        for value in (-1.0, math.nan, math.inf)
    },
    **{
        f"{name} {value}": (put(name, value), f"{name} must be a finite number; leave it out.*Received: {value}")
        for name in ("mood", "price")
        for value in (math.inf, -math.inf, math.nan)
    },
    "paid inf": (put("paid", 1.0, math.inf, 1.0), "paid must be a finite number"),
    **{
        f"{name} of another type": (other_type(name), f"{name} is .*; {RULES[name].because} {RULES[name].dtype}")
        for name in RULES
    },
    **{
        f"two values of {name}": (longer(name), f"{name} has 2 values; join several")
        for name in RULES
        if name not in HISTORY
    },
    **{f"one more value of {name}": (longer(name), "the columns of a history must") for name in HISTORY},
    "time in milliseconds": (
        put("timestamp", 1000 * NOW),
        "timestamp must be seconds.*; divide milliseconds by 1000",
    ),
    "event in milliseconds": (
        put("seen_time", 1000 * NOW, 1, 1),
        "seen_time must be seconds.*; divide milliseconds by 1000",
    ),
    "event at the impression": (put("seen_time", NOW, NOW - 1, NOW - 2), f"seen_time {NOW} is not before timestamp"),
    "event after the impression": (put("seen_time", NOW + 9, 1, 1), f"seen_time {NOW + 9} is not before timestamp"),
    "oldest event first": (put("seen_time", 1, 2, 3), r"seen_time must be newest first: .* Received: 1 before 2"),
}


def change_record(data: Path, split: str, mutation: Mutation) -> None:
    columns = row(9)
    mutation(columns)
    records = [example(row(number)) for number in range(6, 16)]
    records[3] = example(columns)
    write(data / split / "b.tfrecord.gz", records)


def change_every(split: str, *mutations: Mutation) -> Callable[[Path], object]:
    def change(data: Path) -> None:
        for path in sorted((data / split).iterdir()):
            numbers = range(6) if path.name == "a.tfrecord" else range(6, 16)
            rows = [row(number) for number in numbers]
            for columns in rows:
                for mutation in mutations:
                    mutation(columns)
            write(path, [example(columns) for columns in rows])

    return change


def change_bytes(split: str, name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def changed(data: Path) -> None:
        path = data / split / name
        path.write_bytes(change(path.read_bytes()))

    return changed


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def whole(split: str) -> dict[str, tuple[Callable[[Path], object], str]]:
    """Faults of a whole split and of its files."""
    return {
        "no record": (
            lambda data: [write(path, []) for path in (data / split).iterdir()],
            "the split holds no example",
        ),
        "no file": (lambda data: [path.unlink() for path in (data / split).iterdir()], r"no file of a log \(\*\.csv"),
        "one class": (
            change_every(split, put("label", 1)),
            "every label of a weight above 0 is 1, and labels of one class only",
        ),
        "one class with weight": (
            change_every(split, lambda columns: columns.update(importance=[1.0 - columns["label"][0]])),
            "every label of a weight above 0 is 0, and labels of one class only",
        ),
        "weights of 0": (change_every(split, put("importance", 0.0)), "the weights in column 'importance' sum to 0"),
        "another byte": (
            change_bytes(split, "a.tfrecord", flip(40)),
            "after record 0: the next",
        ),
        "another length": (
            change_bytes(split, "a.tfrecord", flip(6)),
            "after record 0: a length",
        ),
        "cut off": (change_bytes(split, "a.tfrecord", lambda content: content[:-9]), "after record 5: .*ends within"),
        "cut in a length": (
            change_bytes(split, "a.tfrecord", lambda content: content + content[:9]),
            "after record 6: .*ends within",
        ),
        "cut gzip": (change_bytes(split, "b.tfrecord.gz", lambda content: content[:-30]), "b.tfrecord.gz is damaged"),
        "a CSV": (change_bytes(split, "a.tfrecord", lambda _: b"label,item_id\n" + b"1,2\n" * 99), "a length does not"),
        "gzip without .gz": (change_bytes(split, "a.tfrecord", gzip.compress), "packed but not named .gz"),
        ".gz without gzip": (change_bytes(split, "b.tfrecord.gz", gzip.decompress), "Not a gzipped file"),
        "no tf.Example": (
            lambda data: write(data / split / "a.tfrecord", [b"\xff" * 20]),
            "a.tfrecord, record 1: not a tf.Example",
        ),
    }


def absent(name: str) -> tuple[Callable[[Path], object], str]:
    # A history without one of its columns has columns of two lengths; without all it is absent.
    names = HISTORY if name in HISTORY else (name,)
    told = "label must be 0 or 1. Received: nothing" if name == "label" else f"column '{min(names)}' has no value"
    return change_every("train", *(put(one) for one in names)), told


SETS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    **{
        f"{split}: {name}": (
            split,
            lambda data, split=split, mutation=mutation: change_record(data, split, mutation),
            f"{split}/b.tfrecord.gz, record 4: {told}",
        )
        for split in ("train", "valid")
        for name, (mutation, told) in RECORD.items()
    },
    **{f"{split}: {name}": (split, *found) for split in ("train", "valid") for name, found in whole(split).items()},
    **{f"train: no {name} anywhere": ("train", *absent(name)) for name in RULES},
    **{
        f"train: {name} always stands for missing": (
            "train",
            change_every("train", put(name, {"string": b"", "int64": INT64_MISSING}[rule.dtype])),
            f"column '{name}' has no value",
        )
        for name, rule in RULES.items()
        if name not in HISTORY and name != "label" and rule.dtype != "float32"
    },
    "weights too large": (
        "train",
        change_every("train", put("importance", 3e38)),
        "sum to 4.8e\\+39, more than a float32 holds; divide them by their mean",
    ),
    "no vectors": ("", lambda data: (data / "vectors.npz").unlink(), "vectors.npz: no such file"),
}


def test_there_are_a_hundred() -> None:
    assert len(SETS) >= 100


def at_night(name: str) -> bool:
    """Whether it is a fault of the valid split that the train split has too, whose rows the same function checks."""
    return name.startswith("valid: ") and name.replace("valid", "train", 1) in SETS


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.night] * at_night(one)) for one in SETS])
def test_a_broken_set_is_refused_before_a_model_is_built(good: Path, tmp_path: Path, name: str) -> None:
    split, change, told = SETS[name]
    shutil.copytree(good, tmp_path / "data")
    change(tmp_path / "data")
    refusals = [
        lambda: check_dataset(tmp_path / "data", FILE),
        lambda: train_in_workspace(FILE, EXPERIMENT, tmp_path / "data", tmp_path / "run"),
    ]
    # An evaluation reads one split so. Labels of one class it reports on, and some columns it may lack.
    lacks = [one for one, rule in RULES.items() if f" {one} a" in name and not rule.everywhere]
    if split and "one class" not in name and not lacks:
        refusals.append(
            lambda: list(checked_rows(FILE, split_files(tmp_path / "data", split), "scoring", both_classes=False))
        )
    for refusal in refusals:
        with pytest.raises(UserError, match=told) as raised:
            refusal()
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "runs").exists()


@pytest.mark.slow
def test_the_good_set_trains(good: Path, tmp_path: Path) -> None:
    assert check_dataset(good, FILE) == ({"train": 16, "valid": 16, "test": 16}, [])
    assert train_in_workspace(FILE, EXPERIMENT, good, tmp_path).progress.finished
    assert sum(1 for _ in located_records(split_files(good, "train"))) == 16


@pytest.mark.slow
def test_an_empty_list_is_a_missing_value(good: Path, tmp_path: Path) -> None:
    """In every stage: the checks, a training, and what is served and evaluated, which parse examples."""
    shutil.copytree(good, tmp_path / "data")
    columns = row(9)
    left_out = {name: [] if name != "label" and name not in HISTORY else values for name, values in columns.items()}
    empty = tf.train.Example.FromString(example(columns))
    for feature, values in zip(map(empty.features.feature.get, columns), left_out.values(), strict=True):
        if not values:
            getattr(feature, feature.WhichOneof("kind")).ClearField("value")
    records = [empty.SerializeToString(), *(example(row(number)) for number in range(7, 16))]
    for split in ("train", "valid", "test"):
        write(tmp_path / "data" / split / "b.tfrecord.gz", records)
    check_dataset(tmp_path / "data", FILE)
    assert train_in_workspace(FILE, EXPERIMENT, tmp_path / "data", tmp_path / "run").progress.finished
    absent, present = [example(left_out), example(row(1))], [records[0], example(row(1))]
    for expected, found in (
        (parse_examples(absent, FILE, outcomes(FILE)), parse_examples(present, FILE, outcomes(FILE))),
        (scalars(tmp_path, absent), scalars(tmp_path, present)),
    ):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)


def scalars(directory: Path, records: list[bytes]) -> dict[str, Any]:
    """What an evaluation reads beside the scores."""
    write(directory / "a.tfrecord", records)
    [rows] = read([directory / "a.tfrecord"], RULES, FILE.csv)
    wanted = outcomes(FILE) | sliceable(FILE)
    return {name: dense(ragged(rows.columns[name]), one) for name, one in wanted.items()}


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "valid"])
def test_rows_that_changed_are_trained_and_checked_again(good: Path, tmp_path: Path, split: str) -> None:
    """Labels are in no vocabulary and no statistic, and a copy may keep the time of the file that it replaces."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(good, data)
    first = train_in_workspace(FILE, EXPERIMENT, data, run).progress.history
    assert train_in_workspace(FILE, EXPERIMENT, data, run).progress.history == first

    def rewrite(mutation: Mutation) -> None:
        path = data / split / "a.tfrecord"
        state = path.stat()
        rows = [row(number) for number in range(6)]
        for columns in rows:
            mutation(columns)
        write(path, [example(columns) for columns in rows])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert path.stat().st_size == state.st_size

    rewrite(lambda columns: columns.update(label=[1 - columns["label"][0]]))
    assert train_in_workspace(FILE, EXPERIMENT, data, run).progress.history != first
    rewrite(put("label", 7))
    with pytest.raises(UserError, match=r"label must be 0 or 1\. Received: 7"):
        train_in_workspace(FILE, EXPERIMENT, data, run)


@pytest.mark.parametrize(
    "mutation",
    [
        put("importance"),
        put("user_id"),
        put("timestamp"),
        put("genres", b""),
        put("genres", b"\xff\n|\x00"),
        put("mood"),
    ],
)
def test_what_is_no_fault(good: Path, tmp_path: Path, mutation: Mutation) -> None:
    """A value may be missing, and a token may be any bytes."""
    shutil.copytree(good, tmp_path / "data")
    change_record(tmp_path / "data", "train", mutation)
    check_dataset(tmp_path / "data", FILE)
    assert sum(len(rows.serialized) for rows in checked_rows(FILE, split_files(tmp_path / "data", "train"), "")) == 16
