import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.toy_model import toy_probabilities
from tfctr.client import (
    AsyncRankingClient,
    BadRequestError,
    BadRowError,
    ClientError,
    CodecError,
    DeadlineError,
    MemoryStateCache,
    ModelNotFoundError,
    OverloadedError,
    RankingClient,
    ServerError,
    StateRejectedError,
    UnavailableError,
    UnsupportedModelError,
    UserState,
)

USER = {
    "user_id": 5,
    "gender": "F",
    "age": 20.0,
    "history_item_id": [10, 20],
    "history_genres": [["Action", "War"], "Drama"],
}
CANDIDATES = [
    {"item_id": 1, "genres": "Action|War", "price": 0.5},
    {"item_id": 2, "genres": ["Drama"]},
    {"item_id": 3, "price": 1.5},
]
CONTEXT = {"timestamp": 36}
EXPECTED = toy_probabilities(
    interest=(10 + 20) / 100 + (10 + 5) / 100,
    user_fields=0.5 + 1 + 0.2,
    hour=0.5,
    items=[1, 2, 3],
    prices=[0.5, 0.25, 1.5],
    tokens=[10, 5, 0],
)


@pytest.fixture
def client(server: StubServer, connect: Connect) -> Iterator[RankingClient]:
    with connect(server.target, timeout_seconds=300) as found:
        yield found


def test_ranks_by_probability(client: RankingClient, server: StubServer) -> None:
    ranked = client.rank(USER, CANDIDATES, CONTEXT)
    assert [r.index for r in ranked] == [2, 0, 1]
    assert [r.candidate for r in ranked] == [CANDIDATES[2], CANDIDATES[0], CANDIDATES[1]]
    np.testing.assert_allclose([r.probability for r in ranked], EXPECTED[[2, 0, 1]], rtol=1e-6)
    assert server.calls == {"metadata": 1, "user_tower": 1, "score": 1}


def test_pins_the_version_that_made_the_state(client: RankingClient, server: StubServer, toy_models: Path) -> None:
    state = client.user_state(USER)
    server.load(2, toy_models / "2")
    np.testing.assert_allclose(client.score(state, CANDIDATES, CONTEXT), EXPECTED, rtol=1e-6)
    assert server.requests["score"].model_spec.version.value == 1


def test_k_and_columns(client: RankingClient) -> None:
    columns = {"item_id": np.array([1, 2, 3]), "genres": ["Action|War", "Drama", None], "price": [0.5, None, 1.5]}
    ranked = client.rank(USER, columns, CONTEXT, k=2)
    assert [r.index for r in ranked] == [2, 0]
    assert ranked[0].candidate == {"item_id": 3, "genres": None, "price": 1.5}
    np.testing.assert_allclose([r.probability for r in ranked], EXPECTED[[2, 0]], rtol=1e-6)
    assert client.rank(USER, columns, CONTEXT, k=0) == []
    assert len(client.rank(USER, columns, CONTEXT, k=99)) == 3
    with pytest.raises(BadRequestError, match="k must be"):
        client.rank(USER, columns, CONTEXT, k=-1)


@pytest.mark.parametrize("nothing", [[], {}, {"item_id": []}, {"item_id": np.empty(0, np.int64)}])
def test_no_candidates_are_answered_locally(client: RankingClient, server: StubServer, nothing: object) -> None:
    assert client.rank(USER, nothing, CONTEXT) == []
    assert not server.calls


def test_equal_candidates_keep_their_order(client: RankingClient) -> None:
    assert [r.index for r in client.rank(USER, [{"item_id": 4}] * 50)] == list(range(50))


def test_repeated_fields_and_content_are_both_read(client: RankingClient, server: StubServer) -> None:
    before = client.score(client.user_state(USER), CANDIDATES, CONTEXT)
    server.tensor_content = True
    np.testing.assert_array_equal(client.score(client.user_state(USER), CANDIDATES, CONTEXT), before)


@pytest.mark.slow
def test_replies_past_grpcs_four_megabytes(client: RankingClient, server: StubServer) -> None:
    server.replace_output["user/fields"] = np.zeros((1, 2_000_000), np.float32)
    assert client.user_state(USER).nbytes > 8_000_000


def test_ten_thousand_candidates(client: RankingClient) -> None:
    ranked = client.rank(USER, {"item_id": np.arange(10_000)}, CONTEXT, k=1)
    assert ranked[0].index == 0


# --- versions


def test_follows_a_new_version_and_never_mixes(server: StubServer, toy_models: Path, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, refresh_seconds=0.0) as client:
        first = client.rank(USER, CANDIDATES, CONTEXT)
        server.load(2, toy_models / "2")
        second = client.rank(USER, CANDIDATES, CONTEXT)
        assert server.requests["score"].model_spec.version.value == 2
        assert first[0].probability != second[0].probability


