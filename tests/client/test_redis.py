import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis

from tests.client.connect import Connect
from tests.client.redis_server import RedisServer
from tests.client.stub_server import StubServer
from tests.client.test_cache import KEY, equal, state
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tfctr.client import BadRequestError, RedisStateCache, StateCache, UnavailableError, UserState
from tfctr.client.counts import Counts
from tfctr.client.drivers import BlockingDriver, run
from tfctr.client.guarded_cache import GuardedCache
from tfctr.client.record import Precision
from tfctr.client.transport import Deadline

USER_HASH = "tfctr:state:ranking:user%3A1"
FIELD = "3:abcd:3:float32"


@pytest.fixture
def server_of_states() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.kill()


@pytest.fixture
def cache(server_of_states: RedisServer) -> Iterator[RedisStateCache]:
    # The default timeout is 20 ms. On a busy test machine, Redis can need longer for an answer.
    found = RedisStateCache(server_of_states.url, timeout_seconds=2, pause_seconds=0.3)
    yield found
    found.close()


def test_round_trip_across_clients(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, state())
    assert equal(RedisStateCache(server_of_states.url, timeout_seconds=5).get(KEY), state())
    cache.invalidate(KEY)
    assert cache.get(KEY) is None
    assert cache.counts == {}


def test_states_expire_in_redis(server_of_states: RedisServer) -> None:
    cache = RedisStateCache(server_of_states.url, timeout_seconds=5, ttl_seconds=120)
    cache.put(KEY, state())
    assert 100_000 < server_of_states.plain.pttl(USER_HASH) <= 120_000


def test_a_burst_of_states_does_not_expire_in_one(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    for i in range(100):
        cache.put(replace(KEY, user_key=str(i)), state())
    plain = server_of_states.plain
    now = 1000 * plain.time()[0] + plain.time()[1] // 1000
    ends = [plain.pexpiretime(key) for key in plain.scan_iter()]
    assert len(ends) == 100
    # The lifetimes are 9 to 10 minutes, so the states expire over a whole minute, and none lives longer than its TTL.
    assert 50_000 < max(ends) - min(ends) < 70_000
    assert max(ends) <= now + 600_000


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"tfctrST3" + b"\0" * 100])
def test_garbage_is_a_miss_and_counted(server_of_states: RedisServer, cache: RedisStateCache, garbage: bytes) -> None:
    server_of_states.plain.hset(USER_HASH, FIELD, garbage)
    assert cache.get(KEY) is None
    assert cache.counts == {"garbage": 1}


