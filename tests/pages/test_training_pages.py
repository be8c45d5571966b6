"""The pages from a log to a trained model, on one small shop's log."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.data.public_files import PUBLIC_FILES
from tests.pages.page import ROOT, Reader
from tests.ports import free_port
from tfctr.cli import app
from tfctr.data.build.datasets import dataset_names
from tfctr.data.splits import SPLITS
from tfctr.training.workspace import finished_run

EXPERIMENT = """
preset: mlp
model: {interaction: {hidden: [16]}}
training: {epochs: 1, batch_size: 256, jit_compile: false}
evaluation: {min_auc: 0, min_gauc: 0}  # a page shows the commands: what this model is worth is chance
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the log of docs/build.md, the impressions that its build file makes of it, and an experiment."""
    directory = tmp_path_factory.mktemp("shop")
    _write_log(directory)
    (build,) = re.findall(r"^```yaml\n(# BUILD\.yaml.*?)^```", _text("docs/build.md"), re.DOTALL | re.MULTILINE)
    (directory / "BUILD.yaml").write_text(build, encoding="utf-8")
    for command in (
        ["data", "build", str(directory / "BUILD.yaml"), "--out", str(directory / "DATA")],
        ["init", "--data", str(directory / "DATA"), "--out", str(directory / "PROJECT")],
    ):
        ran = CliRunner().invoke(app, command)
        assert ran.exit_code == 0, ran.output
    (directory / "experiment.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return directory


def _write_log(directory: Path) -> None:
    rng = np.random.default_rng(1)
    users, products, views = 40, 60, 3000
    brand, taste = rng.integers(6, size=products), rng.normal(0, 2, (users, 6))
    user, product = rng.integers(users, size=views), rng.integers(products, size=views)
    log = {
        "user_id": [f"u{one}" for one in user],
        "product": product,
        "shown_at": 1_700_000_000 + 60 * np.arange(views),
        "clicked": (rng.random(views) < 1 / (1 + np.exp(-taste[user, brand[product]]))).astype(int),
        "surface": rng.choice(["home", "search", "mail"], views),
    }
    (directory / "events").mkdir()
    pq.write_table(pa.table(log), directory / "events" / "part.parquet")
    ages = "".join(f"u{one},{20 + one}\n" for one in range(users))
    (directory / "users.csv").write_text(f"id,age\n{ages}", encoding="utf-8")
    table = {"sku": np.arange(products), "brand": [f"b{one}" for one in brand], "price": rng.uniform(1, 50, products)}
    pq.write_table(pa.table(table), directory / "products.parquet")


@pytest.mark.e2e
def test_a_log_becomes_impressions_here_and_on_beam(shop: Path, reader: Reader) -> None:
    shutil.copytree(shop / "events", reader.directory / "events")
    for name in ("users.csv", "products.parquet"):
        shutil.copy(shop / name, reader.directory)

    reader.reads("docs/build.md", {"--workers 8": "--workers 2"})

    # Beam made the same rows again.
    for split in SPLITS:
        assert _rows(reader.directory / "DATA" / split) == _rows(shop / "DATA" / split)


@pytest.mark.e2e
def test_impressions_become_a_ranked_answer(shop: Path, reader: Reader) -> None:
    shutil.copytree(shop / "DATA", reader.directory / "DIR")
    shutil.copy(shop / "experiment.yaml", reader.directory)
    port = str(free_port())
    init = "tfctr init --data DIR --out PROJECT"

    told = reader.reads(
        "docs/your-data.md",
        {
            init: f"{init} && mv experiment.yaml PROJECT",
            "--batch-size 4096": "--preset mlp --epochs 1 --set training.jit_compile=false",
            "8500": port,
        },
    )

    out = reader.directory / "OUT"
    pushed = list((out / "serving" / "ranking").glob("*/saved_model.pb"))
    below = re.findall(r"`([\w./]+)`", _text("docs/your-data.md").partition("| below `OUT`")[2].partition("\n\n")[0])
    assert pushed
    assert [name for name in below if not (out / name.removesuffix("/N")).exists()] == []
    assert pq.read_table(reader.directory / "scores.parquet").column_names[:2] == ["request_id", "product"]
    assert re.search(r"│ 12 +│ 3\.0 +│$", told, re.MULTILINE)


@pytest.mark.e2e
def test_a_public_data_set_is_prepared_and_trained(reader: Reader) -> None:
    PUBLIC_FILES["criteo-x4"].write(reader.directory / "SOURCE")
    PUBLIC_FILES["movielens-1m-ctr"].write(reader.directory / "MOVIELENS")
    shutil.copytree(ROOT / "configs", reader.directory / "configs")
    quick = "--epochs 1 --set training.jit_compile=false"
    one_layer = f"qnn-alpha-criteo {quick} --set model.interaction.layers=1"

    told = reader.reads("docs/datasets.md", {"qnn-alpha-criteo": one_layer, "RATINGS-RUN": f"RATINGS-RUN {quick}"})

    assert "train: 24 rows, 50.00% positive" in told
    assert finished_run(reader.directory / "RUN")
    assert finished_run(reader.directory / "RATINGS-RUN")


def test_the_page_of_public_data_sets_names_them_all_with_their_feature_files() -> None:
    first, second = re.split(r"^## .*", _text("docs/datasets.md"), flags=re.MULTILINE)[1:3]
    rows = {row[0]: row for row in re.findall(r"\| `([\w-]+)` \|.*\| `([\w-]+\.yaml)` \|", first)}
    assert sorted(rows) == dataset_names()
    assert {(ROOT / "configs" / file).is_file() for _, file in rows.values()} == {True}
    assert {name: file for name, file in rows.values() if name in PUBLIC_FILES} == {
        name: files.features for name, files in PUBLIC_FILES.items()
    }
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", second, re.MULTILINE)) == dataset_names()


@pytest.mark.e2e
def test_a_feature_file_is_checked_and_shown(reader: Reader) -> None:
    shutil.copytree(ROOT / "configs", reader.directory / "configs")
    assert "item_vector" in reader.reads("docs/features.md")


@pytest.mark.e2e
def test_an_experiment_is_trained_in_python_and_by_two_workers(shop: Path, reader: Reader) -> None:
    shutil.copytree(shop / "DATA", reader.directory / "DATA")
    for name in ("experiment.yaml", "PROJECT/features.yaml"):
        shutil.copy(shop / name, reader.directory)

    reader.reads(
        "docs/experiment.md",
        {
            "localhost:2222": f"localhost:{free_port()}",
            "localhost:2223": f"localhost:{free_port()}",
            '"WORKERS", workers=workers': '"ALONE", workers=workers',  # or there would be nothing left to train
        },
    )

    for name in ("RUN", "WORKERS", "ALONE"):
        assert finished_run(reader.directory / name)


@pytest.mark.e2e
def test_keys_are_searched_and_the_best_experiment_is_trained(shop: Path, reader: Reader) -> None:
    shutil.copytree(shop / "DATA", reader.directory / "DATA")
    shutil.copy(shop / "PROJECT" / "features.yaml", reader.directory)
    quick = {"preset: din": "preset: mlp", "epochs: 3,": "jit_compile: false, epochs: 1,", "trials: 6": "trials: 2"}
    quick["{epochs: 2}"] = "{jit_compile: false, epochs: 1}"
    for name, text in re.findall(
        r"^```yaml\n(?=# (\w+\.yaml)\n)(.*?)^```", _text("docs/tune.md"), re.DOTALL | re.MULTILINE
    ):
        for old, new in quick.items():
            text = text.replace(old, new)
        (reader.directory / name).write_text(text, encoding="utf-8")

    told = reader.reads("docs/tune.md")

    assert "trial 2 of 2: " in told
    assert "trial 4 of 4: " in told
    assert "<h2>Search</h2>" in (reader.directory / "search.html").read_text(encoding="utf-8")
    assert finished_run(reader.directory / "BEST")
    assert [trial.trial for trial in reader.names["search"].trials] == [1, 2]


@pytest.mark.slow
def test_the_layers_work_in_a_model_of_ones_own(reader: Reader) -> None:
    reader.reads("docs/models.md")
    model = reader.names["model"]
    inputs = [keras.random.normal((8, 50, 16), seed=1), np.arange(8), keras.random.normal((8, 3, 16), seed=2)]
    labels = (np.arange(24).reshape(8, 3) % 2).astype("float32")

    losses = model.fit(inputs, labels, epochs=30, verbose=0).history["loss"]
    model.save(reader.directory / "model.keras")

    assert losses[-1] < losses[0]
    again = keras.models.load_model(reader.directory / "model.keras")
    np.testing.assert_allclose(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0), rtol=1e-6)


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _rows(directory: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(directory).to_pylist(), key=lambda row: (row["user_id"], row["shown_at"]))
