"""What TFX's compiler leaves out of a specification, put in by one pass over the compiled document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.kubeflow_artifacts import PAGE
from pipeline.kubeflow_settings import PARAMETERS, Container, Parameter, Platform, Settings, gigabytes
from tfctr.errors import UserError
from tfctr.storage import check_place, is_remote

Json = dict[str, Any]

SCHEMES: dict[Platform, tuple[str, ...]] = {"kubeflow": ("minio", "s3", "gs"), "vertex": ("gs",)}
"""Where a run's root may lie."""

_USES: dict[Parameter, tuple[tuple[str, str], ...]] = {
    "data": (
        *(("ExampleGen", "input_base"), ("Transform", "data"), ("Tuner", "data"), ("Trainer", "data")),
        ("Report", "data"),
    ),
    # No component reads it: it is there for the cache, which would miss that files at the same place are others.
    "data_version": (("ExampleGen", "data_version"), ("Transform", "data_digest"), ("Report", "data_version")),
    "pushed": (("Baseline", "destination"), ("Pusher", "destination")),
    "checkpoints": (("Tuner", "checkpoints"), ("Trainer", "checkpoints")),
}
"""Runtime parameter -> tasks that take it, and under which name. Where the compiled task has no parameter of that name
its custom_config has, and the container's entry point puts the one into the other."""
_REPORT = "Report"
_NEVER_CACHED = ("Baseline", "Pusher", _REPORT)
"""What looks at, or writes to, a directory that Kubeflow knows nothing of, and a page that a passing fault may have
emptied: its task ends well all the same."""
_WRITTEN_BY: dict[Parameter, tuple[str, ...]] = {
    "pushed": ("Baseline", "Pusher"),
    "checkpoints": ("Tuner", "Trainer"),
}
"""Place -> the tasks for which it must be the same in every run."""
_SUFFIX = "_executor"
_TFX_DAG = "tfx-dag"
"""The name that TFX gives to the pipeline under an exit handler."""
_LONGEST = 128 * 1024
"""Bytes of the longest argument that Linux takes; a task's parameters travel in one."""


@dataclass(frozen=True)
class Document:
    """A compiled pipeline.

    Attributes:
        specification: The pipeline.
        kubernetes: What only Kubernetes has: a document of its own, which Vertex AI refuses. None where there is none.
    """

    specification: Json
    kubernetes: Json | None


def complete(
    specification: Json, platform: Platform, settings: Settings, root: str, values: Mapping[str, str]
) -> Document:
    """Puts settings, runtime parameters and the root into what TFX compiled.

    Args:
        specification: TFX's; it is left as it is.
        platform: Where it will run.
        settings: What the containers get.
        root: Where artifacts go.
        values: Of every runtime parameter, the value of a run that gives none.

    Raises:
        UserError: when the settings name a component that there is none of, or what the platform does not have.
    """
    check_root(root, platform)
    done = copy.deepcopy(specification)
    executors = done["deploymentSpec"]["executors"]
    names = [label.removesuffix(_SUFFIX) for label, executor in executors.items() if "container" in executor]
    settings.check(names, platform)
    _check_places(settings, platform, names, values)
    done["defaultPipelineRoot"] = root
    dag = done["components"].get(_TFX_DAG, done["root"])["dag"]
    tasks = {**done["root"]["dag"]["tasks"], **dag["tasks"]}
    for name in names:
        given = settings.of(name)
        container = executors[name + _SUFFIX]["container"]
        if platform == "kubeflow":
            container.pop("lifecycle", None)  # of Vertex AI; Kubeflow passes it by
            if name == _REPORT:
                _show_as_page(done, tasks[name])
        _set(container, "resources", {**container.get("resources", {}), **_resources(given)})
        _set(container, "env", [{"name": key, "value": value} for key, value in given.environment.items()])
        _set_task(tasks[name], given, name)
    _offer_parameters(done, dag["tasks"], offered(settings, platform), values)
    _check_lengths(tasks)
    pods = {f"{name}{_SUFFIX}": _pod(settings.of(name)) for name in names}
    kubernetes = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": pods}}}}
    return Document(done, kubernetes if platform == "kubeflow" else None)


