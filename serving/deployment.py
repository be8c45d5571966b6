"""The deployment file: one YAML file, from which is rendered what servers, manifests and compose have in common."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Annotated

import yaml
from google.protobuf import message, text_format
from pydantic import AfterValidator, Field, model_validator
from tensorflow_serving.config import model_server_config_pb2

from serving.text_protos import batching_parameters, monitoring_config
from tfctr import MODEL_NAME
from tfctr.features.yaml_file import Strict, checked, load_yaml

METRICS_PATH = "/monitoring/prometheus/metrics"
CONFIG_DIRECTORY = "/etc/serving"
_SCRIPTS = ("entrypoint.sh", "ready.sh")
_ALERTS = Path(__file__).with_name("alerts.yaml")
_HEADER = "# Rendered by `python -m serving.render`; change {source} instead.\n"


def _without_variant(image: str) -> str:
    if image.endswith("-gpu"):
        raise ValueError(f"must be named without -gpu, which is added for the GPU. Received: {image!r}")
    return image


Image = Annotated[
    str,
    Field(pattern=r"^[^\s:]+(:\d+/[^\s:]+)?:\d[^\s:]*$", description="with a tag that is a version"),
    AfterValidator(_without_variant),
]


class Model(Strict):
    """The served model."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    base_path: str = Field(pattern="^(/|gs://.)", description="absolute path of the versions on the server, or gs://")
    num_versions: int = Field(
        2, ge=2, description="how many of the newest versions; 2 let a client finish with an old state"
    )


class Batching(Strict):
    """TensorFlow Serving's batching parameters. A request counts as one row, however many candidates it has."""

    allowed_batch_sizes: tuple[int, ...] = Field(min_length=1)
    batch_timeout_micros: int = Field(0, ge=0)
    num_batch_threads: int = Field(4, ge=1)
    max_enqueued_batches: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _increasing(self) -> Batching:
        sizes = self.allowed_batch_sizes
        if sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(f"`allowed_batch_sizes` must be positive and increase. Received: {list(sizes)}")
        return self


class Deployment(Strict):
    """The content of a deployment file."""

    model: Model
    image: Image
    base_image: Image
    load_threads: int = Field(2, ge=1, description="threads that load versions")
    batching: Batching | None = None
    xla: bool = Field(False, description="compile with XLA on the GPU; needs fixed shapes")
    gpu_memory_fraction: float | None = Field(None, gt=0, le=1, description="nearly all of the GPU by default")
    intra_op_threads: int | None = Field(1, ge=1, description="threads for one operation; null: one per core")


def load_deployment(path: str | Path) -> Deployment:
    """Reads and checks a deployment file.

    Raises:
        UserError: The file is invalid; the message names the file, the key and what is allowed.
    """
    return checked(Deployment, load_yaml(path), path)


def render(deployment: Deployment) -> dict[str, str]:
    """The rendered files by their path below serving/."""
    served = server_files(deployment)
    config = {f"k8s/base/config/{name}": text for name, text in served.items()}
    images = {
        f"k8s/images/{variant}/kustomization.yaml": _image_component(deployment.image + suffix)
        for variant, suffix in (("cpu", ""), ("gpu", "-gpu"))
    }
    variables = {"IMAGE": deployment.image, "BASE_IMAGE": deployment.base_image}
    return {
        **config,
        "k8s/base/kustomization.yaml": _base(sorted(served)),
        **images,
        "k8s/monitoring/alerts.yaml": _alerts(),
        "compose/.env": _said("configs/serving.yaml")
        + "".join(f"{name}={value}\n" for name, value in variables.items()),
    }


BATCHING_CONFIG = "k8s/base/config/batching.config"
"""The one file that only some deployments have."""


def server_files(deployment: Deployment) -> dict[str, str]:
    """The files of the server by name. Each is printed from the protobuf message that the server parses it into."""
    files = {
        "models.config": text_format.MessageToString(models_config(deployment.model)),
        "monitoring.config": text_format.MessageToString(_monitoring()),
        "server.flags": "".join(f"{flag}\n" for flag in flags(deployment)),
    }
    if deployment.batching:
        files["batching.config"] = text_format.MessageToString(_batching(deployment.batching))
    return files


def _said(source: str) -> str:
    return _HEADER.format(source=source)


def _base(files: list[str]) -> str:
    """The kustomization that gives the pods these files; the manifests name its map, whatever the model's name is."""
    names = [f"config/{file}" for file in [*files, *_SCRIPTS]]
    base = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["serving.yaml", "models-claim.yaml"],
        "configMapGenerator": [{"name": f"{MODEL_NAME}-config", "files": names}],
    }
    return _said("configs/serving.yaml") + yaml.safe_dump(base, sort_keys=False)


def _image_component(image: str) -> str:
    """A part of a kustomization that sets the image, which the base leaves open."""
    name, _, tag = image.rpartition(":")
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [{"name": "serving", "newName": name, "newTag": tag}],
    }
    return _said("configs/serving.yaml") + yaml.safe_dump(component, sort_keys=False)


def _alerts() -> str:
    """The alert rules for Prometheus Operator. Prometheus itself reads them as they are."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": MODEL_NAME, "labels": {"app": MODEL_NAME}},
    }
    spec = indent(_ALERTS.read_text(encoding="utf-8"), "  ")
    return f"{_said('serving/alerts.yaml')}{yaml.safe_dump(rule, sort_keys=False)}spec:\n{spec}"


def models_config(model: Model) -> model_server_config_pb2.ModelServerConfig:
    """The configuration at the start of a server: the newest versions, no labels."""
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add(name=model.name, base_path=model.base_path, model_platform="tensorflow")
    entry.model_version_policy.latest.num_versions = model.num_versions
    return config


def flags(deployment: Deployment) -> list[str]:
    """The command-line flags of `tensorflow_model_server`."""
    lines = [
        "--port=8500",
        "--rest_api_port=8501",
        f"--model_config_file={CONFIG_DIRECTORY}/models.config",
        f"--monitoring_config_file={CONFIG_DIRECTORY}/monitoring.config",
        "--enable_serialization_as_tensor_content=true",
        f"--num_load_threads={deployment.load_threads}",
        "--enable_profiler=false",
        # The liveness probe calls this service.
        "--enable_grpc_healthcheck_service=true",
        # At start, the server may assign labels before all versions are loaded. Without this flag, it would then exit.
        "--allow_version_labels_for_unavailable_models=true",
    ]
    if deployment.batching:
        lines += ["--enable_batching=true", f"--batching_parameters_file={CONFIG_DIRECTORY}/batching.config"]
    if deployment.xla:
        lines.append("--xla_gpu_compilation_enabled=true")
    if deployment.gpu_memory_fraction is not None:
        lines.append(f"--per_process_gpu_memory_fraction={deployment.gpu_memory_fraction}")
    if deployment.intra_op_threads is not None:
        lines.append(f"--tensorflow_intra_op_parallelism={deployment.intra_op_threads}")
    return lines


def _batching(batching: Batching) -> message.Message:
    parameters: message.Message = batching_parameters()
    parameters.max_batch_size.value = batching.allowed_batch_sizes[-1]
    for name in ("batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        getattr(parameters, name).value = getattr(batching, name)
    # pad_variable_length_inputs stays off: it pads with the first element of a tensor and does not cut the outputs.
    parameters.allowed_batch_sizes.extend(batching.allowed_batch_sizes)
    return parameters


def _monitoring() -> message.Message:
    config: message.Message = monitoring_config()
    config.prometheus_config.enable = True
    config.prometheus_config.path = METRICS_PATH
    return config
