"""Asks every signature of a SavedModel in a process that has neither keras nor tfctr, as a model server has neither.

`pipeline.model_check` runs it as a script, `python -P ask_model.py DIRECTORY SECONDS BYTES`. It imports nothing of
ours. Each line of its standard output is a JSON pair: ("asks", what), ("fault", why) or ("done", summary).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

BLOCKED = ("keras", "tf_keras", "tfctr", "pipeline", "serving")
TOWER, SCORE = "user_tower", "score"
NEEDED = ("serving_default", SCORE)
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
PROBABILITIES = "probabilities"
_MOST_WARMUP_REQUESTS = 1000  # a model server refuses a version with more
_ROWS, _LENGTH = 2, 3  # for dimensions that a signature leaves open: the first one, the others


class FaultError(Exception):
    """What a model server would meet."""


class _Blocker(MetaPathFinder):
    """Refuses every import of what a model server lacks."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.split(".")[0] in BLOCKED:
            raise ImportError(f"{fullname}: a model server has no such package")


class Model:
    """A SavedModel, loaded as TensorFlow Serving does: its graph in a session, and no Python of its own.

    Args:
        directory: The SavedModel.
    """

    def __init__(self, directory: str) -> None:
        import tensorflow as tf

        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], directory)
        self.signatures = {
            name: signature
            for name, signature in meta_graph.signature_def.items()
            if signature.outputs and not name.startswith("__")
        }

    def ask(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of a signature; every `probabilities` in it is one.

        Raises:
            FaultError: there is no such signature, its inputs have other names, or what comes back is no answer.
        """
        if name not in self.signatures:
            raise FaultError(f"there is no such signature; the model has {', '.join(sorted(self.signatures))}")
        signature = self.signatures[name]
        if set(inputs) != set(signature.inputs):
            raise FaultError(f"its inputs are {sorted(signature.inputs)}. Received: {sorted(inputs)}")
        outputs = {key: info.name for key, info in signature.outputs.items()}
        answer: dict[str, Any] = self._session.run(
            outputs, {signature.inputs[key].name: value for key, value in inputs.items()}
        )
        if PROBABILITIES in answer:
            _check_probabilities(answer[PROBABILITIES])
        rows = len(next(iter(inputs.values())))
        for key, value in answer.items():
            if value.shape[:1] != (rows,):
                raise FaultError(f"{key} must have {rows} rows, as the request has. Received: shape {value.shape}")
        return answer

    def blank(self, name: str) -> dict[str, Any]:
        """A request of the declared shapes: zeros and empty texts."""
        import tensorflow as tf

        request = {}
        for key, info in self.signatures[name].inputs.items():
            sizes = [dimension.size for dimension in info.tensor_shape.dim]
            shape = [size if size >= 0 else (_LENGTH if index else _ROWS) for index, size in enumerate(sizes)]
            request[key] = tf.zeros(shape, tf.dtypes.as_dtype(info.dtype)).numpy()
        return request


def check(directory: str) -> str:
    """Asks every signature its warm-up requests and a blank one; then score what user_tower answers.

    Returns:
        A summary.

    Raises:
        FaultError: the first thing that is wrong.
    """
    started = time.monotonic()
    _say("asks", "loading")
    import tensorflow as tf

    for name in [name for name in sys.modules if name.split(".")[0] in BLOCKED]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Blocker())
    model = Model(directory)
    _say("asks", "signatures")
    if missing := sorted(set(NEEDED) - set(model.signatures)):
        raise FaultError(f"the model must have {' and '.join(NEEDED)}; it lacks {', '.join(missing)}")
    warmups = list(_warmup_requests(Path(directory) / WARMUP_FILE))
    if missing := sorted(set(model.signatures) - {name for name, _ in warmups}):
        raise FaultError(f"{WARMUP_FILE} has no request for {', '.join(missing)}, whose first callers would wait")
    asked = 0
    state: dict[str, Any] = {}

    def ask(name: str, what: str, inputs: Mapping[str, Any]) -> None:
        nonlocal asked, state
        _say("asks", f"{name}, {what}")
        answer = model.ask(name, inputs)
        asked += 1
        if name == TOWER:
            state = {key: value for key, value in answer.items() if key in model.signatures[SCORE].inputs}

    for number, (name, inputs) in enumerate(warmups, 1):
        ask(name, f"warm-up request {number}", inputs)
        if name == SCORE and state:
            ask(name, f"warm-up request {number} on the answer of {TOWER}", {**inputs, **state})
    # The tower first: a blank state is nobody's, and gets no score.
    for name in sorted(model.signatures, key=lambda name: name != TOWER):
        ask(name, "request of the declared shapes", {**model.blank(name), **(state if name == SCORE else {})})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{asked} requests answered in {time.monotonic() - started:.1f} s with {memory:.1f} GiB ({tf.__version__})"


def _warmup_requests(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The signature and the inputs of each warm-up request."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    _say("asks", WARMUP_FILE)
    if not path.is_file():
        raise FaultError("not there; an export writes it, and without it the first callers of a version wait")
    for number, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(path)), 1):
        if number > _MOST_WARMUP_REQUESTS:
            raise FaultError(f"it has more than {_MOST_WARMUP_REQUESTS} requests, which a model server refuses")
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            raise FaultError(f"record {number} must be a predict_log. Received: {log.WhichOneof('log_type')}")
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        yield request.model_spec.signature_name or "serving_default", inputs


def _check_probabilities(values: Any) -> None:
    import numpy as np

    wrong = values[~(np.isfinite(values) & (values >= 0) & (values <= 1))]
    if wrong.size:
        raise FaultError(f"{PROBABILITIES} must be from 0 to 1. Received: {wrong[0]} ({wrong.size} of {values.size})")


def _say(kind: str, text: str) -> None:
    _answers.write(json.dumps([kind, text]) + "\n")
    _answers.flush()


def main(directory: str, seconds: str, memory: str) -> int:
    """Checks within the limits; the system ends the process past them, also when its parent is gone."""
    signal.alarm(int(seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    try:
        _say("done", check(directory))
    except Exception as error:
        traceback.print_exc()
        name = "" if isinstance(error, FaultError) else f"{type(error).__name__}: "
        _say("fault", name + " ".join(str(error).split())[:300])
        return 1
    return 0


if __name__ == "__main__":
    # What anything else prints goes to the log, where the traceback goes.
    _answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.exit(main(*sys.argv[1:]))