def test_version_gone_between_the_two_calls(client: RankingClient, server: StubServer, toy_models: Path) -> None:
    server.load(2, toy_models / "2")
    client.served_model()
    server.unload(2)
    server.load(3, toy_models / "3")
    server.after["user_tower"] = lambda: server.unload(3)
    # The client knows version 2, which is unloaded. Version 3 is unloaded after user_tower, so version 1 answers.
    ranked = client.rank(USER, CANDIDATES, CONTEXT)
    np.testing.assert_allclose(sorted(r.probability for r in ranked), sorted(EXPECTED), rtol=1e-6)
    assert server.requests["score"].model_spec.version.value == 1


def test_public_score_says_that_the_version_is_gone(
    client: RankingClient, server: StubServer, toy_models: Path
) -> None:
    state = client.user_state(USER)
    server.load(2, toy_models / "2")
    server.unload(1)
    with pytest.raises(ModelNotFoundError, match="version 1"):
        client.score(state, CANDIDATES, CONTEXT)


def test_newer_and_older_model_behind_one_client(server: StubServer, toy_models: Path, connect: Connect) -> None:
    user = {**USER, "country": "NL"}
    candidates = [{**c, "brand": "x"} for c in CANDIDATES]
    with connect(server.target, timeout_seconds=300, refresh_seconds=0.0) as client:
        old = client.rank(user, candidates, CONTEXT)
        assert client.dropped_features == {1: {"user.country": 1, "candidates.brand": 1}}
        server.load(3, toy_models / "3")
        new = client.rank(user, candidates, CONTEXT)
        assert server.requests["score"].inputs["brand"].string_val[:] == [b"x"] * 3
        client.rank(USER, CANDIDATES, CONTEXT)  # an old caller: the new features are sent as missing
        assert server.requests["score"].inputs["brand"].string_val[:] == [b""] * 3
        server.unload(3)
        back = client.rank(user, candidates, CONTEXT)
    assert [r.probability for r in old] == [r.probability for r in new] == [r.probability for r in back]
    assert client.dropped_features == {1: {"user.country": 2, "candidates.brand": 2}}


def test_a_given_version_is_asked_for(server: StubServer, toy_models: Path, connect: Connect) -> None:
    server.load(2, toy_models / "2")
    with connect(server.target, timeout_seconds=300, version=1) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
        assert server.requests["user_tower"].model_spec.version.value == 1
    with pytest.raises(BadRequestError, match="not both"):
        connect(server.target, version=1, version_label="stable")


def test_a_label_is_followed(server: StubServer, toy_models: Path, connect: Connect) -> None:
    server.load(2, toy_models / "2")
    server.labels = {"stable": 1}
    with connect(server.target, timeout_seconds=300, refresh_seconds=0.0, version_label="stable") as client:
        for version in (1, 2):
            server.labels["stable"] = version
            client.rank(USER, CANDIDATES, CONTEXT)
            assert server.versions_asked["score"][-1] == version


def test_a_label_that_the_server_does_not_have(server: StubServer, toy_models: Path, connect: Connect) -> None:
    server.load(2, toy_models / "2")
    with connect(server.target, timeout_seconds=300, version_label="stabel") as client:
        with pytest.raises(ModelNotFoundError, match=r"label 'stabel'.*models\.config.*Available versions: 1, 2\.$"):
            client.rank(USER, CANDIDATES, CONTEXT)
        with pytest.raises(ModelNotFoundError, match="label 'stabel'"):
            client.model_status()


# --- the cached state


def test_cached_state_saves_the_tower(client: RankingClient, server: StubServer) -> None:
    first = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    second = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    assert first == second
    assert server.calls == {"metadata": 1, "user_tower": 1, "score": 2}
    client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=2)  # a new event
    client.rank(USER, CANDIDATES, CONTEXT, user_key="u6", history_version=2)
    client.rank(USER, CANDIDATES, CONTEXT)
    assert server.calls["user_tower"] == 4
    with pytest.raises(BadRequestError, match="go together"):
        client.rank(USER, CANDIDATES, CONTEXT, user_key="u5")


def test_a_user_is_one_whatever_the_form_of_the_key(client: RankingClient) -> None:
    for key in (5, "5", b"5", np.int64(5)):
        client.rank(USER, CANDIDATES, CONTEXT, user_key=key, history_version=1.5)
    assert client.counts["cache_hit"] == 3
    for key in (b"\xff", "5 ", b"\xfe"):
        client.rank(USER, CANDIDATES, CONTEXT, user_key=key, history_version=1.5)
    assert client.counts["cache_miss"] == 4


