"""What a person reads of a command that is interrupted."""

import pytest

from tfctr.console import resumable


def test_an_interrupted_command_says_that_it_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, resumable():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
