"""The installation script: what it says about a machine, and that uv uses what pip is configured with."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from scripts import setup_venv

CONFIGURATION = """
[global]
index-url = https://mirror.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
trusted-host = mirror.example
[install]
find-links = /wheels
"""


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A user with a pip.conf and no other settings of pip or uv."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_TRUSTED_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(CONFIGURATION)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return monkeypatch


def test_uv_uses_the_indexes_of_pip(user: pytest.MonkeyPatch) -> None:
    environment = setup_venv.index_environment(sys.executable)
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert environment["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert environment["UV_FIND_LINKS"] == "/wheels"
    assert environment["UV_INSECURE_HOST"] == "mirror.example"


def test_a_variable_of_pip_wins_over_its_file(user: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    user.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    user.setenv("PIP_CERT", str(certificates))
    environment = setup_venv.index_environment(sys.executable)
    assert environment["UV_DEFAULT_INDEX"] == "https://variable.example/simple"
    assert environment["SSL_CERT_FILE"] == str(certificates)


def test_what_uv_was_told_wins(user: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[[index]]\nurl = "https://uv.example/simple"\ndefault = true\n')
    assert "UV_DEFAULT_INDEX" not in setup_venv.index_environment(sys.executable)
    settings.unlink()
    user.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert setup_venv.index_environment(sys.executable)["UV_DEFAULT_INDEX"] == "https://uv.example/simple"


def test_this_machine_has_no_problem() -> None:
    assert setup_venv.machine_problem() is None


@pytest.mark.parametrize(
    ("version", "libc", "machine", "says"),
    [
        ((3, 10, 1), ("glibc", "2.41"), "x86_64", "Python 3.11, 3.12 or 3.13 is needed"),
        ((3, 14, 0), ("glibc", "2.41"), "x86_64", "is 3.14; try: make PYTHON=python3.11"),
        ((3, 13, 5), ("glibc", "2.36"), "x86_64", "needs glibc 2.39"),
        ((3, 11, 2), ("", ""), "x86_64", "glibc only"),
        ((3, 11, 2), ("glibc", "2.36"), "aarch64", "x86_64 only; this is Linux on aarch64"),
        ((3, 11, 2), ("glibc", "2.36"), "x86_64", None),
        ((3, 13, 5), ("glibc", "2.39"), "x86_64", None),
    ],
)
def test_one_line_says_why_a_machine_is_not_supported(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int, int],
    libc: tuple[str, str],
    machine: str,
    says: str | None,
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    problem = setup_venv.machine_problem()
    if says is None:
        assert problem is None
    else:
        assert says in problem
        assert "\n" not in problem


def test_missing_tools_are_told_by_the_name_of_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert setup_venv.missing_packages() == ["python3-venv", "python3-dev", "g++"]


def test_everything_missing_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, setup_venv.__file__, "--check", "no-such-server", tmp_path / "venv"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: this machine lacks ")
    assert "g++, no-such-server; as root: apt-get install -y " in done.stderr
    assert not (tmp_path / "venv").exists()
