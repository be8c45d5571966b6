"""The keys, commands, links and examples in the documentation must agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

from tfctr.cli import app
from tfctr.data.build.spec import build_of
from tfctr.features import spec
from tfctr.features.kinds.base import KINDS
from tfctr.features.kinds.vocabularies import VOCABULARIES
from tfctr.features.yaml_file import checked
from tfctr.models.config import ModelConfig
from tfctr.models.presets import PRESETS
from tfctr.training.experiment import Experiment, Training
from tfctr.tuning.methods import Method
from tfctr.tuning.plan import Plan
from tfctr.tuning.spaces import Space

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        found += [(page.name, block) for block in blocks]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings_as_github_names_them(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(((?:[^)#:]*\.md)?)#([^)]+)\)", page.read_text()):
        if not target.startswith("api/"):  # whose headings the site makes of docstrings
            assert anchor in _anchors(page.parent / target if target else page), f"{target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*?)(?: \{: #([\w-]+) \})?$", prose, re.MULTILINE)
    return {own or re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text, own in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_external_links_are_https(page: Path) -> None:
    links = re.findall(r"\]\(([^)]*://[^)]*)\)", page.read_text())
    assert [link for link in links if not re.fullmatch(r"https://[^\s/]+\S*", link)] == []


def test_the_code_of_the_readme_fits_on_a_screen() -> None:
    """GitHub shows about 95 characters of a line beside its sidebar, and hides the rest."""
    for lines in (block.splitlines() for page, block in _blocks("python") if page == "README.md"):
        assert len(lines) <= 12
        assert max(map(len, lines)) <= 95


def test_the_table_of_architectures_is_that_of_the_presets() -> None:
    readme, presets = (ROOT / "README.md").read_text(), (ROOT / "docs" / "presets.md").read_text()
    rows = re.findall(r"^\| \*\*.*\| `([\w-]+)` \| ([\d,]+) \| ([\d,]+) \|$", readme, re.MULTILINE)

    assert len(rows) == 5
    for name, state, flops in rows:
        (row,) = re.findall(rf"^\| `{name}` \| .*", presets, re.MULTILINE)
        assert row.endswith(f" {state} | {flops} |"), row
    assert f"has all {len(PRESETS)}," in readme


def test_the_layout_names_what_is_there() -> None:
    layout = (ROOT / "README.md").read_text().partition("## Layout")[2].partition("\n## ")[0]
    paths = re.findall(r"^\| `([^`]+)`", layout, re.MULTILINE)
    assert "tfctr/" in paths
    assert [path for path in paths if not (ROOT / path).is_dir()] == []


@pytest.mark.parametrize("model", [spec.FeatureFile, spec.Sequence, *KINDS.values(), *VOCABULARIES.values()])
def test_every_key_of_the_feature_file_is_documented(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "features.md").read_text()
    missing = [name for name in model.model_fields if not re.search(rf"\b{name}\b", page)]
    assert not missing


@pytest.mark.parametrize("model", [Plan, *Method.METHODS.values(), *Space.SPACES.values()])
def test_every_key_of_a_plan_is_documented(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "tune.md").read_text()
    assert [name for name in model.model_fields if not re.search(rf"\b{name}\b", page)] == []


def test_yaml_examples_are_valid() -> None:
    sequences, experiments, builds, plans = 0, 0, 0, 0
    for page, block in _blocks("yaml"):
        content = yaml.safe_load(block)
        if "sequences" in content:
            for sequence in content["sequences"].values():
                spec.Sequence.model_validate(sequence)
                sequences += 1
        elif "log" in content:
            build_of(content, page)
            builds += 1
        elif "search" in content:
            checked(Plan, content, page)
            plans += 1
        elif content.get("kind") == "TFJob":
            (container,) = content["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
            assert container["name"] == "tensorflow"
            _check_train(container["command"])
        else:
            assert "preset" in content, f"{page}: what is this an example of?\n{block}"
            Experiment.model_validate(content).model_config_of()
            experiments += 1
    assert sequences >= 1
    assert experiments >= 1
    assert builds >= 1
    assert plans >= 2


def _check_train(command: list[str]) -> None:
    group = typer.main.get_command(app)
    assert command[:2] == ["tfctr", "train"]
    options = {name for option in group.commands["train"].params for name in option.opts}  # type: ignore[attr-defined]
    assert options >= {word for word in command if word.startswith("--")}


def test_python_examples_compile() -> None:
    blocks = _blocks("python")
    assert blocks
    for page, block in blocks:
        compile(block, page, "exec")


def test_what_other_libraries_have_is_called_here_as_the_page_says() -> None:
    page = (ROOT / "docs" / "migration.md").read_text()
    models, *tables = page.split("\n## ")[1:]
    named = {name for row in _cells(models) for name in re.findall(r"`([^`]+)`", row[1])} - {"preset"}
    assert len(named) > 30
    assert named <= PRESETS.keys()
    keys = {
        key for table in tables for row in _cells(table) for key in re.findall(r"`((?:model|training)\.\w+)", row[1])
    }
    assert len(keys) > 5
    parts = {"model": ModelConfig.model_fields, "training": Training.model_fields}
    assert [key for key in keys if key.partition(".")[2] not in parts[key.partition(".")[0]]] == []


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


def test_commands_exist_with_those_options() -> None:
    """Every `tfctr ...` on a page names a command, and options, that the command line has."""
    lines = [(page.name, line) for page in PAGES for line in re.findall(r"`(tfctr [a-z][^`]*)`", page.read_text())]
    lines += [(page, line) for page, block in _blocks("sh") for line in block.splitlines() if line.startswith("tfctr ")]
    assert len(lines) >= 8
    group = typer.main.get_command(app)
    for page, line in lines:
        command, words = group, line.split()[1:]
        while words and hasattr(command, "commands"):
            name = words.pop(0)
            assert name in command.commands, f"{page}: `{line}`"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word not in known]
        assert not unknown, f"{page}: `{line}`: {unknown}"
