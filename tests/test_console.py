"""What a person reads of a command that is interrupted."""

import pytest

from tfctr.console import console, error_console, resumable


def test_an_interrupted_command_says_that_it_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, resumable():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for made in (console, error_console):
        made().print(":smile: a:b:c [red]")
    found = capsys.readouterr()
    assert found.out == found.err == ":smile: a:b:c [red]\n"
