"""The commands inside sentences, which are not typed by a test, name what is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.pages.page import PAGES, ROOT

WITH_SERVERS = [*PAGES, ROOT / "serving" / "README.md"]
MAKE = re.compile(r"`make (?P<words>[^`]+)`")
MODULE = re.compile(r"`(?:\S+ )?python -m (?P<module>[\w.]+)(?P<arguments>[^`]*)`")


@pytest.mark.parametrize("path", WITH_SERVERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_has_the_targets(path: Path) -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for match in MAKE.finditer(path.read_text(encoding="utf-8")) for word in match["words"].split()}
    assert {word for word in named if "=" not in word} <= set(targets.split())


@pytest.mark.parametrize("path", WITH_SERVERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_has_the_modules_and_they_the_options(path: Path) -> None:
    for match in MODULE.finditer(path.read_text(encoding="utf-8")):
        found = find_spec(match["module"])
        assert found, match[0]
        if found.submodule_search_locations:
            found = find_spec(f"{match['module']}.__main__")
            assert found, match[0]
        assert found.origin, match[0]
        source = Path(found.origin).read_text(encoding="utf-8")
        for option in re.findall(r"--([\w-]+)", match["arguments"]):
            # As typer derives it from the name of a parameter, or as it is written for argparse.
            assert f"    {option.replace('-', '_')}: " in source or f'"--{option}"' in source, match[0]


def test_the_readme_names_the_packages_that_the_tests_install() -> None:
    (line,) = re.findall(r"^sudo apt-get install -y (.*)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    installed = re.findall(r"missing\+=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert sorted(line.split()) == sorted(" ".join(installed).split())
