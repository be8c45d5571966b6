"""The golden table counts the comparisons that tests make."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests import golden_table
from tests.golden_table import Recorder, count, files

CASES = {
    "a1": {"architecture": "a", "tensors": ["in/x", "out/y"], "gradients": ["grad/x", "grad/w"]},
    "a2": {"architecture": "a", "tensors": ["in/x", "out/y"], "gradients": ["grad/x"]},
    "m1": {"architecture": "m", "tensors": ["in/x", "out/y"], "gradients": []},
}


@pytest.fixture(autouse=True)
def _three_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_table, "known_cases", lambda: CASES)


def play(recorder: Recorder, *comparisons: tuple[str, str, bool], outcome: str = "passed") -> None:
    """Plays a test that reads the cases of these comparisons, makes them and ends."""
    protocol = recorder.pytest_runtest_protocol(None)  # type: ignore[arg-type]
    next(protocol)
    for name, key, passed in comparisons:
        recorder.loaded(name)
        recorder.compared(name, key, passed)
    for when in ("call", "teardown"):
        failed = outcome == "failed" and when == "call"
        report: Any = SimpleNamespace(when=when, failed=failed, nodeid="tests/test_it.py::test")
        recorder.pytest_runtest_logreport(report)


def test_what_a_passing_test_compares_counts() -> None:
    recorder = Recorder()
    play(recorder, ("a1", "out/y", True), ("a1", "grad/x", True))
    rows, left_out = count(recorder)
    row = rows["a"]
    assert (row.cases, row.covered, row.forward, row.gradient, row.gradient_in_part) == (2, 1, 1, 1, 1)
    assert (row.with_gradients, row.failed, row.open) == (2, 0, 1)
    assert left_out == {"a1": ["grad/w"]}
    play(recorder, ("a1", "grad/w", True), ("a2", "out/y", True))
    rows, left_out = count(recorder)
    assert (rows["a"].gradient, rows["a"].gradient_in_part, rows["a"].open) == (1, 0, 0)
    assert left_out == {"a2": ["grad/x"]}
    assert (rows["m"].open, rows["m"].with_gradients) == (1, 0)


def test_a_failing_test_fails_its_cases() -> None:
    recorder = Recorder()
    play(recorder, ("a1", "out/y", True))
    play(recorder, ("a1", "out/y", True), ("a1", "grad/x", False), outcome="failed")
    rows, _ = count(recorder)
    assert (rows["a"].covered, rows["a"].forward, rows["a"].gradient, rows["a"].failed) == (1, 0, 0, 1)


def test_a_test_that_shows_a_deviation_proves_nothing() -> None:
    recorder = Recorder()
    play(recorder, ("m1", "out/y", True), ("m1", "out/y", False))
    assert count(recorder)[0]["m"].open == 1


def test_the_tests_with_golden_cases_are_found() -> None:
    assert any(path.endswith("tests/interests/test_golden.py") for path in files())
