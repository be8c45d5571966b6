"""The client with a model that reads nothing of a user: it has no user_tower, and score takes no state."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, USER
from tests.client.toy_model import UserlessToyModel, export_toy_model
from tfctr.client import BadRequestError, BadRowError, ModelNotFoundError, RankingClient

ITEMS = {"item_id": [1, 3, 2]}
CONTEXT = {"timestamp": 36}
EXPECTED = 1 / (1 + np.exp(-(np.array([1, 3, 2], np.float32) / 50 + 0.05)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, model = tmp_path_factory.mktemp("userless"), UserlessToyModel()
    tf.saved_model.save(model, str(root / "1"), signatures={"score": model.score})
    export_toy_model(root / "2")
    return root


@pytest.fixture
def server(models: Path) -> Iterator[StubServer]:
    with StubServer() as stub:
        stub.load(1, models / "1")
        yield stub


@pytest.fixture
def client(server: StubServer, connect: Connect) -> Iterator[RankingClient]:
    with connect(server.target, timeout_seconds=300) as found:
        yield found


def test_ranks_and_scores_without_user_and_state(client: RankingClient, server: StubServer) -> None:
    np.testing.assert_allclose(client.score(None, ITEMS, CONTEXT), EXPECTED, rtol=1e-6)
    ranked = client.rank(None, ITEMS, CONTEXT, k=2)
    assert [one.index for one in ranked] == [1, 2]
    np.testing.assert_allclose([one.probability for one in ranked], EXPECTED[[1, 2]], rtol=1e-6)
    assert server.calls == {"metadata": 1, "score": 2}
    assert set(server.requests["score"].inputs) == {"item_id", "timestamp"}


def test_a_user_is_left_out_and_counted(client: RankingClient, server: StubServer) -> None:
    """As any feature that a version does not have, so that one client serves versions with users and without."""
    ranked = client.rank({"user_id": 5}, ITEMS, CONTEXT, user_key=5, history_version=1)
    assert [one.index for one in ranked] == [1, 2, 0]
    assert client.rank({}, ITEMS, CONTEXT) == ranked
    assert client.dropped_features == {1: {"user.user_id": 1}}
    assert server.calls["user_tower"] == 0
    assert client.counts.keys() == {"score", "dropped_features"}


def test_a_strict_client_refuses_a_user(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, strict=True) as client:
        with pytest.raises(BadRequestError, match="user: model 'ranking' version 1 has no feature of this name here"):
            client.rank({"user_id": 5}, ITEMS, CONTEXT)
        assert len(client.rank(None, ITEMS, CONTEXT)) == 3


def test_there_is_no_state(client: RankingClient) -> None:
    with pytest.raises(BadRequestError, match=r"version 1 reads nothing of a user.*Give score\(\) None"):
        client.user_state({})


def test_every_bad_candidate_is_a_bad_row(client: RankingClient) -> None:
    with pytest.raises(BadRowError, match="refused 2 of 2 candidates"):
        client.rank(None, {"item_id": [-1, -2]}, CONTEXT)


def test_a_model_with_users_needs_one(client: RankingClient, server: StubServer, models: Path) -> None:
    server.unload(1)
    server.load(2, models / "2")
    for ask in (client.score, client.rank):
        with pytest.raises(BadRequestError, match=r"version 2 reads features of the user.*Received: no feature"):
            ask(None, CANDIDATES)


def test_follows_versions_with_and_without_users(client: RankingClient, server: StubServer, models: Path) -> None:
    state_of = {"user_key": 5, "history_version": 1}
    assert len(client.rank(USER, ITEMS, CONTEXT, **state_of)) == 3
    server.load(2, models / "2")
    server.unload(1)
    assert len(client.rank(USER, ITEMS, CONTEXT, **state_of)) == 3
    assert server.versions_asked["score"][-1] == 2
    state = client.user_state(USER)
    server.unload(2)
    server.load(3, models / "1")
    assert len(client.rank(USER, ITEMS, CONTEXT, **state_of)) == 3
    with pytest.raises(ModelNotFoundError):
        client.score(state, ITEMS, CONTEXT)
