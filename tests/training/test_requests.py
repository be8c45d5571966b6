"""Batches of requests and of users: the rows, loss, gradients and metrics of row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typing_extensions import override

from tests.training.runs import BATCH, run, small_experiment
from tests.training.test_loop import Killed, kill_after
from tests.weighted_rows import MISSING_GROUPS, Scorer, feature_file, ranking_data
from tests.workbench import Workbench
from tfctr.data.columnar import RowCopy, write_copy
from tfctr.errors import UserError
from tfctr.features.columns import CANDIDATE_MASK, InputSpec
from tfctr.features.inputs import model_inputs
from tfctr.layers.dropout import Dropout
from tfctr.metrics.table import METRICS
from tfctr.models import RankingModel
from tfctr.training.dataset import RankingData
from tfctr.training.experiment import Experiment, changed
from tfctr.training.loop import validate
from tfctr.training.requests import RequestData, UserData


@pytest.fixture(scope="module")
def requests(workbench: Workbench) -> RequestData:
    rows = workbench.split("valid")
    return RequestData(rows.copy, rows.file)


@pytest.fixture(scope="module")
def users(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> UserData:
    """The rows of each request, shown at several times."""
    rows = workbench.split("valid")
    piece = RowCopy(rows.copy, rows.file).take(np.arange(len(rows)), groups=True)
    later = np.random.default_rng(0).integers(0, 3, len(rows))
    piece["timestamp"] += 86_400 * 10**later
    piece["timestamp_hour"] //= 1 + later.astype(np.int32)
    copy = tmp_path_factory.mktemp("users") / "copy"
    write_copy(copy, rows.file, [piece])
    return UserData(copy, rows.file)


@pytest.fixture(params=["requests", "users"])
def data(request: pytest.FixtureRequest) -> RequestData:
    found: RequestData = request.getfixturevalue(request.param)
    return found


def row_by_row(data: RequestData) -> RankingData:
    return RankingData(data.copy, data.file)


def of_candidates(spec: InputSpec, value: np.ndarray, count: int) -> np.ndarray:
    """An input with a value for each candidate, [B, C, ...]."""
    wide = value[:, None] if spec.side == "user" else value
    return np.broadcast_to(wide, (len(value), count, *spec.shape))


def arrays(batches: Any) -> list[Any]:
    return list(batches.as_numpy_iterator())


def as_rows(data: RequestData, batch: Any) -> Any:
    """The candidates of a batch, each as a row with its own copy of what they share."""
    inputs, *others = batch
    real = inputs[CANDIDATE_MASK]
    found = {}
    for spec in model_inputs(data.file):
        per_row = of_candidates(spec, inputs[spec.name], real.shape[1])[real]
        found[spec.name] = per_row[:, None] if spec.side in ("candidate", "bias") else per_row
    return found, *(value[real][:, None] for value in others)


def fingerprints(inputs: dict[str, np.ndarray], *beside: np.ndarray) -> list[bytes]:
    columns = [*(inputs[name] for name in sorted(inputs)), *beside]
    return [
        b"".join(np.ascontiguousarray(column[row]).tobytes() for column in columns) for row in range(len(beside[0]))
    ]


def rows_of(data: RequestData, batches: Any) -> list[bytes]:
    return [one for batch in arrays(batches) for one in fingerprints(*as_rows(data, batch))]


def test_every_row_is_one_candidate_once(data: RequestData) -> None:
    plain = [one for batch in arrays(row_by_row(data).batches(64)) for one in fingerprints(*batch)]
    for seed in (None, 3):
        assert sorted(rows_of(data, data.batches(64, seed))) == sorted(plain)


def test_the_seed_gives_the_order_and_skip_goes_on_in_it(data: RequestData) -> None:
    whole = arrays(data.batches(32, 7))
    assert len(whole) > 3
    orders = [[batch[0]["item_id"].tobytes() for batch in arrays(data.batches(32, seed))] for seed in (7, 7, 8, None)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3]
    assert [batch[0]["item_id"].tobytes() for batch in arrays(data.batches(32, 7, skip=2))] == orders[0][2:]


def test_places_without_a_row_weigh_nothing_and_read_no_other_row_of_a_table(data: RequestData) -> None:
    """A row that only padding reads would be a row of the batch for an optimizer of the rows that are read."""
    padded = 0
    for inputs, labels, weights in arrays(data.batches(40, 1)):
        real = inputs[CANDIDATE_MASK]
        padded += int((~real).sum())
        assert not labels[~real].any()
        assert not weights[~real].any()
        assert not inputs["history_length"][~real.any(axis=1)].any()
        for spec in model_inputs(data.file):
            if spec.name != "history_length":
                shared = spec.side in data.shared
                held = inputs[spec.name][real.any(axis=1) if shared else real]
                axes = inputs[spec.name].ndim - len(spec.shape)
                every = inputs[spec.name].reshape(-1, *inputs[spec.name].shape[axes:])
                assert {one.tobytes() for one in every} <= {one.tobytes() for one in held}, spec.name
    assert padded


def test_rows_of_a_user_share_the_history_and_keep_their_contexts(users: UserData) -> None:
    several = 0
    for inputs, *_ in arrays(users.batches(40)):
        real = inputs[CANDIDATE_MASK]
        for spec in model_inputs(users.file):
            axes = inputs[spec.name].ndim - len(spec.shape)
            assert inputs[spec.name].shape[:axes] == (real.shape[:1] if spec.side == "user" else real.shape), spec.name
        several += sum(len(set(times[mask])) > 1 for times, mask in zip(inputs["timestamp"], real, strict=True))
    assert several > 10


def test_equal_rows_of_the_log_are_one_request_wherever_they_stand(tmp_path: Path) -> None:
    """Users 1 and 2 are out of vocabulary and so the same to the model, as are the rows without a user."""
    rows = ranking_data(tmp_path, MISSING_GROUPS, feature_file("user_id"))
    data = RequestData(rows.copy, rows.file)
    batches = arrays(data.batches(100, groups=True))
    assert sorted(size for inputs, *_ in batches for size in inputs[CANDIDATE_MASK].sum(axis=1)) == [2, 7]
    found = [
        (group, label, weight)
        for inputs, *others in batches
        for label, weight, group in zip(*(one[inputs[CANDIDATE_MASK]] for one in others), strict=True)
    ]
    expected = [(-(2**63) if user is None else user, label, weight) for user, _, label, weight in MISSING_GROUPS]
    assert sorted(found) == sorted(expected)


def test_a_person_is_told_what_there_is_to_share(requests: RequestData, users: UserData, tmp_path: Path) -> None:
    told = "158 rows in {}; batches of {} shapes, {}% of them padding".format
    assert requests.sharing(64) == told("20 requests, 7.9 candidates in each", 2, 17)
    # Two requests of one user have the same history, since nothing was clicked between them.
    assert users.sharing(64) == told("19 states of users, 8.3 candidates in each", 3, 22)
    assert RequestData(users.copy, users.file).sharing(64) == told("54 requests, 2.9 candidates in each", 3, 18)
    alone = [(1, score, label, 1) for score, label in ((1, 0), (2, 1))]
    rows = ranking_data(tmp_path, alone, feature_file())
    assert RequestData(rows.copy, rows.file).sharing(1) == (
        "2 rows in 2 requests, 1.0 candidates in each; batches of 1 shape, 0% of them padding; there is next to "
        "nothing to share, so training.batch_of=rows is as fast"
    )
    assert rows.sharing(64) is None


@pytest.mark.parametrize("kind", [RequestData, UserData])
@pytest.mark.parametrize("size", [2, 3, 100])
def test_validation_says_the_same(tmp_path: Path, size: int, kind: type[RequestData]) -> None:
    rows = ranking_data(tmp_path, MISSING_GROUPS, feature_file("user_id"))
    expected = validate(Scorer(), rows, size)
    assert {"auc", "gauc", "ungrouped"} <= expected.keys()

    class NothingWithoutRows(Scorer):
        @override
        def call(self, inputs: Any) -> Any:
            return tf.where(inputs[CANDIDATE_MASK], super().call(inputs), np.nan)

    found = validate(NothingWithoutRows(), kind(rows.copy, rows.file), size)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hstu", "dmqn", "qnn-alpha", "dmf-gated", "deepfm"])
def test_validation_of_a_model_says_the_same(
    workbench: Workbench, requests: RequestData, users: UserData, name: str
) -> None:
    model = workbench.model(name)
    for data in (requests, users):
        assert validate(model, data, 40) == pytest.approx(validate(model, row_by_row(data), 40), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["din", "dmf", "hstu", "dmqn", "qnn-alpha", "dmf-gated", "deepfm"])
def test_loss_and_gradients_are_those_of_the_rows(workbench: Workbench, data: RequestData, name: str) -> None:
    model = without_dropout(workbench.model(name))
    batch = next(one for one in arrays(data.batches(64, 1)) if not one[0][CANDIDATE_MASK].all())
    start = [np.asarray(weight) for weight in model.variables]
    results = []
    for source, one in ((data, batch), (row_by_row(data), as_rows(data, batch))):
        for weight, value in zip(model.variables, start, strict=True):
            weight.assign(value)
        results.append(
            (*loss_and_gradients(model, source, one), [np.asarray(one) for one in model.non_trainable_variables])
        )
    (loss, gradients, statistics), (expected, of_rows, of_statistics) = results
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    scale = max(np.abs(gradient).max() for gradient in of_rows)
    assert scale > 1e-3
    for weight, left, right in zip(model.trainable_variables, gradients, of_rows, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=3e-6 * scale, err_msg=weight.path)
    for weight, left, right in zip(model.non_trainable_variables, statistics, of_statistics, strict=True):
        # Codewords and their figures follow the events that `encode` sees, each history's once.
        if "codebook" not in weight.path and weight.dtype == "float32":
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6, err_msg=weight.path)


def without_dropout(model: RankingModel) -> RankingModel:
    for layer in model._flatten_layers():
        if isinstance(layer, Dropout):
            layer.rate = 0.0
    return model


def loss_and_gradients(model: RankingModel, data: RankingData, batch: Any) -> tuple[Any, list[np.ndarray]]:
    """Of a step whose shapes are as little known as those of the data."""

    @tf.function(input_signature=data._signature(groups=False))
    def step(inputs: Any, labels: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, labels, model(inputs, training=True), weights)
        return loss, tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    loss, gradients = step(*batch)
    return loss.numpy(), [np.asarray(tf.convert_to_tensor(gradient)) for gradient in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("batch_of", ["requests", "users"])
def test_a_killed_run_goes_on_in_the_same_order(
    tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch_of: str
) -> None:
    experiment = small_experiment(epochs=1, batch_of=batch_of, checkpoint_steps=2)
    whole = run(tiny, experiment, tmp_path / "whole")
    assert "candidates in each; batches of" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            run(tiny, experiment, tmp_path / "killed")
    again = run(tiny, experiment, tmp_path / "killed")
    # Validation went over them too.
    of_rows = validate(again.model, tiny.split("valid"), BATCH)
    for name in METRICS.keys() & of_rows.keys():
        assert again.progress.history[0][name] == pytest.approx(of_rows[name], abs=1e-6), name
    assert again.progress.history[0]["auc"] == pytest.approx(whole.progress.history[0]["auc"], abs=1e-6)
    for left, right in zip(again.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-5, atol=1e-6)


def test_the_switch_has_three_places() -> None:
    with pytest.raises(UserError, match=r"training\.batch_of: .*'rows', 'requests' or 'users'"):
        changed(Experiment(), ["training.batch_of=user"])
