"""Runs a compiled pipeline as Kubeflow's driver and launcher would, on a store, one container command after the other.

What the real ones do, as far as a container can tell: every task gets an executor input with remote places; its inputs
are downloaded to a folder that is wiped before every task; only the parents of its outputs are there; afterwards the
folders of its outputs are uploaded and its executor output says what they are. A task whose image, command, parameters
and inputs were seen before is served from the cache, unless it may not be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.workbench import ROOT
from tfctr.storage import exists, join, local_copy
from tfctr.storage.places import send, send_file

Json = dict[str, Any]
Form = Literal["with_mlmd", "without_mlmd"]
_STOPPED = 143
_FOLDERS = {"minio": "minio", "s3": "s3", "gs": "gcs"}


@dataclass
class Ended:
    """What became of a task: `done`, `cached` or `failed`, its output artifacts by key, and what it printed."""

    state: str
    outputs: dict[str, Json] = field(default_factory=dict)
    printed: str = ""


class Launcher:
    """A cluster of one machine.

    Args:
        directory: A local directory for the mounts of the tasks.
        environment: Variables of every container, those of the store among them.
        form: Whether executor inputs have the form with ML Metadata or the one without.
    """

    def __init__(self, directory: Path, environment: dict[str, str], form: Form) -> None:
        self._directory, self._environment, self._form = directory, environment, form
        self._cache: dict[str, dict[str, Json]] = {}
        self._count = 0

    def run(
        self,
        specification: Path,
        parameters: Json | None = None,
        stopped: Mapping[str, Callable[[], bool]] | None = None,
    ) -> dict[str, Ended]:
        """Runs a compiled pipeline until a task fails; returns what became of each task, in order.

        Args:
            specification: What was compiled.
            parameters: What is given anew for this run.
            stopped: Tasks whose pod is stopped once, as soon as a function says so that is asked several times a
                second, and then tried again.
        """
        self._stopped = stopped or {}
        document = yaml.safe_load(specification.read_text(encoding="utf-8"))
        root, run = document["defaultPipelineRoot"], uuid.uuid4().hex[:8]
        given = {
            name: definition["defaultValue"]
            for name, definition in document["root"].get("inputDefinitions", {}).get("parameters", {}).items()
        } | (parameters or {})
        ended: dict[str, Ended] = {}
        for name in _in_order(document["root"]["dag"]["tasks"]):
            ended[name] = self._task(document, name, given, ended, join(root, "tfctr", run))
            if ended[name].state == "failed":
                break
        return ended

    def _task(self, document: Json, name: str, given: Json, ended: dict[str, Ended], root: str) -> Ended:
        task = document["root"]["dag"]["tasks"][name]
        component = document["components"][task["componentRef"]["name"]]
        container = document["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        parameters = {
            key: given[one["componentInputParameter"]] if "componentInputParameter" in one else _constant(one)
            for key, one in task.get("inputs", {}).get("parameters", {}).items()
        }
        inputs = {
            key: ended[one["taskOutputArtifact"]["producerTask"]].outputs[
                one["taskOutputArtifact"]["outputArtifactKey"]
            ]
            for key, one in task.get("inputs", {}).get("artifacts", {}).items()
        }
        seen = json.dumps(
            [container["image"], container["command"], container["args"], parameters, inputs], sort_keys=True
        )
        key = hashlib.sha256(seen.encode()).hexdigest()
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        if cached and key in self._cache:
            return Ended("cached", self._cache[key])
        place = join(root, name, str(uuid.uuid4()))
        result = self._container(container, component, parameters, inputs, place, self._stopped.get(name))
        if result.state == "stopped":  # the driver is not run again, so a retry has the same places
            before = result.printed
            result = self._container(container, component, parameters, inputs, place, None)
            result.printed = before + result.printed
        if cached and result.state == "done":
            self._cache[key] = result.outputs
        return result

    def _container(
        self,
        container: Json,
        component: Json,
        parameters: Json,
        inputs: dict[str, Json],
        place: str,
        stop: Callable[[], bool] | None,
    ) -> Ended:
        mounts = self._directory / "mounts"
        shutil.rmtree(mounts, ignore_errors=True)
        for artifact in inputs.values():
            self._download(artifact["uri"], mounts)
        kinds = component.get("outputDefinitions", {}).get("artifacts", {})
        kinds = {
            **{key: one["artifactType"] for key, one in kinds.items()},
            "executor-logs": {"schemaTitle": "system.Artifact"},
        }
        outputs = {
            key: {"artifacts": [{"name": key, "type": kind, "uri": join(place, key)}]} for key, kind in kinds.items()
        }
        for key in kinds:
            _folder(join(place, key), mounts).parent.mkdir(parents=True, exist_ok=True)
        output_file = _folder(join(place, "output_metadata.json"), mounts)
        executor_input = {
            "inputs": {
                "artifacts": {key: {"artifacts": [self._told(one)]} for key, one in inputs.items()},
                "parameterValues": parameters,
            },
            "outputs": {"artifacts": outputs, "outputFile": str(output_file)},
        }
        status, printed = self._call(container, executor_input, parameters, mounts, stop)
        if status:
            return Ended("stopped" if status == _STOPPED else "failed", printed=printed)
        written = json.loads(output_file.read_text(encoding="utf-8"))["artifacts"]
        made = {}
        for key in component.get("outputDefinitions", {}).get("artifacts", {}):
            [artifact] = written.get(key, {"artifacts": [{}]})["artifacts"]
            uri = artifact.get("uri", join(place, key))
            assert uri.startswith(place), f"{key}: {uri} does not have the expected prefix {place}"
            metadata = artifact.get("metadata", {})
            assert None not in metadata.values(), f"{key}: null in {metadata}"
            self._upload(uri, mounts)
            self._count += 1
            made[key] = {"id": str(self._count), "key": key, "uri": uri, "type": kinds[key], "metadata": metadata}
        return Ended("done", made, printed)

    def _call(
        self,
        container: Json,
        executor_input: Json,
        parameters: Json,
        mounts: Path,
        stop: Callable[[], bool] | None,
    ) -> tuple[int, str]:
        def filled(argument: str) -> str:
            for name, value in parameters.items():
                argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", str(value))
            return argument.replace("{{$}}", json.dumps(executor_input))

        command = [sys.executable if part == "python" else part for part in container["command"]]
        command += [*map(filled, container["args"]), f"--mounts={mounts}"]
        empty = self._directory / "work"
        empty.mkdir(exist_ok=True)
        own = {one["name"]: one["value"] for one in container.get("env", ())}
        environment = {**os.environ, **self._environment, **own, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            process = subprocess.Popen(command, cwd=empty, env=environment, stdout=printed, stderr=subprocess.STDOUT)
            while process.poll() is None:
                if stop is not None and stop():
                    process.send_signal(signal.SIGTERM)
                    stop = None
                time.sleep(0.1)
            printed.seek(0)
            assert not list(empty.iterdir()), "a container leaves nothing in the folder it starts in"
            return process.returncode, printed.read()

    def _told(self, artifact: Json) -> Json:
        """An input as the form has it; its metadata is what Kubeflow makes of it."""
        metadata = {key: int(one) if type(one) is bool else one for key, one in artifact["metadata"].items()}
        metadata |= {"display_name": artifact["key"], "store_session_info": "{}"}
        if self._form == "with_mlmd":
            return {
                "name": artifact["id"],
                "type": {"instanceSchema": ""},
                "uri": artifact["uri"],
                "metadata": metadata,
            }
        whole = {"schemaTitle": artifact["type"].get("instanceSchema", "")}
        return {
            "name": artifact["key"],
            "type": whole,
            "uri": artifact["uri"],
            "metadata": metadata,
            "artifactId": f"id-{artifact['id']}",
        }

    def _download(self, uri: str, mounts: Path) -> None:
        folder = _folder(uri, mounts)
        if not exists(uri):  # an empty folder, which no store keeps
            return
        with local_copy(uri) as copy:
            folder.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if copy.is_dir() else shutil.copy)(copy, folder)

    def _upload(self, uri: str, mounts: Path) -> None:
        folder = _folder(uri, mounts)
        if folder.is_dir():
            send(folder, uri)
        elif folder.is_file():
            send_file(folder, uri)
        else:
            assert self._form == "with_mlmd", f"{uri}: a missing output is an error without ML Metadata"


def _folder(uri: str, mounts: Path) -> Path:
    scheme, _, place = uri.partition("://")
    return mounts / _FOLDERS[scheme] / place


def _constant(one: Json) -> Any:
    return one["runtimeValue"]["constant"]


def _in_order(tasks: Json) -> list[str]:
    """The tasks, each after those it depends on."""
    order: list[str] = []
    while len(order) < len(tasks):
        ready = [name for name in tasks if name not in order and _needs(tasks[name]) <= set(order)]
        assert ready, f"tasks that wait for each other: {set(tasks) - set(order)}"
        order += ready
    return order


def _needs(task: Json) -> set[str]:
    artifacts = task.get("inputs", {}).get("artifacts", {}).values()
    return {*task.get("dependentTasks", ()), *(one["taskOutputArtifact"]["producerTask"] for one in artifacts)}
