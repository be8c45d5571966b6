"""No block of commands or Python on a page is left out without a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages.page import LANGUAGES, PAGES, ROOT, Reader, blocks

READ = {
    page
    for test in Path(__file__).parent.glob("test_*.py")
    for page in re.findall(r"\breads\(\s*\"([^\"]+)\"", test.read_text())
}
"""The pages that a test here reads from the first block to the last."""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_a_test_or_say_why_not(path: Path) -> None:
    left_out = [block.place for block in blocks(path) if block.not_run is None]
    assert str(path.relative_to(ROOT)) in READ or left_out == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_block_names_its_language(path: Path) -> None:
    """Another name for the same language, or none, would keep a block from being run."""
    opened = re.findall(r"^ *```(\w*)[^\n]*\n.*?^ *```$", path.read_text(), re.DOTALL | re.MULTILINE)
    assert set(opened) <= LANGUAGES | {"yaml", "json", "text", "mermaid"}


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