@pytest.mark.parametrize("wrong", [object(), 5.0, True, ("u", 5), [5], pytest.param(10**5000, id="long")])
def test_a_user_key_whose_text_names_no_user_is_refused(client: RankingClient, wrong: Any) -> None:
    for ask in (
        lambda: client.rank(USER, CANDIDATES, CONTEXT, user_key=wrong, history_version=1),
        lambda: client.forget_user(wrong),
    ):
        with pytest.raises(BadRequestError, match="user_key must be text, a whole number or bytes"):
            ask()


@pytest.mark.parametrize("wrong", [object(), float("nan"), float("inf"), False, b"1", np.float32(1), (1,)])
def test_a_history_version_that_says_nothing_is_refused(client: RankingClient, wrong: Any) -> None:
    with pytest.raises(BadRequestError, match="history_version must be text, a whole number or a finite float"):
        client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=wrong)


def test_cached_state_of_a_version_that_is_gone(client: RankingClient, server: StubServer, toy_models: Path) -> None:
    client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    server.load(2, toy_models / "2")
    server.unload(1)
    client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    assert server.requests["score"].model_spec.version.value == 2
    assert server.calls["user_tower"] == 2


def test_another_model_under_the_same_version_number(
    client: RankingClient, server: StubServer, toy_models: Path
) -> None:
    """The cached state has another tag. It is rejected with NaN and computed again, and the answer is right."""
    client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    server.load(1, toy_models / "2")
    ranked = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
    fresh = client.score(client.user_state(USER), CANDIDATES, CONTEXT)
    np.testing.assert_array_equal([r.probability for r in ranked], np.sort(fresh)[::-1])
    assert server.calls["user_tower"] == 3
    assert server.calls["score"] == 4


def test_a_refused_state_is_not_kept(client: RankingClient, server: StubServer) -> None:
    server.replace_output["model_tag"] = np.array([-1])  # as user_tower returns for bad user features
    for turn in (1, 2):
        with pytest.raises(StateRejectedError):
            client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        assert server.calls["score"] == server.calls["user_tower"] == turn  # never scored twice for one request


def test_corrupt_tag_is_refused(client: RankingClient) -> None:
    state = client.user_state(USER)
    tensors = dict(state.tensors) | {"model_tag": np.array([12345])}
    forged = UserState(state.model, state.version, state.fingerprint, tensors)
    with pytest.raises(StateRejectedError, match="state is not of this model") as caught:
        client.score(forged, CANDIDATES, CONTEXT)
    assert caught.value.rows == (0, 1, 2)


def test_state_of_another_model_is_not_sent(client: RankingClient, server: StubServer) -> None:
    state = client.user_state(USER)
    for forged in (
        UserState("other", state.version, state.fingerprint, state.tensors),
        UserState(state.model, state.version, "0" * 16, state.tensors),
        UserState(state.model, state.version, state.fingerprint, {}),
    ):
        with pytest.raises(StateRejectedError, match="made by another model"):
            client.score(forged, CANDIDATES, CONTEXT)
    assert server.calls["score"] == 0


def test_state_cannot_be_changed_by_accident(client: RankingClient) -> None:
    with pytest.raises(ValueError, match="read-only"):
        client.user_state(USER).tensors["user/fields"][0] = 1


def test_a_bad_row_is_named(client: RankingClient) -> None:
    with pytest.raises(BadRowError, match=r"1 of 3 candidates \(NaN\): rows 1\.") as caught:
        client.rank(USER, [CANDIDATES[0], {"item_id": 2, "price": -1.0}, CANDIDATES[2]], CONTEXT)
    assert caught.value.rows == (1,)


# --- failures


def test_nobody_listens(connect: Connect) -> None:
    with connect("localhost:1", timeout_seconds=2) as client, pytest.raises(UnavailableError, match="localhost:1"):
        client.rank(USER, CANDIDATES, CONTEXT)


def test_unknown_model(server: StubServer, connect: Connect) -> None:
    with connect(server.target, "other", 20) as client, pytest.raises(ModelNotFoundError, match="model 'other'"):
        client.rank(USER, CANDIDATES, CONTEXT)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, BadRequestError),
        (grpc.StatusCode.FAILED_PRECONDITION, BadRequestError),
        (grpc.StatusCode.UNIMPLEMENTED, BadRequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.DATA_LOSS, ServerError),
    ],
)
def test_errors_of_the_server_in_words(
    client: RankingClient, server: StubServer, code: grpc.StatusCode, error: type[ClientError]
) -> None:
    server.fail["score"] = (code, "what the server said")
    with pytest.raises(
        error, match=rf"score of model 'ranking' version 1 at .*{code.name}: what the server said"
    ) as caught:
        client.rank(USER, CANDIDATES, CONTEXT)
    assert type(caught.value) is error
    assert server.calls["score"] == 1  # not retried


