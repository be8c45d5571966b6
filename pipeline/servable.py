"""Whether a model server could load a model and ask it; the model is asked by a process that has only TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tfctr.errors import UserError
from tfctr.storage import local_copy

_SCRIPT = Path(__file__).with_name("ask_model.py")
_GIBIBYTE = 2**30
SECONDS = 600
GIBIBYTES = 8


class ModelUnservableError(UserError):
    """A model server could not serve the model."""


def check_model(place: str | Path, seconds: int = SECONDS, gibibytes: float = GIBIBYTES) -> str:
    """Loads and asks a SavedModel in a process of its own.

    The process sees no GPU, which the Trainer may hold still.

    Args:
        place: The SavedModel, on disk or in a store.
        seconds: How long it may take.
        gibibytes: The memory it may take beside three times the size of the model's files.

    Returns:
        What was asked, in words.

    Raises:
        UserError: the model can't be loaded, a request fails, an answer is no probability, or a limit was reached.
    """
    with local_copy(place) as directory:
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        memory = 3 * size + int(gibibytes * _GIBIBYTE)
        process = subprocess.run(
            # -P keeps the directory of the script, whose modules have common names, from the path.
            [sys.executable, "-P", str(_SCRIPT), str(directory), str(seconds), str(memory)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = [json.loads(line) for line in process.stdout.splitlines()]
    if said and said[-1][0] == "done":
        return str(said[-1][1])
    where = next((text for kind, text in reversed(said) if kind == "asks"), "start")
    if said and said[-1][0] == "fault":
        why = said[-1][1]
    elif process.returncode == -signal.SIGALRM:
        why = f"no answer within the limit of {seconds} s"
    else:
        why = f"its process ended with status {process.returncode}; the limit of memory is {memory / _GIBIBYTE:.1f} GiB"
    raise ModelUnservableError(f"the model can't be served: {place}: {where}: {why}")
