"""redis-server with the command, the user and the limits of compose, without a container engine."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.client.test_cache import KEY, equal, state
from tests.serving.conftest import PATIENCE
from tfctr.client import RedisStateCache

COMPOSE = Path(__file__).resolve().parents[2] / "serving" / "compose"
SERVICE: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["services"]["redis"]
PASSWORD = "letters0and1digits"


def command(port: int, config: Path) -> list[str]:
    """The command of the container, with its configuration where it is here and on a free port.

    A user that is not root cannot become the container's; everything else is the same for it.
    """
    (mounted,) = SERVICE["volumes"]
    source, target, mode = mounted.split(":")
    assert (COMPOSE / source).resolve().is_file()
    assert mode == "ro"
    *shell, script = SERVICE["command"]
    asked = f"redis-server {target} -"
    assert asked in script
    script = script.replace(asked, f"redis-server {config} --bind 127.0.0.1 --port {port} -").replace("$$", "$")
    limits = ["prlimit", f"--nofile={SERVICE['ulimits']['nofile']}", f"--as={int(SERVICE['mem_limit'][:-1]) << 30}"]
    rights = ["setpriv", "--no-new-privs"]
    if os.geteuid() == 0:
        user, group = SERVICE["user"].split(":")
        rights += ["--reuid", user, "--regid", group, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    return [*limits, *rights, *shell, script]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port and the process of a redis-server, in a directory that it cannot write into."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    read_only = tmp_path_factory.mktemp("read_only")
    read_only.chmod(0o555)
    environment = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": PASSWORD}
    with tempfile.NamedTemporaryFile() as config:
        # Where every user may read it, as a file that is mounted into the container.
        config.write((COMPOSE / "redis.conf").read_bytes())
        config.flush()
        os.chmod(config.name, 0o444)
        started = command(port, Path(config.name))
        process = subprocess.Popen(started, cwd=read_only, env=environment, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + PATIENCE
            while not answers(port):
                assert process.poll() is None, f"redis-server ended with status {process.returncode}"
                assert time.monotonic() < end
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        redis.Redis(port=port).ping()
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False
    raise AssertionError("it answers without a password")


def test_it_starts_without_capabilities_and_takes_states(server: tuple[int, int]) -> None:
    port, process = server
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["read_only"]
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh")} == {0}
        assert set(status["Uid"].split()) == {SERVICE["user"].split(":")[0]}
    cache = RedisStateCache(f"redis://:{PASSWORD}@127.0.0.1:{port}/0", timeout_seconds=PATIENCE)
    cache.put(KEY, state())
    assert equal(cache.get(KEY), state())
    cache.close()


def test_the_password_is_no_argument(server: tuple[int, int]) -> None:
    assert "redis-server" in Path(f"/proc/{server[1]}/cmdline").read_text()
    assert PASSWORD not in Path(f"/proc/{server[1]}/cmdline").read_text()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=server[0], password="another").ping()


def test_it_evicts_as_the_pages_say_and_keeps_nothing(server: tuple[int, int]) -> None:
    plain = redis.Redis(port=server[0], password=PASSWORD, decode_responses=True)
    assert plain.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
    assert "`allkeys-lru`" in (COMPOSE.parents[1] / "docs" / "client.md").read_text("utf-8")
    assert 0 < int(plain.config_get("maxmemory")["maxmemory"]) < int(SERVICE["mem_limit"][:-1]) << 30
    assert (plain.config_get("save")["save"], plain.config_get("appendonly")["appendonly"]) == ("", "no")
