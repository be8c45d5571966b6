"""How a run that fails ends: in one line that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from tfctr.console import error_console
from tfctr.errors import UserError

FAILED, BAD_ARGUMENTS = 1, 2
_OF_A_WORKER = re.compile(rf"^{re.escape(f'{UserError.__module__}.{UserError.__qualname__}')}: (.+)$", re.MULTILINE)
"""What a worker process of Beam met reaches us as the text of its traceback."""
_TRACEBACK = "Traceback (most recent call last):"
_RAISED = re.compile(r"[\w.]+(Error|Exception)\b")
_STEP_OF_BEAM = " [while running"


class RunFailedError(UserError):
    """A run that stopped before its end."""


def user_error_in(error: BaseException) -> str | None:
    """The message of the `UserError` that an error was caused by, in this process or in a worker of Beam."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause).split(_STEP_OF_BEAM)[0]
        cause = cause.__cause__ or cause.__context__
    told = _OF_A_WORKER.findall(str(error))
    return told[-1].split(_STEP_OF_BEAM)[0] if told else None


def for_people(error: BaseException, log: Path) -> BaseException:
    """What a run ends with: the message for users that an error was caused by, or one line and where the log lies."""
    told = user_error_in(error)
    if told is not None:
        return RunFailedError(told)
    if not isinstance(error, Exception):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line.split(_STEP_OF_BEAM)[0] for line in lines if _RAISED.match(line)] if _TRACEBACK in lines else []
    what = raised[-1] if raised else f"{type(error).__name__}: {' '.join(lines[:1])}"
    where = getattr(error, "__notes__", ["the run"])[-1]
    return RunFailedError(f"{where} failed: {what}\nthe whole story: {log}")


@contextmanager
def ends_in_words(interrupted: str = "interrupted; the same command resumes") -> Iterator[None]:
    """Print an error of a command as one line and exit: with 1 when it stopped, 2 for bad arguments, 130 by Ctrl-C."""
    try:
        yield
    except UserError as error:
        error_console().print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(FAILED if isinstance(error, RunFailedError) else BAD_ARGUMENTS) from None
    except KeyboardInterrupt:
        error_console().print(interrupted, markup=False)
        raise typer.Exit(130) from None