def offered(settings: Settings, platform: Platform) -> tuple[Parameter, ...]:
    """What a run may give anew."""
    return PARAMETERS[platform] if settings.parameters is None else settings.parameters


def check_root(root: str, platform: Platform) -> None:
    """Raises a UserError when a run's artifacts can't lie at a root."""
    allowed = [f"{scheme}://" for scheme in SCHEMES[platform]]
    if not re.fullmatch(f"({'|'.join(SCHEMES[platform])})://[A-Za-z0-9][A-Za-z0-9._-]*(/[^?#\\s]*)?", root):
        raise UserError(
            f"--root {root}: on {platform} artifacts lie at {' or '.join(allowed)}, followed by a bucket and a folder"
        )


def _check_places(settings: Settings, platform: Platform, components: Sequence[str], values: Mapping[str, str]) -> None:
    """Refuses places that a container would lose, or would find only after hours, that they can't be.

    Raises:
        UserError: with the option, the place and what is allowed.
    """
    for name in ("data", "pushed", "checkpoints"):
        place = values[name]
        check_place(place, lasting=True)
        if platform == "vertex":
            if not place.startswith(("gs://", "/gcs/")):
                raise UserError(f"--{name} {place}: on Vertex AI a container sees gs://, and buckets below /gcs/")
            continue
        if is_remote(place):
            continue
        if not place.startswith("/"):
            raise UserError(f"--{name} {place}: a path in a container must be absolute")
        # The data needs no claim, since an image may hold it.
        for component in _WRITTEN_BY.get(name, ()):
            mounts = [claim.mount.rstrip("/") for claim in settings.of(component).claims]
            if component in components and not any(f"{place}/".startswith(f"{mount}/") for mount in mounts):
                raise UserError(
                    f"--{name} {place}: no claim of {component} is mounted there, so it would be gone with the pod; "
                    f"name one in the settings (components.{component}.claims), or the address of a store"
                )


def _show_as_page(document: Json, task: Json) -> None:
    """Gives the output of a task the type of a page; its executor is none of TFX's, which knows no such type."""
    outputs = document["components"][task["componentRef"]["name"]]["outputDefinitions"]["artifacts"]
    for output in outputs.values():
        output["artifactType"] = {"schemaTitle": PAGE, "schemaVersion": "0.0.1"}


def _set(mapping: Json, key: str, value: Any) -> None:
    if value:
        mapping[key] = value


def _resources(given: Container) -> Json:
    found: Json = {}
    _set(found, "cpuLimit", given.cpu)
    _set(found, "cpuRequest", given.cpu_request)
    _set(found, "memoryLimit", given.memory and gigabytes(given.memory))
    _set(found, "memoryRequest", given.memory_request and gigabytes(given.memory_request))
    if given.accelerator is not None:
        found["accelerator"] = {"type": given.accelerator.type, "count": str(given.accelerator.count)}
    return found


def _set_task(task: Json, given: Container, name: str) -> None:
    if given.retries:
        task["retryPolicy"] = {
            "maxRetryCount": given.retries,
            "backoffDuration": f"{given.retry_seconds}s",
            "backoffFactor": 2.0,
        }
    if not given.caching or name in _NEVER_CACHED:
        task.pop("cachingOptions", None)


