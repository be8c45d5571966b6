"""What `tfctr data build` writes is what `tfctr init` reads."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from tests.data.build_logs import BUILD, build, click_log
from tfctr.cli import app
from tfctr.data.check import check_dataset
from tfctr.features import load_feature_file


def test_a_built_log_becomes_a_project_whose_roles_are_known(tmp_path: Path) -> None:
    items = pa.table({"id": np.arange(500), "brand": [f"b{item % 9}" for item in range(500)]})
    pq.write_table(items, tmp_path / "items.parquet")
    clicks = BUILD["histories"]["clicks"]
    columns = clicks["columns"] | {"clicks_brand": "items.brand"}
    build(
        tmp_path,
        click_log(60),
        items={"path": "items.parquet", "key": "id"},
        histories={"clicks": clicks | {"columns": columns}},
        keep_negatives=0.5,
    )
    project = tmp_path / "project"
    made = CliRunner().invoke(app, ["init", "--data", str(tmp_path / "out"), "--out", str(project)])
    assert made.exit_code == 0, made.output
    file = load_feature_file(project / "features.yaml")
    assert (file.group, file.request, file.timestamp) == ("user", "request", "time")
    assert sorted(file.meta) == ["activity", "hour", "popularity"]
    assert file.negative_sampling_rate == 0.5
    assert set(file.user) == {"user"}
    assert set(file.candidate) >= {"item", "brand"}
    fields = file.sequences["clicks"].fields
    assert file.sequences["clicks"].max_length == 5
    assert {name: getattr(field, "share", None) for name, field in fields.items()} == {
        "clicks_item": "item",
        "clicks_time": None,
        "clicks_brand": "brand",
    }
    counts, unread = check_dataset(tmp_path / "out", file)
    assert counts["train"] > 0
    assert not unread
