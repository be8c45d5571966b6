"""`python -m tests.golden_table` shows which published numbers are reproduced, by architecture.

It runs the tests that are marked `golden` and counts the comparisons that they make, so there is no list of cases to
maintain. The exit code is not 0 if a test fails that read a case.

A case is covered if a passing test has compared at least one of its tensors, or if a test that read it has failed. The
forward pass of a case has passed if outputs have been compared, and its gradient if gradients have been; "in part"
means that some of its gradients have not. Comparisons in a test that fails do not count, and neither do those in a test
that shows a deviation by a comparison that must fail. Tensors that no test compares are listed below the table.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests import golden_cases

TESTS = Path(__file__).parent


@dataclass(eq=False)
class Recorder:
    """A pytest plugin and an observer of the golden cases.

    Attributes:
        reproduced: Keys of the tensors that a passing test has compared, by case.
        failed: Names of the failing tests, by case.
        collection_errors: Files that could not be read.
    """

    reproduced: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    collection_errors: list[str] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)
    _now: list[tuple[str, str, bool]] = field(default_factory=list)

    def loaded(self, name: str) -> None:
        """See `tests.golden_cases.Observer`."""
        self._read.add(name)

    def compared(self, name: str, key: str, passed: bool) -> None:
        """See `tests.golden_cases.Observer`."""
        self._now.append((name, key, passed))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Clears what the previous test has read and compared."""
        self._read.clear()
        self._now.clear()
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records what a test has compared, or that it has failed."""
        if report.failed:
            for name in self._read:
                self.failed[name].append(report.nodeid)
        elif report.when == "teardown" and all(passed for *_, passed in self._now):
            for name, key, _ in self._now:
                self.reproduced[name].add(key)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Records a file that cannot be collected, since the cases of its tests are missing from the table."""
        if report.failed:
            self.collection_errors.append(report.nodeid)


def files() -> list[str]:
    """The test files that use golden cases."""
    found = [path for path in sorted(TESTS.rglob("test_*.py")) if "golden_cases" in path.read_text()]
    # test_golden_cases.py tests the comparison itself, also with wrong results.
    return [str(path) for path in found if path != TESTS / "test_golden_cases.py"]


def known_cases() -> dict[str, dict[str, Any]]:
    """The manifest entries of all cases, committed or beside the checkout."""
    return {**golden_cases.manifest(golden_cases.BESIDE), **golden_cases.manifest(golden_cases.COMMITTED)}


@dataclass
class Row:
    """The counts of one architecture."""

    cases: int = 0
    covered: int = 0
    forward: int = 0
    with_gradients: int = 0
    gradient: int = 0
    gradient_in_part: int = 0
    failed: int = 0
    open: int = 0


def count(recorder: Recorder) -> tuple[dict[str, Row], dict[str, list[str]]]:
    """The rows of the table, and what the tests leave out of the covered cases."""
    rows: dict[str, Row] = defaultdict(Row)
    left_out = {}
    for name, entry in sorted(known_cases().items()):
        row = rows[entry["architecture"]]
        keys = recorder.reproduced.get(name, set())
        outputs = {key for key in entry["tensors"] if key.startswith("out/")}
        gradients = set(entry["gradients"])
        failed = name in recorder.failed
        row.cases += 1
        row.failed += failed
        row.open += not keys and not failed
        row.covered += bool(keys) or failed
        row.forward += bool(keys & outputs) and not failed
        row.with_gradients += bool(gradients)
        row.gradient += bool(keys & gradients) and not failed
        row.gradient_in_part += bool(keys & gradients) and not gradients <= keys and not failed
        if keys and (missing := sorted((outputs | gradients) - keys)):
            left_out[name] = missing
    return dict(rows), left_out


def show(console: Console, rows: dict[str, Row], left_out: dict[str, list[str]], recorder: Recorder) -> None:
    """Prints the table, then what is left out and what fails."""
    total = Row(**{name: sum(getattr(row, name) for row in rows.values()) for name in Row.__dataclass_fields__})
    table = Table(title="Golden parity", title_justify="left")
    table.add_column("architecture")
    for column in ("cases", "covered", "forward passed", "gradient passed", "failed", "open"):
        table.add_column(column, justify="right")
    ordered = sorted(rows.items(), key=lambda item: (item[1].covered == 0, item[0]))
    for i, (name, row) in enumerate([*ordered, ("total", total)]):
        partial = any(name == known_cases()[case]["architecture"] for case in left_out)
        gradient = f"{row.gradient} of {row.with_gradients}" if row.with_gradients else "-"
        gradient += f", {row.gradient_in_part} in part" if row.gradient_in_part else ""
        cells = (row.cases, row.covered, row.forward, gradient, row.failed, row.open)
        last = i + 1 in (len(ordered), sum(row.covered > 0 for row in rows.values()))
        table.add_row(f"{name} *" if partial else name, *map(str, cells), end_section=last)
    console.print(table)
    if left_out:
        console.print("* Tensors that no test compares:")
        for name, keys in left_out.items():
            console.print(f"  {name}: {', '.join(keys)}", highlight=False, soft_wrap=True)
    for name, entry in known_cases().items():
        if rows[entry["architecture"]].covered and not recorder.reproduced.get(name) and name not in recorder.failed:
            console.print(f"  {name}: open", highlight=False)
    for name, tests in recorder.failed.items():
        console.print(f"FAILED {name}: {', '.join(sorted(set(tests)))}", highlight=False, soft_wrap=True)
    for name in recorder.collection_errors:
        console.print(f"FAILED to collect {name}", highlight=False)


def main(arguments: list[str]) -> int:
    """Runs the tests and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden_table", description=__doc__.splitlines()[0])
    parser.add_argument("--verbose", action="store_true", help="show what pytest prints")
    options = parser.parse_args(arguments)
    recorder = Recorder()
    golden_cases.OBSERVERS.append(recorder)
    flags = ["-q"] if options.verbose else ["-qq", "--no-header", "--no-summary", "--capture=fd", "--tb=no", "-rN"]
    code = pytest.main([*flags, "-p", "no:cacheprovider", "-m", "golden", *files()], plugins=[recorder])
    rows, left_out = count(recorder)
    show(Console(width=None if sys.stdout.isatty() else 120), rows, left_out, recorder)
    return int(bool(recorder.failed or recorder.collection_errors) or code not in (0, 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
