"""The steps of the pages, as they are written: from what the pipeline pushes to a ranked answer."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.local_runner import OutputLayout
from tests.serving.test_process import Process
from tests.workbench import ROOT
from tfctr import MODEL_NAME
from tfctr.cli import app
from tfctr.client import Ranked, RankingClient

# Where a page writes a server's command, and what stands there for the directory of the versions.
COMMANDS = {
    "README.md": "OUT/serving/ranking",
    "serving/README.md": "DIR",
    "docs/serving.md": "DIR",
}


def command(page: str) -> list[str]:
    """The arguments of `python -m serving.server` on a page, up to the end of the command."""
    (found,) = re.findall(r"python -m serving\.server ([^`&\n]+)", (ROOT / page).read_text(encoding="utf-8"))
    return shlex.split(found)


def snippet() -> str:
    """The first program of docs/client.md."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, exported: dict[str, Path]) -> Path:
    """The output directory of a pipeline that pushed version 1."""
    directory = tmp_path_factory.mktemp("walk")
    shutil.copytree(exported["dmf"], OutputLayout(directory).serving / "1")
    return directory


@pytest.fixture(scope="module", params=COMMANDS)
def address(request: pytest.FixtureRequest, out: Path) -> Iterator[str]:
    """A server that the command of a page started, on a free port and with the pushed versions as its directory."""
    arguments = command(request.param)
    for written, here in ((COMMANDS[request.param], str(OutputLayout(out).serving)), ("8500", "0")):
        arguments[arguments.index(written)] = here
    process = Process(*arguments)
    try:
        yield process.wait_for(r"^ready: .* on grpc://(127\.0\.0\.1:\d+)$")[1]
    finally:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.e2e
def test_the_program_of_the_client_page_ranks(address: str) -> None:
    program = snippet()
    assert program.count("localhost:8500") == 1
    names: dict[str, object] = {}
    exec(program.replace('"localhost:8500"', f'"{address}", timeout_seconds=60'), names)  # one second is for production
    (best,) = names["best"]  # type: ignore[misc]
    assert isinstance(best, Ranked)
    assert 0 < best.probability < 1


@pytest.mark.e2e
def test_the_command_line_asks_for_the_same_model(address: str) -> None:
    ran = CliRunner().invoke(app, ["client", "status", "--target", address, "--timeout", "60", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["state"] == "AVAILABLE"


def test_one_name_from_the_pipeline_to_the_manifests(tmp_path: Path) -> None:
    asked = inspect.signature(RankingClient).parameters["model_name"].default
    configured = yaml.safe_load((ROOT / "configs" / "serving.yaml").read_text(encoding="utf-8"))["model"]["name"]
    assert {asked, configured, OutputLayout(tmp_path).serving.name} == {MODEL_NAME} == {"ranking"}


def test_no_page_asks_for_another_name() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "serving" / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"serving/(\w+)/1\d{9}|OUT/serving/(\w+)|demo/serving/(\w+)|/models/(\w+):ro", text)
        named += re.findall(r"client (?:rank|status)[^\n]* --model (\S+)|model_name=\"(\w+)\"", text)
        assert {name for names in named for name in names if name} <= {MODEL_NAME, "small"}, page
