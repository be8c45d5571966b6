"""The example of retrieval beside ranking, on a small data set, with a real server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.workbench import ROOT, small_features
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.errors import UserError
from tfctr.export.op_check import check_ops
from tfctr.export.saved_model import export_model
from tfctr.training.experiment import Experiment
from tfctr.training.workspace import finished_run, train_in_workspace

pytestmark = pytest.mark.e2e
EXAMPLE = ROOT / "examples" / "retrieve_and_rank.py"
ITEMS, HISTORY = 600, 20
EXPERIMENT = Experiment.model_validate(
    {"preset": "dmf", "training": {"epochs": 2, "learning_rate": 0.01, "jit_compile": False, "seed": 3}}
)


@dataclass(frozen=True)
class Ran:
    """What a run of the example printed and wrote, and the data and the ranker that it was given."""

    output: str
    index: Path
    data: Path
    ranker: Path

    def number(self, pattern: str) -> float:
        found = re.search(pattern, self.output)
        assert found, f"no {pattern!r} in {self.output}"
        return float(found[1])


def example(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLE, *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    directory = tmp_path_factory.mktemp("retrieval")
    data, ranker = directory / "data", directory / "ranker"
    settings = Settings(rows=6000, users=200, items=ITEMS, history_length=HISTORY, vector_width=12, seed=5)
    synthesize(data, settings)
    train_in_workspace(small_features(HISTORY), EXPERIMENT, data, directory / "run")
    run = finished_run(directory / "run")
    export_model(run.model, run.assets, run.experiment, ranker / "1", history=run.history)
    done = example(data, ranker, directory / "out", "--users", 60)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return Ran(done.stdout, directory / "out" / "retrieval" / "1", data, ranker)


def ask(ran: Ran, *users: tuple[int, list[int], int]) -> dict[str, np.ndarray[Any, Any]]:
    """The answer of the index for users, their padded histories, and the lengths of these."""
    names = ("user_id", "history_item_id", "history_length")
    columns = {
        name: tf.constant(values, tf.int64) for name, values in zip(names, zip(*users, strict=True), strict=True)
    }
    answer = tf.saved_model.load(str(ran.index)).signatures["serving_default"](**columns)
    return {name: tensor.numpy() for name, tensor in answer.items()}


def test_it_retrieves_500_and_ranks_them(ran: Ran) -> None:
    assert f"{ITEMS} items in the index" in ran.output
    best = re.findall(r"^  (0\.\d{3})  retrieved as +(\d+)  \S", ran.output, re.MULTILINE)
    assert "the best 10 of 500 candidates" in ran.output
    assert len(best) == 10
    assert [p for p, _ in best] == sorted((p for p, _ in best), reverse=True)
    assert len({place for _, place in best}) == 10
    assert all(1 <= int(place) <= 500 for _, place in best)
    assert ran.number(r"retrieve ([\d.]+) ms") > 0
    assert ran.number(r"rank ([\d.]+) ms") > 0


def test_both_orders_find_clicks_better_than_chance(ran: Ran) -> None:
    chance = ran.number(r"at random: +hit rate@10 ([\d.]+)")
    for order in ("as retrieved", "as ranked"):
        assert chance < ran.number(rf"{order}: +hit rate@10 ([\d.]+)") <= 1
        assert 0.5 < ran.number(rf"{order}: +hit rate.*over ([\d.]+)") <= 1


def test_tensorflow_serving_can_load_and_batch_the_index(ran: Ran) -> None:
    check_ops(ran.index)


def test_the_answers_are_known_items_best_first(ran: Ran) -> None:
    answer = ask(ran, (1, [3, 5], 2), (2, [7, 11], 2))
    assert answer["item_id"].dtype == np.int64
    assert answer["item_id"].shape == answer["score"].shape == (2, 500)
    lines = (ran.data / "items.csv").read_text(encoding="utf-8").splitlines()[1:]
    catalogue = {int(line.split(",")[0]) for line in lines}
    for items, scores in zip(answer["item_id"].tolist(), answer["score"], strict=True):
        assert len(set(items)) == 500
        assert set(items) <= catalogue
        assert (np.diff(scores) <= 0).all()
    assert answer["item_id"][0].tolist() != answer["item_id"][1].tolist()


def test_unknown_ids_and_empty_histories_have_an_answer(ran: Ran) -> None:
    unknown = ask(ran, (-5, [3, 5], 2), (10**12, [3, 5], 2), (1, [10**12, -1], 2), (1, [0, 0], 0))
    assert np.isfinite(unknown["score"]).all()
    np.testing.assert_array_equal(unknown["item_id"][0], unknown["item_id"][1])


def test_padding_and_the_other_rows_of_a_batch_change_nothing(ran: Ran) -> None:
    alone, padded = ask(ran, (1, [3], 1)), ask(ran, (1, [3, 5, 9], 1), (2, [7, 11, 13], 3))
    np.testing.assert_allclose(alone["score"][0], padded["score"][0], rtol=1e-4, atol=1e-5)
    assert (alone["item_id"][0] == padded["item_id"][0]).mean() > 0.99  # equal scores may change places


def test_it_says_what_is_wrong(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = example(ran.data, tmp_path, tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}: no version of a model; ")

    spec = importlib.util.spec_from_file_location("retrieve_and_rank", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def error(*arguments: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["retrieve_and_rank.py", *map(str, arguments)])
        with pytest.raises(UserError) as raised:
            module.main()
        return str(raised.value)

    assert error(ran.data, ran.ranker, tmp_path) == f"{tmp_path} exists; name a new directory, or remove it"
    assert error(ran.data, ran.ranker, tmp_path / "out", "--users", 0) == "--users must be at least 1. Received: 0"
    shutil.copy(ran.data / "items.csv", tmp_path)
    assert "/train: no file of a log" in error(tmp_path, ran.ranker, tmp_path / "out")
