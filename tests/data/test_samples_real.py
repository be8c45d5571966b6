"""Tests on samples of Criteo's and Avazu's own files, where a copy lies beside the checkout."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.data.build_logs import rows_of
from tests.data.public_files import CONFIGS, numbered
from tfctr.data.check import check_dataset
from tfctr.data.prepare import prepare
from tfctr.features import load_feature_file

SAMPLES = Path(__file__).parents[3] / "shared/data/samples"
SPLITS = {"train": "train", "valid": "dev", "test": "test"}
"""The names of the samples' files by split."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"the samples are not at {SAMPLES}")]


def lines_of(sample: str, split: str) -> list[str]:
    """The lines of a sample."""
    text = gzip.decompress((SAMPLES / sample / f"{SPLITS[split]}.csv.gz").read_bytes()).decode()
    return text.splitlines()


@pytest.mark.parametrize(
    ("sample", "name", "sizes"),
    [
        ("criteo_sample", "criteo-x4", (7200, 409, 391)),
        ("avazu_sample", "avazu-x4", (8087, 480, 432)),
    ],
)
def test_a_sample_in_the_layout_of_the_splits(tmp_path: Path, sample: str, name: str, sizes: tuple[int, ...]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    lines = {split: lines_of(sample, split) for split in SPLITS}
    if name == "criteo-x4":  # the challenge's own files have tabs and no line of names
        header = ",".join(["Label", *numbered("I", 1, 13), *numbered("C", 1, 26)])
        lines = {split: [line.replace("\t", ",") for line in found] for split, found in lines.items()}
    else:
        header = lines["train"].pop(0)
    for split, found in lines.items():
        (source / f"{split}.csv").write_text("\n".join([header, *found, ""]))
    manifest = prepare(name, source, tmp_path / "out")
    label = header.split(",").index("Label" if name == "criteo-x4" else "click")
    assert [manifest["splits"][split]["rows"] for split in SPLITS] == list(sizes)
    rows = rows_of(tmp_path / "out")
    for split, found in lines.items():
        assert sum(row["label"] for row in rows[split]) == sum(line.split(",")[label] == "1" for line in found)
        made = sorted(str(row["C21"]) for row in rows[split])
        assert made == sorted(line.split(",")[header.split(",").index("C21")] or "None" for line in found)
    check_dataset(str(tmp_path / "out"), load_feature_file(CONFIGS / f"{name}.yaml"), None)