@pytest.mark.slow
@pytest.mark.parametrize("step", ["metadata", "user_tower", "score"])
def test_one_budget_for_all_calls(server: StubServer, step: str, connect: Connect) -> None:
    server.hang[step] = threading.Event()
    with connect(server.target, timeout_seconds=300) as client:
        if step != "metadata":
            client.served_model()
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=step):
            client.rank(USER, CANDIDATES, CONTEXT, timeout_seconds=2)
        # The 2 s of the request are for all its calls together. No call got the client's 20 s.
        assert 1.5 < time.monotonic() - start < 15


@pytest.mark.slow
def test_a_slow_look_for_a_newer_version_costs_a_quarter(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, refresh_seconds=0.05) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
        time.sleep(0.1)
        server.hang["metadata"] = threading.Event()
        assert len(client.rank(USER, CANDIDATES, CONTEXT, timeout_seconds=4)) == 3


def test_recovers_after_a_restart(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        before = client.rank(USER, CANDIDATES, CONTEXT)
        server.__exit__()
        with pytest.raises(UnavailableError):
            client.rank(USER, CANDIDATES, CONTEXT)
        server.__enter__()
        end = time.monotonic() + 300
        while True:
            try:
                assert client.rank(USER, CANDIDATES, CONTEXT) == before
                break
            except UnavailableError:
                assert time.monotonic() < end
                time.sleep(0.05)


def test_closed_client(server: StubServer, connect: Connect) -> None:
    client = connect(server.target)
    client.close()
    for ask in (lambda: client.rank(USER, CANDIDATES, CONTEXT), client.model_status, lambda: client.forget_user("u5")):
        with pytest.raises(BadRequestError, match=r"the client is closed\. Make another one") as caught:
            ask()
        assert not caught.value.retryable
    client.close()


def test_a_client_of_another_event_loop_is_refused(server: StubServer) -> None:
    client = AsyncRankingClient(server.target, timeout_seconds=300)

    async def scene() -> None:
        await client.rank(USER, CANDIDATES, CONTEXT)

    asyncio.run(scene())
    with pytest.raises(BadRequestError, match="belongs to the event loop of its first request"):
        asyncio.run(scene())


@pytest.mark.parametrize("state", [{}, "u5", 5])
def test_what_is_no_state_is_refused(client: RankingClient, state: Any) -> None:
    for candidates in (CANDIDATES, []):
        with pytest.raises(BadRequestError, match="state must be a UserState"):
            client.score(state, candidates, CONTEXT)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_bad_timeout(timeout: float, connect: Connect) -> None:
    with pytest.raises(BadRequestError, match="timeout_seconds"):
        connect("localhost:1", timeout_seconds=timeout)


def test_a_reply_of_the_wrong_size_is_never_zipped(client: RankingClient, server: StubServer) -> None:
    server.replace_output["probabilities"] = np.zeros((1, 2), np.float32)
    with pytest.raises(CodecError, match=r"must be \[1, 3\]. Received: \[1, 2\]"):
        client.rank(USER, CANDIDATES, CONTEXT)


def test_a_model_without_our_signatures(server: StubServer, connect: Connect) -> None:
    del server.definitions[1]["user_tower"]
    unsupported = pytest.raises(UnsupportedModelError, match="user_tower")
    with connect(server.target, timeout_seconds=300) as client, unsupported:
        client.rank(USER, CANDIDATES, CONTEXT)


def test_model_status(client: RankingClient, server: StubServer, toy_models: Path) -> None:
    server.load(2, toy_models / "2")
    assert [(s.version, s.state) for s in client.model_status()] == [(2, "AVAILABLE"), (1, "AVAILABLE")]


def test_many_threads_share_a_client(server: StubServer) -> None:
    wrong = []
    with RankingClient(server.target, timeout_seconds=300, cache=MemoryStateCache(max_entries=2)) as client:

        def work(user: int) -> None:
            for _ in range(5):
                ranked = client.rank({**USER, "user_id": user}, CANDIDATES, CONTEXT, user_key=user, history_version=0)
                expected = toy_probabilities(0.45, user / 10 + 1.2, 0.5, [1, 2, 3], [0.5, 0.25, 1.5], [10, 5, 0])
                if not np.allclose(sorted(r.probability for r in ranked), sorted(expected), rtol=1e-5):
                    wrong.append(user)

        threads = [threading.Thread(target=work, args=(user,)) for user in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert not wrong
