"""What no test types: targets of make, and the packages of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages.page import PAGES, ROOT

MAKE = re.compile(r"`make (?P<words>[^`]+)`")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_has_the_targets(path: Path) -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for match in MAKE.finditer(path.read_text(encoding="utf-8")) for word in match["words"].split()}
    assert {word for word in named if "=" not in word} <= set(targets.split())


def test_the_readme_names_the_packages_that_the_tests_install() -> None:
    (line,) = re.findall(r"^sudo apt-get install -y (.*)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    installed = re.findall(r"missing\+=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert sorted(line.split()) == sorted(" ".join(installed).split())
