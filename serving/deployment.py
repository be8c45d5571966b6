"""The serving file: one small YAML that every file of the deployment follows from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from google.protobuf import message, text_format
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tensorflow_serving.config import model_server_config_pb2

from serving.text_protos import batching_parameters, monitoring_config
from tfctr.errors import UserError
from tfctr.features.yaml_file import describe_validation_error, load_yaml

METRICS_PATH = "/monitoring/prometheus/metrics"
CONFIG_DIRECTORY = "/etc/serving"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Strict):
    """The served model."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    base_path: str = Field(pattern="^/", description="where the server sees the versions; absolute")
    num_versions: int = Field(2, ge=2, description="the newest so many; a pinned client needs two")


class Batching(_Strict):
    """TensorFlow Serving's batching parameters; a request is one row whatever its number of candidates."""

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


class Deployment(_Strict):
    """A deployment, as the serving file says it."""

    model: Model
    image: str = Field(pattern=r"^[^\s:]+:\d[^\s:]*$", description="pinned by a tag that is a version")
    load_threads: int = Field(2, ge=1, description="loads beside the traffic")
    batching: Batching | None = None
    xla: bool = Field(False, description="compile on the GPU; every shape anew, so sizes must be fixed")
    gpu_memory_fraction: float | None = Field(None, gt=0, le=1, description="nearly all of the card by default")
    intra_op_threads: int | None = Field(1, ge=1, description="that share one operation; null: one a core")


def load_deployment(path: str | Path) -> Deployment:
    """Reads and checks a serving file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    try:
        return Deployment.model_validate(load_yaml(path))
    except ValidationError as error:
        raise UserError(describe_validation_error(path, error, Deployment)) from None


def render(deployment: Deployment) -> dict[str, str]:
    """The server's files by name; each is printed from the message that the server parses it into."""
    files = {
        "models.config": text_format.MessageToString(models_config(deployment.model)),
        "monitoring.config": text_format.MessageToString(_monitoring()),
        "server.flags": "".join(f"{flag}\n" for flag in flags(deployment)),
    }
    if deployment.batching:
        files["batching.config"] = text_format.MessageToString(_batching(deployment.batching))
    return files


def models_config(model: Model) -> model_server_config_pb2.ModelServerConfig:
    """The configuration that a server starts with: the newest versions, no labels."""
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add(name=model.name, base_path=model.base_path, model_platform="tensorflow")
    entry.model_version_policy.latest.num_versions = model.num_versions
    return config


def flags(deployment: Deployment) -> list[str]:
    """The command line of `tensorflow_model_server`."""
    lines = [
        "--port=8500",
        "--rest_api_port=8501",
        f"--model_config_file={CONFIG_DIRECTORY}/models.config",
        f"--monitoring_config_file={CONFIG_DIRECTORY}/monitoring.config",
        "--enable_serialization_as_tensor_content=true",
        f"--num_load_threads={deployment.load_threads}",
        "--enable_profiler=false",
        # What the liveness probe asks.
        "--enable_grpc_healthcheck_service=true",
        # A server that starts with labels in its file may give them before it has loaded all versions, and then ends.
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
    # Padding would fill with a tensor's first element and leave the outputs long: it stays off.
    parameters.allowed_batch_sizes.extend(batching.allowed_batch_sizes)
    return parameters


def _monitoring() -> message.Message:
    config: message.Message = monitoring_config()
    config.prometheus_config.enable = True
    config.prometheus_config.path = METRICS_PATH
    return config
