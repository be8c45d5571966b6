"""The client requests scores over gRPC from the embedded server, which serves a real exported model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.server import Server
from tests.workbench import PRESETS, Workbench
from tfctr.client import BadRequestError, MemoryStateCache, RankingClient, StateRejectedError, UserState

pytestmark = pytest.mark.e2e
ROWS = 8


@pytest.fixture(scope="module", params=PRESETS)
def served(request: pytest.FixtureRequest, exported: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    with Server(exported[request.param].parent, "ranking") as server:
        yield server.address, exported[request.param]


@pytest.fixture
def impressions(workbench: Workbench) -> list[dict[str, Any]]:
    """Rows of the log as a service has them: Python values, and histories as lists without padding."""
    raw = workbench.raw("test", ROWS)
    found = []
    for row in range(ROWS):
        length = raw["history_length"][row]
        values = {name: column[row] for name, column in raw.items() if name != "history_length"}
        found.append({n: v[:length].tolist() if np.ndim(v) else v for n, v in values.items()})
    return found


def split(workbench: Workbench, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    file = workbench.file
    user = {n: v for n, v in row.items() if n in file.user or n in file.sequences["history"].fields}
    candidate = {n: v for n, v in row.items() if n in file.candidate}
    return user, candidate, {"timestamp": row["timestamp"]}


def test_the_client_gets_what_serving_default_says(
    served: tuple[str, Path], workbench: Workbench, impressions: list[dict[str, Any]]
) -> None:
    address, directory = served
    examples = tf.constant(workbench.serialized("test", ROWS))
    loaded = tf.saved_model.load(str(directory))
    expected = loaded.signatures["serving_default"](examples)["probabilities"].numpy()
    with RankingClient(address, timeout_seconds=30) as client:
        answered = []
        for row in impressions:
            user, candidate, context = split(workbench, row)
            state = client.user_state(user)
            answered.append(client.score(state, [candidate], context)[0])
    np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-6)


def test_a_state_is_cached_and_a_corrupt_one_refused(
    served: tuple[str, Path], workbench: Workbench, impressions: list[dict[str, Any]]
) -> None:
    address, _ = served
    user, _, context = split(workbench, impressions[0])
    candidates = [split(workbench, row)[1] for row in impressions]
    cache = MemoryStateCache()
    with RankingClient(address, timeout_seconds=30, cache=cache) as client:
        ranked = client.rank(user, candidates, context, k=3, user_key="u", history_version=1)
        assert [one.probability for one in ranked] == sorted((one.probability for one in ranked), reverse=True)
        # With a cached state, the ranking does not need the features of the user.
        assert client.rank(None, candidates, context, k=3, user_key="u", history_version=1) == ranked
        for nothing in (None, {}):
            with pytest.raises(BadRequestError, match="reads features of the user"):
                client.rank(nothing, candidates, context, k=3, user_key="u", history_version=2)
        assert client.rank(user, candidates, context, k=3, user_key="u", history_version=2) == ranked
        assert client.rank({}, candidates, context, k=3) != ranked
        state = client.user_state(user)
        tampered = dict(state.tensors) | {"model_tag": state.tensors["model_tag"] + 1}
        with pytest.raises(StateRejectedError):
            client.score(UserState(state.model, state.version, state.fingerprint, tampered), candidates, context)
        # A feature that this version does not know is left out and counted, so that a roll-out breaks no client.
        known = client.score(state, candidates, context)
        newer = [{**candidate, "price_in_2031": 1.0} for candidate in candidates]
        np.testing.assert_array_equal(client.score(state, newer, context), known)
        assert any("price_in_2031" in name for names in client.dropped_features.values() for name in names)


def test_five_hundred_candidates_and_none(
    served: tuple[str, Path], workbench: Workbench, impressions: list[dict[str, Any]]
) -> None:
    address, _ = served
    user, candidate, context = split(workbench, impressions[0])
    with RankingClient(address, timeout_seconds=30) as client:
        assert client.rank(user, [], context) == []
        probabilities = client.score(client.user_state(user), [candidate] * 500, context)
        assert probabilities.shape == (500,)
        np.testing.assert_allclose(probabilities, probabilities[0], rtol=0, atol=1e-6)
