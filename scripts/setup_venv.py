"""Makes a virtual environment and installs the locked packages and this project into it.

`make` runs it. It needs only the standard library. When the machine lacks something, it prints one line that says what.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "requirements.lock")
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
UV = "uv>=0.9,<1"


def machine_problem() -> str | None:
    """One line that says why the locked packages cannot be installed here; None when they can."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return f"TFX has wheels for Linux on x86_64 only; this is {platform.system()} on {platform.machine()}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return f"Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is {version}; try: make PYTHON=python3.11"
    libc, libc_version = platform.libc_ver()
    if libc != "glibc":
        return "TFX has wheels for glibc only (Debian, Ubuntu); this system has another C library"
    if sys.version_info[:2] >= (3, 12) and tuple(map(int, libc_version.split(".")[:2])) < (2, 39):
        return (
            f"Python {version} needs glibc 2.39 (Debian 13, Ubuntu 24.04), this system has {libc_version}; "
            "use Python 3.11: make PYTHON=python3.11"
        )
    return None


def missing_packages() -> list[str]:
    """The Debian packages that are missing here and without which the installation would fail half-way."""
    missing = []
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append("python3-venv")
    if not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")):
        missing.append("python3-dev")  # pyfarmhash has no wheel and is compiled
    if shutil.which(os.environ.get("CXX", "g++").split()[0]) is None:
        missing.append("g++")
    return missing


def index_environment(python: str) -> dict[str, str]:
    """The environment in which uv uses the indexes and certificates that pip is configured with.

    uv reads neither pip.conf nor PIP_*. What is configured for uv itself wins. Every package is pinned by hash, so it
    does not matter which of several indexes a package comes from.

    Args:
        python: The interpreter whose pip is asked.
    """
    environment = dict(os.environ)
    settings = _pip_settings(python)
    if not _uv_has_an_index():
        for key, variable, separator in (
            ("index-url", "UV_DEFAULT_INDEX", " "),
            ("extra-index-url", "UV_INDEX", " "),
            ("find-links", "UV_FIND_LINKS", ","),
            ("trusted-host", "UV_INSECURE_HOST", " "),
        ):
            if settings.get(key):
                environment.setdefault(variable, separator.join(settings[key].split()))
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "proxy" in settings:
        environment.setdefault("HTTPS_PROXY", settings["proxy"])
    environment.setdefault("UV_HTTP_TIMEOUT", settings.get("default-timeout", settings.get("timeout", "120")))
    certificates = settings.get("cert", SYSTEM_CERTIFICATES)  # the system's bundle also holds a company's own authority
    if os.path.exists(certificates):
        environment.setdefault("SSL_CERT_FILE", certificates)
    return environment


def _pip_settings(python: str) -> dict[str, str]:
    """The settings of pip: `PIP_*` variables win over the files, and `[install]` wins over `[global]`."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    scopes: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.stdout.splitlines():  # global.index-url='https://...'
        name, _, value = line.partition("=")
        scope, _, key = name.rpartition(".")
        if scope in scopes:
            scopes[scope][key] = str(ast.literal_eval(value))
    return {**scopes["global"], **scopes["install"], **scopes[":env:"]}


def _uv_has_an_index() -> bool:
    """Whether an index is configured for uv itself."""
    if any(os.environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE")):
        return True
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for path in (os.path.join(home, "uv", "uv.toml"), "/etc/uv/uv.toml"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if "index" in file.read():
                    return True
    return False


def create(directory: str) -> str:
    """Makes the virtual environment, with uv in it, and returns its interpreter.

    Args:
        directory: Where it is made; an environment of another Python version is replaced.
    """
    python = os.path.join(directory, "bin", "python")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    current = os.path.isdir(os.path.join(directory, "lib", f"python{version}")) and os.path.exists(python)
    subprocess.run([sys.executable, "-m", "venv", *([] if current else ["--clear"]), directory], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, UV], check=True)
    return python


def install(python: str) -> None:
    """Installs every locked package, hash-checked, then this project in place.

    Args:
        python: The interpreter of the virtual environment.
    """
    environment = index_environment(python)
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # a log needs no 200 lines of names
    uv = [os.path.join(os.path.dirname(python), "uv"), "pip", "install", *quiet, "--python", python, "--no-deps"]
    # As pip does, but not uv by default: without bytecode TensorFlow takes twice as long to import, in every process of
    # a machine where Python may not write it (PYTHONDONTWRITEBYTECODE).
    locked = ["--compile-bytecode", "--require-hashes", "--build-constraints", LOCK, "-r", LOCK]
    subprocess.run([*uv, *locked], check=True, env=environment, cwd=ROOT)
    # setuptools is locked too, so building the project needs nothing from the network.
    subprocess.run([*uv, "--no-build-isolation", "--editable", ROOT], check=True, env=environment, cwd=ROOT)


def main() -> int:
    """Checks the machine, then installs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="the virtual environment to make or bring up to date")
    parser.add_argument("--check", metavar="PROGRAM", help="install nothing; say what is missing, PROGRAM included")
    arguments = parser.parse_args()
    problem = machine_problem()
    if problem is None:
        missing = missing_packages()
        if arguments.check and shutil.which(arguments.check) is None:
            missing.append(arguments.check)
        if missing:
            packages = " ".join(missing)
            problem = f"this machine lacks {', '.join(missing)}; as root: apt-get install -y {packages}"
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if arguments.check:
        return 0
    print(f"Installing the locked packages into {arguments.directory} (once, about 3 GB)", flush=True)
    started = time.monotonic()
    try:
        install(create(arguments.directory))
    except subprocess.CalledProcessError as failure:
        command = " ".join(failure.cmd[:4])
        print(f"error: the installation failed at `{command} ...`; its own message is above", file=sys.stderr)
        return 1
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
