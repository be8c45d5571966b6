"""Dynamic batching: cases C35 to C39, and the configuration file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.server import Server
from serving.server.config import ConfigError
from serving.server.options import BatchingOptions, read_batching
from tests.serving.conftest import NAME, PATIENCE, Caller
from tests.serving.model import HISTORY, ITEMS, WIDTH
from tests.serving.requests import ECHO

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
# A batch timeout in seconds that lets concurrent requests meet in a batch even on a slow machine. The batches in these
# tests become full, so that no test waits for this timeout.
LONG = 20.0


@contextmanager
def _serve(base_path: Path, **options: Any) -> Iterator[tuple[Server, Caller]]:
    with Server(base_path, NAME, batching=BatchingOptions(**options)) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def _score(rows: int, candidates: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "user_vector": random.normal(size=(rows, WIDTH)).astype(np.float32),
        "model_tag": np.ones(rows, np.int64),
        "item_id": random.integers(0, 200, (rows, candidates)),
    }


def _together(caller: Caller, requests: list[dict[str, np.ndarray]], signature: str = "score") -> list[Any]:
    """The outputs or the errors of concurrent requests."""

    def ask(inputs: dict[str, np.ndarray]) -> Any:
        try:
            return caller.run(signature, inputs)
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def test_c39_a_batch_scores_as_single_requests_do(base_path: Path, caller: Caller) -> None:
    requests = [_score(1, 7, seed) for seed in range(3)] + [_score(2, 7, 9)]
    expected = [caller.run("score", inputs)["probabilities"] for inputs in requests]
    with _serve(base_path, max_batch_size=5, timeout_seconds=LONG, num_batch_threads=1) as (server, batched):
        answers = _together(batched, requests)
        page = server._metrics.page()
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-6)
    # All five rows ran in one batch.
    assert ":tensorflow:serving:batching_session:processed_batch_size_sum 5\n" in page
    assert ":tensorflow:serving:batching_session:processed_batch_size_count 1\n" in page


def test_c39_filled_up_to_an_allowed_size(base_path: Path, caller: Caller) -> None:
    inputs = _score(3, 4)
    expected = caller.run("score", inputs)["probabilities"]
    with _serve(base_path, max_batch_size=8, allowed_batch_sizes=(2, 8)) as (server, batched):
        np.testing.assert_allclose(batched.run("score", inputs)["probabilities"], expected, atol=1e-6)
        assert ":tensorflow:serving:batching_session:padding_size_sum 5\n" in server._metrics.page()
        assert batched.run("score", _score(0, 4))["probabilities"].shape == (0, 4)


def test_c35_no_common_dimension(base_path: Path) -> None:
    with _serve(base_path) as (_, caller):
        (unequal,) = _together(caller, [{**_score(1, 3), "model_tag": np.ones(2, np.int64)}])
        assert unequal.code() is Code.INVALID_ARGUMENT
        assert "Batching Run() input tensors must have equal 0th-dimension size" in unequal.details()
        (scalar,) = _together(caller, [{**_score(1, 3), "model_tag": np.int64(1)}])
        assert scalar.code() is Code.INVALID_ARGUMENT
        assert "Batching Run() input tensors must have at least one dimension" in scalar.details()


def test_c36_padded_to_the_most_candidates(base_path: Path, caller: Caller) -> None:
    requests = [_score(1, 6, 1), _score(1, 4, 2)]
    expected = [caller.run("score", inputs)["probabilities"] for inputs in requests]
    with _serve(base_path, max_batch_size=2, timeout_seconds=LONG, pad_variable_length_inputs=True) as (_, batched):
        answers = _together(batched, requests)
    for answer, wanted in zip(answers, expected, strict=True):
        # The outputs keep the padding, and their other values are right.
        assert answer["probabilities"].shape == (1, 6)
        np.testing.assert_allclose(answer["probabilities"][:, : wanted.shape[1]], wanted, atol=1e-6)


def test_what_is_too_different_to_be_padded_runs_alone(base_path: Path) -> None:
    """Each is small; padded to a common shape they would have sixteen million elements."""
    wide, high = (
        {**ECHO, "int32": np.zeros(shape, np.int32), "text": np.full((1, 1), b"", object)}
        for shape in ((1, 4000, 1), (1, 1, 4000))
    )
    with _serve(base_path, max_batch_size=2, timeout_seconds=LONG, pad_variable_length_inputs=True) as (_, caller):
        answers = _together(caller, [wide, high], "echo")
    assert [answer["int32"].shape for answer in answers] == [(1, 4000, 1), (1, 1, 4000)]


def test_other_numbers_of_candidates_do_not_meet(base_path: Path, caller: Caller) -> None:
    """TensorFlow Serving joins them if it does not pad, and each of them fails because of the others."""
    requests = [_score(1, 6, 1), _score(1, 4, 2), _score(1, 6, 3), _score(1, 4, 4)]
    expected = [caller.run("score", inputs)["probabilities"] for inputs in requests]
    with _serve(base_path, max_batch_size=2, timeout_seconds=LONG, num_batch_threads=1) as (server, batched):
        answers = _together(batched, requests)
        page = server._metrics.page()
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-6)
    assert ":tensorflow:serving:batching_session:processed_batch_size_count 2\n" in page


def test_a_bad_request_fails_alone(base_path: Path) -> None:
    with _serve(base_path, max_batch_size=3, timeout_seconds=LONG, num_batch_threads=1) as (_, caller):
        rows = [{"row": np.array([row])} for row in (1, ITEMS, 2)]
        good, bad, other = _together(caller, rows, "lookup")
    assert (good["vector"].shape, other["vector"].shape) == ((1, WIDTH), (1, WIDTH))
    assert bad.code() is Code.INVALID_ARGUMENT
    assert f"indices[0] = {ITEMS} is not in" in bad.details()


def test_c37_full_queue(base_path: Path) -> None:
    options = {"max_batch_size": 2, "timeout_seconds": LONG, "max_enqueued_batches": 1, "num_batch_threads": 1}
    with _serve(base_path, **options) as (_, caller):
        user = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
        two_rows = {name: np.repeat(value, 2, 0) for name, value in user.items()}
        with ThreadPoolExecutor(1) as pool:
            # One row waits for a second one. Two more rows do not fit in its batch, and only one batch may wait.
            waiting = pool.submit(caller.run, "user_tower", user)
            refused = None
            while refused is None:
                # As long as the first request has not arrived, the two rows are a full batch and are answered.
                (answer,) = _together(caller, [two_rows], "user_tower")
                refused = answer if isinstance(answer, grpc.RpcError) else None
            assert not waiting.done()
            assert refused.code() is Code.UNAVAILABLE
            assert "The batch scheduling queue to which this task was submitted is full" in refused.details()
            assert int(caller.run("user_tower", user)["model_tag"][0]) == 1
            assert int(waiting.result()["model_tag"][0]) == 1


def test_c38_more_rows_than_a_batch(base_path: Path) -> None:
    with _serve(base_path, max_batch_size=4) as (_, caller):
        (error,) = _together(caller, [_score(5, 2)])
        assert error.code() is Code.INVALID_ARGUMENT
        assert "Task size 5 is larger than maximum input batch size 4" in error.details()


def test_an_output_without_rows_is_refused(base_path: Path) -> None:
    with _serve(base_path) as (_, caller):
        (error,) = _together(caller, [{"steps": np.array([1, 1])}], "slow")
        assert error.code() is Code.FAILED_PRECONDITION
        assert "0th dimension does not equal the sum" in error.details()


def test_expired_requests_do_not_run(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _serve(base_path, max_batch_size=2, timeout_seconds=0.2, num_batch_threads=1) as (server, caller):
        ran = threading.Event()
        model = server._models.managers[NAME]._latest
        assert model is not None
        assert model.model is not None
        monkeypatch.setattr(model.model.session, "run", lambda *_: ran.set())
        with pytest.raises(grpc.RpcError) as caught:
            caller.run("score", _score(1, 2), timeout=0.1)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        batcher = server._batcher
        assert batcher is not None
        batcher.stop()
        for thread in batcher.threads:
            thread.join(timeout=PATIENCE)
        assert not ran.is_set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 4 } allowed_batch_sizes: 2", "Last entry in allowed_batch_sizes must match"),
        ("max_batch_size { value: 4 } allowed_batch_sizes: 4 allowed_batch_sizes: 2", "monotonically increasing"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be at least 1"),
        ("batch_timeout_micros { value: -1 }", "must not be negative"),
        ("max_size: 3", "is no BatchingParameters in text form"),
    ],
)
def test_bad_parameters(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_batching(file)


def test_parameters(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 8 } "
        "num_batch_threads { value: 3 } allowed_batch_sizes: 8 allowed_batch_sizes: 32 pad_variable_length_inputs: true"
    )
    assert read_batching(file) == BatchingOptions(32, 0.002, 8, 3, (8, 32), True)