def test_a_value_of_another_type_or_key_is_a_miss(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    server_of_states.plain.lpush(USER_HASH, "x")
    assert cache.get(KEY) is None
    assert cache.counts == {"refused": 1}
    server_of_states.plain.delete(USER_HASH)
    other = replace(KEY, user_key="someone else")
    cache.put(other, state(2.0))
    server_of_states.plain.rename(USER_HASH.replace("user%3A1", "someone%20else"), USER_HASH)
    assert cache.get(KEY) is None
    assert cache.counts["garbage"] == 1


def test_flipped_byte_is_a_miss(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    cache.put(KEY, state())
    record = bytearray(server_of_states.plain.hget(USER_HASH, FIELD))
    record[60] ^= 0x10
    server_of_states.plain.hset(USER_HASH, FIELD, bytes(record))
    assert cache.get(KEY) is None
    assert cache.counts["garbage"] == 1


def guarded(cache: StateCache) -> tuple[GuardedCache, Counts]:
    counts = Counts()
    return GuardedCache(cache, BlockingDriver("localhost:1"), counts), counts


def get(guard: GuardedCache) -> UserState | None:
    return run(guard.get(KEY, Deadline(300)))


def put(guard: GuardedCache) -> None:
    run(guard.put(KEY, state(), Deadline(300)))


def test_a_dead_redis_fails_at_once_and_comes_back(
    server_of_states: RedisServer, cache: RedisStateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, counts = guarded(cache)
    put(guard)
    server_of_states.kill()
    with monkeypatch.context() as patched:
        patched.setattr(redis.retry, "sleep", lambda seconds: pytest.fail("redis-py tries again by itself"))
        for _ in range(50):
            assert get(guard) is None
            put(guard)
    assert counts.snapshot()["cache_failed"] >= 3
    assert counts.snapshot()["cache_skipped"] > 0
    server_of_states.start()
    time.sleep(0.4)
    put(guard)
    assert equal(get(guard), state())


def test_a_hung_redis_costs_a_few_timeouts(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    cache.put(KEY, state())
    guard, counts = guarded(RedisStateCache(server_of_states.url, timeout_seconds=0.1, pause_seconds=600))
    server_of_states.pause()
    start = time.monotonic()
    for _ in range(100):
        assert get(guard) is None
    elapsed = time.monotonic() - start
    server_of_states.go_on()
    assert elapsed > 0.25
    assert counts.snapshot() == {"cache_failed": 3, "cache_skipped": 97, "cache_miss": 100}


@pytest.mark.parametrize("wrong_share", [0.05, 0.3])
def test_wrong_keys_of_some_users_cost_only_theirs(
    server: StubServer, server_of_states: RedisServer, cache: RedisStateCache, connect: Connect, wrong_share: float
) -> None:
    users = 100
    wrong = set(np.random.default_rng(0).choice(users, round(users * wrong_share), replace=False).tolist())
    for user in wrong:
        server_of_states.plain.set(f"tfctr:state:ranking:{user}", "a string")
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        for _ in range(2):
            for user in range(users):
                client.rank(USER, CANDIDATES, CONTEXT, user_key=user, history_version=1)
        counts = client.counts
    assert counts["cache_hit"] == users - len(wrong)
    assert counts["cache_refused"] == 4 * len(wrong)  # a get and a put, twice
    assert counts["cache_put"] == users - len(wrong)
    assert not {"cache_failed", "cache_late", "cache_skipped"} & set(counts)


@pytest.mark.parametrize("other", ["float16", "int8"])
def test_two_precisions_do_without_each_others_records(server_of_states: RedisServer, other: Precision) -> None:
    caches = [RedisStateCache(server_of_states.url, timeout_seconds=5, precision=p) for p in ("float32", other)]
    for _ in range(2):
        for number, one in enumerate(caches):
            one.put(KEY, state(1 + 1e-4 * number))
    exact = caches[0].get(KEY)
    assert equal(exact, state())
    assert caches[1].get(KEY) is not None
    assert server_of_states.plain.hlen(USER_HASH) == 2
    assert all(one.counts == {} for one in caches)


def test_warnings_are_few(
    server_of_states: RedisServer, cache: RedisStateCache, caplog: pytest.LogCaptureFixture
) -> None:
    server_of_states.plain.hset(USER_HASH, FIELD, b"garbage")
    for _ in range(50):
        cache.get(KEY)
    server_of_states.plain.delete(USER_HASH)
    server_of_states.plain.set(USER_HASH, "a string")
    guard, _ = guarded(cache)
    for _ in range(50):
        get(guard)
        put(guard)
    server_of_states.kill()
    for _ in range(50):
        get(guard)
        put(guard)
    told = [one.getMessage() for one in caplog.records]
    assert len(told) <= 4, told
    assert not any("user%3A1" in one or "user:1" in one for one in told)


def test_a_late_answer_is_not_taken_for_another_user(server_of_states: RedisServer) -> None:
    cache = RedisStateCache(server_of_states.url, timeout_seconds=1, failures=1000)
    keys = [replace(KEY, user_key=str(i)) for i in range(5)]
    for i, key in enumerate(keys):
        cache.put(key, state(float(i)))
    server_of_states.pause()
    with pytest.raises(UnavailableError, match="Redis: "):
        cache.get(keys[0])
    server_of_states.go_on()
    time.sleep(0.2)
    for i, key in enumerate(keys):
        assert equal(cache.get(key), state(float(i)))


def test_a_cancelled_call_is_not_taken_for_another_user(server_of_states: RedisServer) -> None:
    async def scene() -> None:
        cache = RedisStateCache(server_of_states.url, timeout_seconds=5, failures=1000)
        keys = [replace(KEY, user_key=str(i)) for i in range(5)]
        for i, key in enumerate(keys):
            await cache.aput(key, state(float(i)))
        server_of_states.pause()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aget(keys[0]), 0.1)
        server_of_states.go_on()
        for i, key in enumerate(keys):
            assert equal(await cache.aget(key), state(float(i)))
        await cache.aclose()

    asyncio.run(scene())


def test_a_new_event_overwrites_and_all_versions_of_a_user_go_at_once(
    server_of_states: RedisServer, cache: RedisStateCache
) -> None:
    later, newer = replace(KEY, history_version="18"), replace(KEY, version=4)
    cache.put(KEY, state(1.0))
    cache.put(later, state(2.0))
    assert cache.get(KEY) is None
    assert equal(cache.get(later), state(2.0))
    assert "garbage" not in cache.counts
    cache.put(newer, replace(state(), version=4))
    other = replace(KEY, user_key="user")  # a prefix of the other key
    cache.put(other, state())
    assert server_of_states.plain.hlen(USER_HASH) == 2
    cache.forget_user(KEY.model, KEY.user_key)
    assert server_of_states.plain.keys() == [b"tfctr:state:ranking:user"]


def test_a_user_that_could_not_be_forgotten_is_an_error(server_of_states: RedisServer, cache: RedisStateCache) -> None:
    cache.put(KEY, state())
    server_of_states.kill()
    with pytest.raises(UnavailableError, match="still in Redis, for 600 s at most"):
        cache.forget_user(KEY.model, KEY.user_key)


def test_a_missing_password_is_told(
    server: StubServer, server_of_states: RedisServer, cache: RedisStateCache, connect: Connect, caplog: Any
) -> None:
    server_of_states.plain.config_set("requirepass", "secret")
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        with pytest.raises(UnavailableError, match="Redis wants a password"):
            client.forget_user("u5")
    assert "Redis wants a password" in caplog.text


def test_strings_are_not_stored(cache: RedisStateCache) -> None:
    cache.put(KEY, UserState("ranking", 3, "abcd", {"name": np.array([b"x"], object)}))
    assert cache.counts == {"unstorable": 1}


def test_bad_arguments() -> None:
    with pytest.raises(BadRequestError, match="timeout_seconds"):
        RedisStateCache("redis://localhost", timeout_seconds=0)
    with pytest.raises(BadRequestError, match=r"precision must be one of \['float32', 'float16', 'int8'\]"):
        RedisStateCache("redis://localhost", precision="int4")  # type: ignore[arg-type]


def test_without_redis_py_the_user_is_told_what_to_install() -> None:
    script = (
        "import sys; sys.modules['redis'] = None\n"
        "from tfctr.client import RedisStateCache, BadRequestError\n"
        "try:\n    RedisStateCache('redis://localhost')\n"
        "except BadRequestError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "pip install 'tfctr[redis]'" in told


@pytest.mark.slow
def test_many_users_at_once(server: StubServer, server_of_states: RedisServer, connect: Connect) -> None:
    cache = RedisStateCache(server_of_states.url, timeout_seconds=5)
    request = {"user": USER, "candidates": CANDIDATES, "history_version": 1}
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        for _ in range(2):
            found = client.together([{**request, "user_key": user} for user in range(150)])
            assert all(isinstance(one, list) for one in found), found
        assert client.counts["user_tower"] == client.counts["cache_hit"] == client.counts["cache_put"] == 150
        assert not {"cache_skipped", "cache_late", "cache_busy", "cache_failed"} & set(client.counts)


TROUBLES = ("none", "slow", "killed", "paused", "garbage", "truncated", "swapped", "older")


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_ranking_is_right_whatever_redis_does(
    server: StubServer, server_of_states: RedisServer, cache: RedisStateCache, connect: Connect, trouble: str
) -> None:
    plain = server_of_states.plain
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        client.rank({**USER, "age": 90.0}, CANDIDATES, CONTEXT, user_key="someone else", history_version=1)
        for turn in range(6):
            if turn >= 2:
                disturb(server_of_states, trouble, first=turn == 2)
            ranked = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
            np.testing.assert_allclose([r.probability for r in ranked], np.sort(EXPECTED)[::-1], rtol=1e-6)
        if trouble == "paused":
            server_of_states.go_on()
        computed = server.calls["user_tower"] - 1
        assert computed == (1 if trouble in ("none", "slow") else 5)
        counts = client.counts
        assert counts["cache_miss"] == computed + 1
        assert bool(counts.get("cache_failed")) == (trouble in ("killed", "paused"))
        assert bool(counts.get("cache_garbage")) == (trouble in ("garbage", "truncated", "swapped", "older"))
    if trouble not in ("killed", "paused"):
        assert all(0 < plain.pttl(key) <= 600_000 for key in plain.scan_iter())


def disturb(server: RedisServer, trouble: str, first: bool) -> None:
    plain = server.plain
    if trouble == "slow":
        plain.client_pause(50)
    if trouble == "killed" and first:
        server.kill()
    if trouble == "paused" and first:
        server.pause()
    wrong: dict[str, Callable[[bytes, bytes], bytes]] = {
        "garbage": lambda _, __: b"tfctrST3 and then nothing",
        "truncated": lambda mine, _: mine[:-20],
        "swapped": lambda _, others: others,
        "older": lambda mine, _: b"tfctrST2" + mine[8:],
    }
    if trouble in wrong:
        mine, others = (f"tfctr:state:ranking:{user}" for user in ("u5", "someone%20else"))
        (field,) = plain.hkeys(mine)
        plain.hset(mine, field, wrong[trouble](plain.hget(mine, field), plain.hget(others, field)))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_change_the_score_a_little(
    server: StubServer, server_of_states: RedisServer, connect: Connect, precision: Precision
) -> None:
    cache = RedisStateCache(server_of_states.url, timeout_seconds=5, precision=precision)
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        key = {"user_key": "u5", "history_version": 1}
        first, second = (client.rank({**USER, "age": 33.3}, CANDIDATES, CONTEXT, **key) for _ in range(2))
        assert client.counts["cache_hit"] == 1
    assert first != second
    assert [one.probability for one in first] == pytest.approx([one.probability for one in second], abs=1e-3)
