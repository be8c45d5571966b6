"""The URL of a Redis server: what it may say, and the clients of redis-py that it makes."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tfctr.client.errors import BadRequestError

ALLOWED = (
    "db",
    "client_name",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
"""Options of a URL. The others of redis-py would overrule what the cache relies on, its timeouts for instance."""

_FILES = ("_certs", "_certfile", "_keyfile")

_FORM = (
    "Allowed: redis://USER:PASSWORD@HOST:PORT/DB, rediss:// (TLS), or unix://USER:PASSWORD@/PATH, in which user, "
    "password, port and DB may be left out. Characters such as / # ? @ and : in a password are written as %2F and so "
    "on. The URL is not shown, because it may hold a password"
)


class RedisUrl:
    """The URL of one Redis server.

    Args:
        url: the URL.
        timeouts: options of redis-py for the timeouts.

    Raises:
        BadRequestError: the URL is not valid or has an option that is not allowed; its text is never shown.
    """

    def __init__(self, url: str, **timeouts: float):
        self._secrets = _check(url)
        self._url = url
        self._options = {**timeouts, "health_check_interval": 0, "decode_responses": False}

    def client(self) -> Any:
        """A blocking client, without the retries of redis-py."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            client = redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **self._options)
            client.connection_pool.make_connection()  # without connecting it: it checks the options
            return client
        except (ValueError, TypeError, redis.RedisError):
            raise BadRequestError(f"Redis URL: an option has a value that redis-py does not take. {_FORM}") from None

    def asyncio_client(self, connections: int) -> Any:
        """A client for asyncio, whose requests wait for a free connection.

        The default pool of redis-py raises an error beyond 100 connections.
        """
        from redis import asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        pool = asyncio.BlockingConnectionPool.from_url(
            self._url, max_connections=connections, timeout=None, retry=Retry(NoBackoff(), 0), **self._options
        )
        return asyncio.Redis.from_pool(pool)

    def without_secrets(self, error: BaseException) -> str:
        """The text of an error. Servers and libraries may repeat what they were sent, a password for instance."""
        # Redis shows the arguments of a command that it does not know: an AUTH that was renamed, or the key of a user.
        text = str(error).split(", with args beginning with")[0]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _check(url: str) -> list[str]:
    """The passwords in a URL, each form of it, longest first."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadRequestError(f"Redis URL: it cannot be read. {_FORM}") from None
    if "cluster" in parts.scheme or "sentinel" in parts.scheme:
        raise BadRequestError(
            "Redis URL: this cache does not support Redis Cluster and Sentinel; give it the URL of one server, or of a "
            f"proxy or a load balancer before the primary. {_FORM}"
        )
    local = parts.scheme == "unix"
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise BadRequestError(f"Redis URL: it must begin with redis://, rediss:// or unix://. {_FORM}")
    wrong_place = "@" in parts.path + parts.query or parts.fragment or (local and (host or port))
    if wrong_place or not (parts.path if local else host and re.fullmatch(r"/?|/\d+", parts.path)):
        raise BadRequestError(f"Redis URL: it is not of this form. {_FORM}")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ALLOWED:
            raise BadRequestError(
                f"Redis URL: the option '{name}' is not allowed. Allowed: {', '.join(ALLOWED)}. "
                "Timeouts are arguments of the cache"
            )
        if name.endswith(_FILES) and not Path(value).is_file():
            raise BadRequestError(f"Redis URL: {name} must be a file. Received: {value!r}")
    password = parts.password or ""
    return sorted({password, unquote(password), quote(unquote(password), safe="")} - {""}, key=len, reverse=True)
