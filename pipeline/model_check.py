"""The check between Trainer and Evaluator: a model that a model server could not load and ask is never pushed.

TFX's InfraValidator starts a model server, for which it needs a container engine. This needs a process.
"""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tfx import v1 as tfx
from tfx.utils import path_utils

from tfctr.errors import UserError
from tfctr.storage import local_copy

_TYPES = tfx.types.standard_artifacts
_SCRIPT = Path(__file__).with_name("ask_model.py")
_GIBIBYTE = 2**30
SECONDS = 600
GIBIBYTES = 8


class ModelUnservableError(UserError):
    """A model server could not serve the model."""


@tfx.dsl.components.component
def ModelCheck(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[_TYPES.Model],
    verdict: tfx.dsl.components.OutputArtifact[_TYPES.String],
    code: tfx.dsl.components.Parameter[str],
    seconds: tfx.dsl.components.Parameter[int] = SECONDS,
    gibibytes: tfx.dsl.components.Parameter[int] = GIBIBYTES,
) -> None:
    """Fails when a process without keras and tfctr can't load the model and get answers from every signature.

    Args:
        model: The trained model.
        verdict: A text; it exists only when the model may go on.
        code: A hash of the check's source, so that another check asks models again.
        seconds: How long loading and asking may take.
        gibibytes: The memory it may take beside three times the size of the model's files.
    """
    verdict.value = check_model(path_utils.serving_model_path(model.uri), seconds, gibibytes)


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
