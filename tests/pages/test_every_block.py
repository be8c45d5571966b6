"""No block of commands or Python on a page is left out without a reason."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import typer

from tests.pages.page import LANGUAGES, PAGES, ROOT, Reader, blocks

READ = {
    page
    for test in Path(__file__).parent.glob("test_*.py")
    for page in re.findall(r"\breads\(\s*\"([^\"]+)\"", test.read_text())
}
"""The pages that a test here reads from the first block to the last."""

COMMAND = re.compile(r"\s*(\$ )?([A-Z_]+=\S+ )*(\.venv/bin/\S+|docker|kubectl|make|pip|python|tensorboard|tfctr) ")


def _commands() -> dict[str, list[str]]:
    """Each module of the project that a page runs, with the lines that do."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        text = re.sub(r"\\\n", " ", page.read_text(encoding="utf-8"))
        for line, module in re.findall(r"(python -m ((?:benchmarks|pipeline|serving|tests)[\w.]*)[^`\n#]*)", text):
            found.setdefault(module, []).append(line)
    return found


def _options(module: str) -> set[str]:
    found = importlib.import_module(f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module)
    if not hasattr(found, "typer"):
        return set(re.findall(r"\"(--[a-z][\w-]*)\"", Path(str(found.__file__)).read_text(encoding="utf-8")))
    app = getattr(found, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command()(found.main)
    command = typer.main.get_command(app)
    commands = [command, *getattr(command, "commands", {}).values()]
    return {option for one in commands for part in one.params for option in (*part.opts, *part.secondary_opts)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_a_test_or_say_why_not(path: Path) -> None:
    left_out = [block.place for block in blocks(path) if block.not_run is None]
    assert str(path.relative_to(ROOT)) in READ or left_out == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_block_is_written_in_one_way_and_names_its_language(path: Path) -> None:
    """Another kind of fence, another name of a language, or none, would keep a block from being run."""
    fences = [line for line in path.read_text(encoding="utf-8").splitlines() if "```" in line or "~~~" in line]
    assert len(fences) % 2 == 0
    for opening, closing in zip(fences[::2], fences[1::2], strict=True):
        indent, language = re.fullmatch(r"( *)```(\w*)", opening).groups()  # type: ignore[union-attr]
        assert language in LANGUAGES | {"yaml", "json", "text", "mermaid"}, opening
        assert closing == f"{indent}```", opening


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_stand_in_blocks_that_run(path: Path) -> None:
    """A command in a block of text would be neither run nor left out with a reason."""
    others = re.findall(r"^ *```(?!sh$|python$)\w+\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE)
    assert [line for text in others for line in text.splitlines() if COMMAND.match(line)] == []


@pytest.mark.parametrize(("module", "lines"), sorted(_commands().items()), ids=str)
def test_a_module_that_a_page_runs_has_those_options(module: str, lines: list[str]) -> None:
    """Of the commands that no test runs, and of those inside a sentence, this much can be tested."""
    known = _options(module)
    named = {option for line in lines for option in re.findall(r"(?<=\s)--[a-z][\w-]*", line)}
    assert named - known == set()


@pytest.mark.parametrize("code", ["sh\nfalse | cat", "sh\necho $UNKNOWN", "python\nassert False"])
def test_a_block_that_fails_is_named(code: str, reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n```sh\ntrue\n```\n\n```{code}\n```\n")
    with pytest.raises(AssertionError) as caught:
        reader.reads(str(page))
    assert caught.traceback[-1].lineno == 7 or "page.md:8 ended with" in str(caught.value)


def test_what_is_not_run_says_so_before_the_block(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\n```\n<!-- not run: it needs a cluster -->\n```sh\nfalse\n```\n\n```python\nb = a\n```\n"
    )
    reader.reads(str(page))
    assert reader.names["b"] == 1
    assert [block.not_run for block in blocks(page)] == [None, "it needs a cluster", None]
