"""The image of the pipeline: what its Dockerfile and the script of its steps promise."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.pipeline.logs import ROOT

DOCKERFILE = (Path(ROOT) / "pipeline" / "Dockerfile").read_text(encoding="utf-8")
SCRIPT = Path(ROOT) / "scripts" / "install_image.sh"
FINAL = DOCKERFILE.rpartition("\nFROM ")[2]


def test_the_base_has_a_version_and_can_be_named_by_its_digest() -> None:
    assert re.search(r"^ARG IMAGE=debian:\d+\.\d+-slim$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${IMAGE}", "build"}


def test_it_runs_as_no_root_and_leaves_the_command_to_kubeflow() -> None:
    assert re.findall(r"^USER (\S+)$", FINAL, re.MULTILINE) == ["65532:65532"]
    assert not re.search(r"^(ENTRYPOINT|CMD)", DOCKERFILE, re.MULTILINE)


def test_every_package_is_installed_by_its_hash() -> None:
    script = SCRIPT.read_text(encoding="utf-8")

    assert re.search(r"install --require-hashes .*-r requirements\.lock", script)
    assert "--no-deps" in script


def test_what_is_copied_exists_and_steps_are_the_scripts() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert copies
    assert all((Path(ROOT) / source).exists() for line in copies for source in line.split())
    steps = re.findall(r"^RUN sh (?:/src/)?scripts/install_image\.sh (\w+)$", DOCKERFILE, re.MULTILINE)
    assert (
        steps
        == ["tools", "lock", "gpu", "package", "runtime"]
        == re.findall(r"^  (\w+)\)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert len(steps) == len(re.findall(r"^RUN ", DOCKERFILE, re.MULTILINE))


def test_a_change_of_the_code_installs_no_package_again() -> None:
    assert DOCKERFILE.index("install_image.sh lock") < DOCKERFILE.index("COPY tfctr")
    assert FINAL.index("/opt/tfctr /opt/tfctr") < FINAL.index("/opt/tfctr-code")


def test_an_unknown_step_is_refused() -> None:
    done = subprocess.run(["sh", str(SCRIPT), "all"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "error: the step must be tools, lock, gpu, package or runtime. Received: all\n"
