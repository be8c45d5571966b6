"""A page of the documentation as blocks of code, which run in its order in one directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "serving" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LANGUAGES = {"sh", "python"}
"""What runs."""
_SECONDS = 600
"""So long may a block take on a busy machine."""
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"^```(?:yaml|python)\n(?=# ([\w/]+\.(?:yaml|py))\b)(.*?)^```", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]+) -->\n\s*\Z")


@dataclass(frozen=True)
class Block:
    """A block of code: its text, where it begins, and why no test runs it, if none does.

    The page says so before the block, in a comment that readers do not see: `<!-- not run: it needs a cluster -->`.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def is_file(self) -> bool:
        return _FILE.match(f"```{self.language}\n{self.text}```") is not None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The blocks of a page that are commands or Python."""
    text, found = path.read_text(encoding="utf-8"), []
    for match in _FENCE.finditer(text):
        if match["language"] in LANGUAGES:
            before = text[: match.start()]
            reason = _NOT_RUN.search(before)
            code = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
            page, line = os.path.relpath(path, ROOT), before.count("\n") + 2
            found.append(Block(page, line, match["language"], code, reason["reason"] if reason else None))
    return found


@dataclass
class Reader:
    """Someone who types what a page says, in one directory, with `.venv/bin` and the packages of the clone at hand.

    A block of YAML or Python that begins with a comment of a file's name (`# build.yaml`) is saved as that file.

    Attributes:
        directory: Where everything is typed.
        packages: Where the packages of the project are imported from.
        names: What the page's Python has defined.
    """

    directory: Path
    packages: Path = ROOT
    names: dict[str, Any] = field(default_factory=dict)
    _sessions: list[int] = field(default_factory=list)

    def reads(self, page: str, instead: Mapping[str, str] | None = None) -> str:
        """Types the blocks of a page, and returns what its commands printed.

        Args:
            page: The path of the page in the clone.
            instead: What is typed in place of what stands in the blocks: a free port for 8500, fewer epochs, names of
                the reader's own files. A key that stands nowhere on the page is an error.
        """
        chosen = [block for block in blocks(ROOT / page) if block.not_run is None]
        assert chosen, f"{page} has no block that runs"
        for old in instead or {}:
            assert any(old in block.text for block in chosen), f"{old} stands in no block of {page} that runs"
        self._save_files(ROOT / page)
        return "".join(self._type(block, instead or {}) for block in chosen)

    def _save_files(self, page: Path) -> None:
        """Saves the files of a page, but none that is there already."""
        for name, text in _FILE.findall(page.read_text(encoding="utf-8")):
            if not (file := self.directory / name).exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")

    def _type(self, block: Block, instead: Mapping[str, str]) -> str:
        text = block.text
        for old, new in instead.items():
            text = text.replace(old, new)
        if block.is_file:
            return ""
        if block.language == "python":
            with _working_in(self.directory):
                # The traceback of a block that fails has the line of the page.
                exec(compile("\n" * (block.line - 1) + text, block.page, "exec"), self.names)
            return ""
        return self._run(block, text)

    def _run(self, block: Block, text: str) -> str:
        output = self.directory / "output.txt"
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with output.open("w", encoding="utf-8") as file:
            # A session of its own, so that servers that a block leaves in the background can be ended with it.
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.directory,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._sessions.append(process.pid)
            status = process.wait(timeout=_SECONDS)
        printed = output.read_text(encoding="utf-8")
        assert status == 0, f"{block.place} ended with {status}:\n{text}\n{printed}"
        return printed

    def leaves(self) -> None:
        """Ends what the blocks left in the background."""
        for session in self._sessions:
            try:
                os.killpg(session, signal.SIGTERM)
            except ProcessLookupError:
                continue
        self._sessions.clear()


@contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
