"""What the URL of a Redis cache may say, and which servers it may lead to."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import ResponseError

from tests.client.redis_server import RedisServer
from tests.client.test_cache import KEY, equal, state
from tests.serving.certificates import Authority
from tfctr.client import BadRequestError, RedisStateCache, StateCache, UnavailableError
from tfctr.client.redis_url import RedisUrl

PASSWORD = "ze/br#az?eb@1:[%"
PIECES = ("ze/b", "br#a", "az?e", "eb@1", "zebra", "1:[", "1234")


@contextmanager
def running(*arguments: str, **client: Any) -> Iterator[RedisServer]:
    server = RedisServer(*arguments, client=client)
    try:
        yield server
    finally:
        server.kill()


async def _ask(cache: RedisStateCache) -> bool:
    await cache.aput(KEY, state())
    found = equal(await cache.aget(KEY), state())
    await cache.aforget_user(KEY.model, KEY.user_key)
    await cache.aclose()
    return found


def works(url: str) -> bool:
    """Whether a cache with this URL keeps states, in both halves."""
    cache = RedisStateCache(url, timeout_seconds=5)
    cache.put(KEY, state())
    return equal(cache.get(KEY), state()) and asyncio.run(_ask(cache))


@pytest.mark.parametrize(
    "options",
    [
        "decode_responses=True",
        "socket_timeout=3",
        "socket_connect_timeout=3",
        "retry_on_timeout=True",
        "health_check_interval=1",
        "max_connections=1",
        "protocol=3",
        "password=secret",
        "no_such_option=1",
        "db=0&encoding=latin1",
        "db=one",
        "ssl_ca_certs=/no/such/file",
        "ssl_cert_reqs=required",  # only with rediss://
    ],
)
def test_options_that_would_overrule_the_cache_are_refused(options: str) -> None:
    with pytest.raises(BadRequestError, match="Redis URL: ") as caught:
        RedisStateCache(f"redis://localhost:1/?{options}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://localhost:port",
        "redis://localhost:6379/one",
        "redis://localhost:6379/0/1",
        "redis://localhost:6379/0#1",
        "unix://",
        "unix://localhost/path",
        None,
        7,
        "rediss://localhost?ssl_cert_reqs=sometimes",
    ],
)
def test_urls_of_another_form_are_refused(url: Any) -> None:
    with pytest.raises(BadRequestError, match=r"Redis URL: .*Allowed: redis://"):
        RedisStateCache(url)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "http"])
@pytest.mark.parametrize("user", ["", "user"])
@pytest.mark.parametrize(
    "password", [PASSWORD, "12/34", "1234/5678", "zebra?x", "zebra#x", "ze/bra", "zebra/", "1234[", "?zebra"]
)
def test_no_part_of_a_password_is_shown(scheme: str, user: str, password: str) -> None:
    """Written without percent signs, a password ends up in the port, the path, an option or the fragment."""
    for tail in ("@localhost:1/0", "@localhost:1/0?no_such_option=1", "@/path"):
        try:
            cache = RedisStateCache(f"{scheme}://{user}:{password}{tail}")
            cache.get(KEY)
        except (BadRequestError, UnavailableError) as error:
            shown = str(error) + str(error.__cause__)
            assert not any(piece in shown for piece in PIECES), shown


def test_a_password_opens_and_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    right, wrong = quote(PASSWORD, safe=""), "some-wrong-word"
    with running("--port", "{port}", "--requirepass", PASSWORD, password=PASSWORD) as server:
        assert works(f"redis://:{right}@127.0.0.1:{server.port}/1")
        with pytest.raises(UnavailableError) as caught:
            RedisStateCache(f"redis://:{wrong}@127.0.0.1:{server.port}", timeout_seconds=5).get(KEY)
        assert wrong not in f"{caught.value}{caught.value.__cause__}{caplog.text}"


def test_an_answer_that_repeats_what_it_was_sent() -> None:
    """Redis shows the arguments of a command that it does not know, of an AUTH that was renamed for instance."""
    url = RedisUrl(f"redis://:{quote(PASSWORD, safe='')}@localhost")
    told = ResponseError(f"unknown command 'AUTH', with args beginning with: '{PASSWORD[:9]}' ")
    assert url.without_secrets(told) == "unknown command 'AUTH'"
    assert url.without_secrets(ResponseError(f"no {PASSWORD}, no entry")) == "no ***, no entry"


def test_tls(tmp_path: Path) -> None:
    authority = Authority()
    files = {"ca": tmp_path / "ca.pem", "key": tmp_path / "key.pem", "certificate": tmp_path / "certificate.pem"}
    key, certificate = authority.issue()
    for name, text in {"ca": authority.certificate, "key": key, "certificate": certificate}.items():
        files[name].write_text(text)
    tls = ["--tls-port", "{port}", "--port", "0", "--tls-cert-file", str(files["certificate"])]
    tls += ["--tls-key-file", str(files["key"]), "--tls-ca-cert-file", str(files["ca"])]
    mine = f"ssl_certfile={files['certificate']}&ssl_keyfile={files['key']}"
    client = {"ssl": True, "ssl_ca_certs": str(files["ca"]), "ssl_check_hostname": False}
    client |= {"ssl_certfile": str(files["certificate"]), "ssl_keyfile": str(files["key"])}
    with running(*tls, **client) as server:
        url = f"rediss://localhost:{server.port}/0"
        assert works(f"{url}?ssl_ca_certs={files['ca']}&{mine}")
        with pytest.raises(UnavailableError):  # the system does not trust this authority
            RedisStateCache(f"{url}?{mine}", timeout_seconds=5).get(KEY)
        with pytest.raises(UnavailableError):  # plain text
            RedisStateCache(f"redis://localhost:{server.port}/0", timeout_seconds=5).get(KEY)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running("--unixsocket", str(path), "--port", "{port}"):
        assert works(f"unix://{path}?db=1")


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis-sentinel", "rediss+sentinel"])
def test_cluster_and_sentinel_are_refused(scheme: str) -> None:
    with pytest.raises(BadRequestError, match="does not support Redis Cluster and Sentinel"):
        RedisStateCache(f"{scheme}://localhost:6379/0")


def test_a_node_of_a_cluster_says_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = ["--port", "{port}", "--cluster-enabled", "yes", "--cluster-port", "{bus}", "--dir", str(tmp_path)]
    with running(*cluster) as server:
        cache: StateCache = RedisStateCache(server.url, timeout_seconds=5)
        assert cache.get(KEY) is None
        cache.put(KEY, state())
    assert "it is a node of a Redis Cluster, which this cache does not support" in caplog.text


def test_a_sentinel_says_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"dir {tmp_path}\n")
    with running(str(configuration), "--sentinel", "--port", "{port}") as server:
        assert RedisStateCache(server.url.removesuffix("/0"), timeout_seconds=5).get(KEY) is None
    assert "it may be a Sentinel, which this cache does not support" in caplog.text


def test_a_replica_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with running("--port", "{port}", "--replicaof", "127.0.0.1 1") as server:
        RedisStateCache(server.url, timeout_seconds=5).put(KEY, state())
    assert "it is a replica; give the cache the primary" in caplog.text
