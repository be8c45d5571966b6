"""What containers get of a cluster: resources, secrets, volumes, retries and so on, by component; one YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from tfctr.errors import UserError
from tfctr.features.yaml_file import Strict, checked, load_yaml

Platform = Literal["kubeflow", "vertex"]
Parameter = Literal["data", "data_version", "pushed", "checkpoints"]

PARAMETERS: dict[Platform, tuple[Parameter, ...]] = {
    "kubeflow": ("data", "data_version", "pushed", "checkpoints"),
    # Vertex AI's containers run TFX's own entry point, which looks for no parameter in a component's custom_config.
    "vertex": ("data_version",),
}
"""What can be given anew with every run."""
_COMPILED_IN = {
    "features": "the feature file is compiled in; compile again for another one",
    "experiment": "the experiment is compiled into Trainer, Evaluator and Report; compile again for another one",
    "date": "give the date as data_version, and as part of data where it is in the path",
}
_UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SMALLEST = 2**20


def _checked_memory(text: str) -> str:
    if gigabytes(text) * 1e9 < _SMALLEST:
        raise ValueError(
            f"{text} is less than 1Mi; did you mean {text}Gi?" if text.isdigit() else f"{text} is too little"
        )
    return text


_Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"), AfterValidator(_checked_memory)]
_Mount = Annotated[str, Field(pattern=r"^/[^/].*")]
_Cores = Annotated[float, Field(gt=0)]
_Named = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
"""A name that Kubernetes takes: small letters, digits, dots and dashes."""
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Accelerator(Strict):
    """A kind of accelerator.

    Attributes:
        type: `nvidia.com/gpu` on Kubeflow, `NVIDIA_L4` or the like on Vertex AI.
        count: How many.
    """

    type: Annotated[str, Field(min_length=1)]
    count: Annotated[int, Field(gt=0)] = 1


class Reference(Strict):
    """A secret or a config map of the cluster, by name; its content stays there.

    Attributes:
        name: Its name.
        environment: Variable of the container -> key inside.
        mount: The folder in which its keys are files.
        optional: Whether the container starts without it.
    """

    name: _Named
    environment: dict[_Variable, str] = Field(default_factory=dict)
    mount: _Mount | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _is_used(self) -> Reference:
        if not self.environment and self.mount is None:
            raise ValueError("needs environment, mount or both; else nothing of it reaches the container")
        return self


class Claim(Strict):
    """A persistent volume claim, and where its volume appears."""

    name: _Named
    mount: _Mount
    sub_path: str | None = None


class Scratch(Strict):
    """An empty directory that lives as long as the pod; `medium: Memory` keeps it in memory."""

    name: _Named
    mount: _Mount
    size: _Memory | None = None
    medium: Literal["", "Memory"] = ""


class Toleration(Strict):
    """A taint of nodes that the pod tolerates."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _is_one_that_kubernetes_takes(self) -> Toleration:
        if (self.value is not None) != (self.operator == "Equal"):
            raise ValueError("a value goes with `operator: Equal`, and no value with `operator: Exists`")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds go with `effect: NoExecute`")
        return self


class Security(Strict):
    """As whom the container runs; the default is nobody in particular, and not root.

    The pipeline's document has no group for volumes (fsGroup): a claim must be writable by this user already.
    """

    run_as_user: Annotated[int, Field(ge=0)] = 1000
    run_as_group: Annotated[int, Field(ge=0)] = 1000
    run_as_non_root: bool = True

    @model_validator(mode="after")
    def _is_not_root(self) -> Security:
        if self.run_as_non_root and self.run_as_user == 0:
            raise ValueError("user 0 is root; Kubernetes would start no container with run_as_non_root")
        return self


