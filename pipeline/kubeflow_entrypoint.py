"""What a container of a compiled pipeline runs: `python -m pipeline.kubeflow_entrypoint`, with TFX's arguments.

TFX's own entry point is written for Vertex AI. Open-source Kubeflow tells a container of remote places, of which its
launcher has made folders, and leaves out the types of artifacts; `pipeline.kubeflow_artifacts` translates both ways.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from importlib import metadata
from pathlib import Path
from types import FrameType

from pipeline.kubeflow_artifacts import Json, Places, for_kubeflow, for_tfx
from pipeline.plain import PlainArtifact
from tfctr.errors import UserError
from tfctr.storage import check_place, is_remote, local_path, write_text

_PLAIN = {
    "pipeline.baseline.Baseline_Executor": "write_baseline",
    "pipeline.gate.AnomalyGate_Executor": "check_anomalies",
    "pipeline.model_check.ModelCheck_Executor": "check_servable",
    "pipeline.pusher.AtomicPusher_Executor": "push_blessed",
    "pipeline.report_component.Report_Executor": "report_models",
    "pipeline.schema_by_content.CuratedSchema_Executor": "write_schema",
}
"""Executors that need no TFX -> the function of `pipeline.plain` that does the same."""
_FAILED, _STOPPED = 1, 143


def main(arguments: list[str]) -> int:
    """Runs one component; returns the exit status: 0 done, 1 failed, 143 stopped by SIGTERM.

    Args:
        arguments: The compiled ones, and `--mounts`; what is none of them goes to Beam.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(*_parsed(arguments))
    except KeyboardInterrupt:
        print("stopped; a retry goes on from what is saved", file=sys.stderr)
        return _STOPPED
    except Exception as error:
        from pipeline.errors import user_error_in

        told = user_error_in(error) or _of_the_disk(error)
        if told is None:
            traceback.print_exc()
        else:
            print(f"error: {told}", file=sys.stderr)
        return _FAILED
    return 0


def _of_the_disk(error: BaseException) -> str | None:
    """A full disk, a volume that nobody mounted or one of another user, in one line."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return f"{error.filename}: {error.strerror}; see that its volume is mounted and may be written by this user"


def _interrupt(number: int, frame: FrameType | None) -> None:
    # What Ctrl-C raises: no handler of errors takes it for a failure, and training saves a checkpoint.
    raise KeyboardInterrupt


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m pipeline.kubeflow_entrypoint", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True, help="The component's executor.")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="Kubeflow's executor input.")
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}", help="The component's inputs, as compiled.")
    parser.add_argument("--mounts", type=Path, default=Path("/"), help="Where the launcher keeps its folders.")
    return parser.parse_known_args(arguments)


def _run(given: argparse.Namespace, beam_args: list[str]) -> None:
    try:
        executor_input = json.loads(given.json_serialized_invocation_args)
    except ValueError as error:
        raise UserError(f"--json_serialized_invocation_args: is no JSON, as Kubeflow fills it in: {error}") from None
    output_file = executor_input.get("outputs", {}).get("outputFile")
    if not output_file:
        raise UserError("executor input: outputs.outputFile: is missing")
    if output_file.startswith("gs://"):
        _run_with_tfx(given, executor_input, beam_args)  # Vertex AI
        return
    places = Places(given.mounts)
    translated = for_tfx(executor_input, json.loads(given.json_serialized_inputs_spec_args), places)
    _check_places(translated["inputs"]["parameterValues"])
    if given.executor_class_path in _PLAIN:
        executor_output = _run_plain(_PLAIN[given.executor_class_path], translated)
    else:
        # TFX would take a file that a killed try has left for its driver's words.
        unfinished = Path(f"{output_file}.unfinished")
        unfinished.unlink(missing_ok=True)
        translated["outputs"]["outputFile"] = str(unfinished)
        _run_with_tfx(given, translated, beam_args)
        executor_output = json.loads(unfinished.read_text(encoding="utf-8"))
        unfinished.unlink()
    write_text(Path(output_file), json.dumps(for_kubeflow(executor_output, places), indent=1))


def _check_places(parameters: Json) -> None:
    """Refuses places whose content would be gone with this pod; a run may have given them anew.

    Raises:
        UserError: with the parameter, the place, and what is allowed.
    """
    custom = json.loads(parameters.get("custom_config") or "{}")
    for name in ("destination", "checkpoints"):
        place = parameters.get(name, custom.get(name))
        if place is None and name not in parameters:
            continue
        if not isinstance(place, str):
            raise UserError(f"{name}: must be a path or an address. Received: {place!r}")
        check_place(place, lasting=True)
        if not is_remote(place) and not local_path(place, name).is_absolute():
            raise UserError(f"{name}: {place}: a path in a container must be absolute")


def _run_plain(name: str, executor_input: Json) -> Json:
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]["artifacts"]
    read = {
        key: PlainArtifact(one["uri"], one["metadata"])
        for key, given in inputs["artifacts"].items()
        for one in given["artifacts"]
    }
    written = {key: PlainArtifact(given["artifacts"][0]["uri"]) for key, given in outputs.items()}
    function = getattr(importlib.import_module(PlainArtifact.__module__), name)
    known = inspect.signature(function).parameters
    # TFX passes by parameters that a component does not have, such as those that only tell the cache of a change.
    values = {key: value for key, value in inputs["parameterValues"].items() if key in known}
    given = {**read, **written, **values}
    if missing := [key for key, one in known.items() if key not in given and one.default is one.empty]:
        raise UserError(f"executor input: {name} needs {', '.join(missing)}; the task was given {', '.join(given)}")
    function(**given)
    version = metadata.version("tfx")  # TFX takes an artifact without it for one of an old layout
    return {
        "artifacts": {
            key: {"artifacts": [{"name": key, "uri": one.uri, "metadata": {**one.metadata, "tfx_version": version}}]}
            for key, one in written.items()
        }
    }


def _run_with_tfx(given: argparse.Namespace, executor_input: Json, beam_args: list[str]) -> None:
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    # TFX offers no other way in; a test on recorded inputs tells when it changes.
    given.json_serialized_invocation_args = json.dumps(executor_input)
    kubeflow_v2_run_executor._run_executor(given, beam_args)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # TensorFlow and Beam together have crashed while an interpreter ended, after all work was done.
    os._exit(status)