def _offer_parameters(document: Json, tasks: Json, offered: tuple[Parameter, ...], values: Mapping[str, str]) -> None:
    """Makes what a run may give anew inputs of the pipeline, with defaults, which TFX's compiler drops."""
    defined: Json = {
        name: {"parameterType": "STRING", "defaultValue": values[name], "isOptional": True} for name in offered
    }
    _inputs(document["root"], "inputDefinitions").update(defined)
    if _TFX_DAG in document["components"]:
        # Under an exit handler the pipeline is a component of its own, which is handed nothing unless it says so.
        _inputs(document["components"][_TFX_DAG], "inputDefinitions").update(
            {name: {"parameterType": "STRING"} for name in offered}
        )
        _inputs(document["root"]["dag"]["tasks"][_TFX_DAG], "inputs").update(
            {name: {"componentInputParameter": name} for name in offered}
        )
    for name, uses in _USES.items():
        if name not in offered and name != "data_version":
            continue  # TFX has compiled the value in
        given = {"componentInputParameter": name} if name in offered else {"runtimeValue": {"constant": values[name]}}
        for task, parameter in uses:
            if task in tasks:  # on Vertex AI the baseline is none of ours, and a Tuner is there with a plan only
                component = document["components"][tasks[task]["componentRef"]["name"]]
                _inputs(component, "inputDefinitions").setdefault(parameter, {"parameterType": "STRING"})
                _inputs(tasks[task], "inputs")[parameter] = dict(given)


def _inputs(owner: Json, key: str) -> Json:
    parameters: Json = owner.setdefault(key, {}).setdefault("parameters", {})
    return parameters


def _check_lengths(tasks: Json) -> None:
    for name, task in tasks.items():
        constants = {
            key: given["runtimeValue"]["constant"]
            for key, given in task.get("inputs", {}).get("parameters", {}).items()
            if "runtimeValue" in given
        }
        length = len(json.dumps(constants).encode())
        # The paths and types of artifacts come on top.
        if length > 0.9 * _LONGEST:
            longest = max(constants, key=lambda key: len(str(constants[key])))
            raise UserError(
                f"{name}: its parameters take {length:,} bytes, most of them '{longest}', and a container's argument "
                f"{_LONGEST:,} at most; shorten the file that it comes from (lists of allowed values in the schema)"
            )


def _pod(given: Container) -> Json:
    """What Kubernetes alone has, in the words of Kubeflow's kubernetes_executor_config.proto."""
    pod: Json = {
        "securityContext": {
            "runAsUser": given.security.run_as_user,
            "runAsGroup": given.security.run_as_group,
            "runAsNonRoot": given.security.run_as_non_root,
        }
    }
    for kind, prefix, references in (
        ("secret", "secretAs", given.secrets),
        ("configMap", "configMapAs", given.config_maps),
    ):
        named = [({f"{kind}Name": one.name, "optional": one.optional}, one) for one in references]
        _set(pod, f"{prefix}Volume", [{**name, "mountPath": one.mount} for name, one in named if one.mount])
        variables = [
            {**name, "keyToEnv": [{f"{kind}Key": key, "envVar": env} for env, key in one.environment.items()]}
            for name, one in named
            if one.environment
        ]
        _set(pod, f"{prefix}Env", variables)
    _set(pod, "pvcMount", [_without_none(constant=c.name, mountPath=c.mount, subPath=c.sub_path) for c in given.claims])
    _set(
        pod,
        "emptyDirMounts",
        [
            _without_none(volumeName=s.name, mountPath=s.mount, sizeLimit=s.size, medium=s.medium or None)
            for s in given.scratch
        ],
    )
    _set(pod, "activeDeadlineSeconds", given.timeout_seconds and str(given.timeout_seconds))
    _set(pod, "nodeSelector", given.node_selector and {"labels": dict(given.node_selector)})
    _set(pod, "podMetadata", given.labels and {"labels": dict(given.labels)})
    tolerations = [
        _without_none(
            key=t.key,
            operator=t.operator,
            value=t.value,
            effect=t.effect,
            tolerationSeconds=t.seconds and str(t.seconds),
        )
        for t in given.tolerations
    ]
    _set(pod, "tolerations", tolerations)
    _set(pod, "imagePullPolicy", given.image_pull_policy)
    _set(pod, "imagePullSecret", [{"secretName": name} for name in given.image_pull_secrets])
    return pod


def _without_none(**values: Any) -> Json:
    return {key: value for key, value in values.items() if value is not None}
