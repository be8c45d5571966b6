"""The client with the embedded server, which runs requests in a TensorFlow session."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.server import Server
from tests.client.connect import Connect
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tests.client.test_flight import until
from tfctr.client import BadRequestError, BadRowError, ModelNotFoundError, RankingClient, StateRejectedError, UserState

pytestmark = pytest.mark.e2e


@pytest.fixture
def base(tmp_path: Path, toy_models: Path) -> Path:
    base = tmp_path / "ranking"
    base.mkdir()
    _publish(toy_models, base, 1)
    return base


def _publish(toy_models: Path, base: Path, version: int) -> None:
    shutil.copytree(toy_models / str(version), base / f"tmp-{version}")
    (base / f"tmp-{version}").rename(base / str(version))


@pytest.fixture(params=[True, False], ids=["content", "fields"])
def server(base: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(base, "ranking", tensor_content=request.param, poll_seconds=0.2) as server:
        yield server


def _versions(client: RankingClient) -> set[int]:
    return {status.version for status in client.model_status() if status.state == "AVAILABLE"}


def test_ranks_refuses_and_explains(server: Server, connect: Connect) -> None:
    with connect(server.address, timeout_seconds=30) as client:
        ranked = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        again = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        assert ranked == again
        np.testing.assert_allclose([r.probability for r in ranked], EXPECTED[[2, 0, 1]], rtol=1e-6)
        with pytest.raises(BadRowError, match="rows 1"):
            client.rank(USER, [{"item_id": 1}, {"price": -1.0}], CONTEXT)
        state = client.user_state(USER)
        forged = dict(state.tensors) | {"model_tag": np.array([0])}
        with pytest.raises(StateRejectedError):
            client.score(UserState(state.model, state.version, state.fingerprint, forged), CANDIDATES, CONTEXT)
        misshapen = dict(state.tensors) | {"user/fields": np.zeros((1, 9), np.float32)}
        with pytest.raises(BadRequestError, match="score of model 'ranking' version 1"):
            client.score(
                UserState(state.model, state.version, state.fingerprint, misshapen | {"history/interest": np.zeros(3)}),
                CANDIDATES,
            )
        assert _versions(client) == {1}
    with connect(server.address, "other", 30) as client, pytest.raises(ModelNotFoundError, match="other"):
        client.rank(USER, CANDIDATES)


def test_a_version_switch_under_load_never_mixes(base: Path, toy_models: Path, connect: Connect) -> None:
    """Each answer equals that of a single version. With a state of the other version, it would be NaN."""
    allowed: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    errors: list[Exception] = []
    stop = threading.Event()
    with (
        Server(base, "ranking", num_versions=1, poll_seconds=0.1) as server,
        connect(server.address, timeout_seconds=30, refresh_seconds=0.2, chunk_size=2) as client,
    ):
        allowed.append(client.score(client.user_state(USER), CANDIDATES, CONTEXT))

        def work(cached: bool) -> None:
            key = {"user_key": "u5", "history_version": 1} if cached else {}
            with connect(server.address, timeout_seconds=30, refresh_seconds=0.2, chunk_size=2) as client:
                while not stop.is_set():
                    try:
                        ranked = client.rank(USER, CANDIDATES, CONTEXT, **key)
                        ranked.sort(key=lambda one: one.index)
                        answers.append(np.array([one.probability for one in ranked], np.float32))
                    except Exception as error:
                        errors.append(error)
                    time.sleep(0.005)

        threads = [threading.Thread(target=work, args=(cached,)) for cached in (True, False)]
        [t.start() for t in threads]
        until(lambda: bool(errors) or len(answers) > 20)
        _publish(toy_models, base, 2)
        until(lambda: _versions(client) == {2})
        allowed.append(client.score(client.user_state(USER), CANDIDATES, CONTEXT))
        until(lambda: bool(errors) or all(np.array_equal(answer, allowed[1]) for answer in answers[-20:]))
        stop.set()
        [t.join() for t in threads]
    assert not errors, errors[0]
    assert not np.array_equal(*allowed)
    seen = [sum(np.array_equal(answer, one) for answer in answers) for one in allowed]
    assert sum(seen) == len(answers)
    assert min(seen) > 0