class Container(Strict):
    """The settings of one component, or of all.

    Attributes:
        cpu: Cores, at most.
        memory: Memory, at most.
        cpu_request: Cores that the scheduler sets aside; as many as `cpu` where it is left out.
        memory_request: The same for memory.
        accelerator: Its accelerator.
        environment: Variables.
        retries: How often a failed task is tried again.
        retry_seconds: The wait before that; it doubles with every try.
        timeout_seconds: After which the pod is stopped.
        caching: Whether a task with the inputs of an earlier one is served from it.
        secrets: Secrets.
        config_maps: Config maps.
        claims: Persistent volumes.
        scratch: Empty directories.
        labels: Labels of the pod.
        node_selector: Labels that the node must have.
        tolerations: Taints that the pod tolerates.
        security: As whom it runs.
        image_pull_policy: When the image is pulled.
        image_pull_secrets: Secrets for that.
    """

    cpu: _Cores | None = None
    memory: _Memory | None = None
    cpu_request: _Cores | None = None
    memory_request: _Memory | None = None
    accelerator: Accelerator | None = None
    environment: dict[_Variable, str] = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0)] = 0
    retry_seconds: Annotated[int, Field(ge=0)] = 60
    timeout_seconds: Annotated[int, Field(gt=0)] | None = None
    caching: bool = True
    secrets: tuple[Reference, ...] = ()
    config_maps: tuple[Reference, ...] = ()
    claims: tuple[Claim, ...] = ()
    scratch: tuple[Scratch, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    security: Security = Security()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[_Named, ...] = ()

    def over(self, default: Container) -> Container:
        """These settings and, where they say nothing, the default's; lists and mappings add to the default's."""
        given: dict[str, Any] = {name: getattr(default, name) for name in default.model_fields_set}
        for name in self.model_fields_set:
            own, others = getattr(self, name), given.get(name)
            if isinstance(own, dict):
                own = {**(others or {}), **own}
            elif isinstance(own, tuple):
                own = (*(others or ()), *own)
            given[name] = own
        return Container.model_construct(_fields_set=set(given), **given)


_KUBERNETES_ONLY = frozenset(
    {
        "timeout_seconds",
        "secrets",
        "config_maps",
        "claims",
        "scratch",
        "labels",
        "node_selector",
        "tolerations",
        "security",
        "image_pull_policy",
        "image_pull_secrets",
    }
)
"""Settings of a pod, which Vertex AI has none of."""


class Settings(Strict):
    """The file.

    Attributes:
        default: For every component.
        components: For one, by its name.
        parameters: What can be given anew with every run; all that the platform can take where it is left out, and
            nothing where it is empty.
    """

    default: Container = Container()
    components: dict[str, Container] = Field(default_factory=dict)
    parameters: tuple[Parameter, ...] | None = None
    _origin: str = PrivateAttr("the settings")

    @field_validator("parameters", mode="before")
    @classmethod
    def _can_be_given_anew(cls, value: Any) -> Any:
        for name in value if isinstance(value, list) else ():
            if name in _COMPILED_IN:
                raise ValueError(f"'{name}' can't be given at submission: {_COMPILED_IN[name]}")
        return value

    def of(self, component: str) -> Container:
        """The settings of a component."""
        return self.components.get(component, Container()).over(self.default)

    def check(self, components: Sequence[str], platform: Platform) -> None:
        """Refuses what a compiled pipeline on a platform can't take.

        Raises:
            UserError: with the file, the path inside it and what is allowed.
        """
        for name in self.components:
            if name not in components:
                raise self._refusal(
                    f"components.{name}", f"no such component. Allowed: {', '.join(sorted(components))}"
                )
        for name in self.parameters or ():
            if name not in PARAMETERS[platform]:
                allowed = ", ".join(PARAMETERS[platform])
                raise self._refusal("parameters", f"'{name}' can't be given anew on {platform}. Allowed: {allowed}")
        if len(set(self.parameters or ())) < len(self.parameters or ()):
            raise self._refusal("parameters", "one stands twice")
        for name in components:
            if problem := _problem(self.of(name), platform):
                raise self._refusal(f"components.{name}" if name in self.components else "default", problem)
        if platform == "vertex":
            places = {"default": self.default, **{f"components.{name}": one for name, one in self.components.items()}}
            for place, given in places.items():
                for name in sorted(_KUBERNETES_ONLY & given.model_fields_set):
                    raise self._refusal(f"{place}.{name}", "Vertex AI has no such setting; take it out")

    def _refusal(self, place: str, message: str) -> UserError:
        return UserError(f"{self._origin}: {place}: {message}")


def _problem(given: Container, platform: Platform) -> str | None:
    """What a platform would refuse of settings that are each right by themselves."""
    if given.accelerator is not None and (platform == "kubeflow") != ("/" in given.accelerator.type):
        example = "nvidia.com/gpu" if platform == "kubeflow" else "NVIDIA_L4"
        return f"accelerator.type: must be as {platform} names it, {example}. Received: {given.accelerator.type}"
    if given.cpu and given.cpu_request and given.cpu_request > given.cpu:
        return f"cpu_request: {given.cpu_request:g} is more than the limit, cpu: {given.cpu:g}"
    if given.memory and given.memory_request and gigabytes(given.memory_request) > gigabytes(given.memory):
        return f"memory_request: {given.memory_request} is more than the limit, memory: {given.memory}"
    mounted = [one.mount for one in (*given.secrets, *given.config_maps, *given.claims, *given.scratch) if one.mount]
    for twice in (mounted, [one.name for one in given.scratch]):
        for name in twice:
            if twice.count(name) > 1:
                return f"{name}: stands twice, in the defaults and here or in one list"
    return None


def load_settings(path: str | Path) -> Settings:
    """Reads and checks a settings file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    settings = checked(Settings, load_yaml(path), path)
    settings._origin = str(path)
    return settings


def gigabytes(memory: str) -> float:
    """An amount of memory as Kubernetes writes it, in units of 10^9 bytes."""
    number = memory.rstrip("kMGTi")
    return float(number) * _UNITS[memory[len(number) :]] / 1e9
