"""The experiment file: which model, how it is trained, what it must reach."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from tfctr.errors import UserError
from tfctr.features.yaml_file import Strict, checked, describe_validation_error, either, load_yaml, parse_yaml
from tfctr.interactions import INTERACTIONS, create_interaction
from tfctr.interests import SequenceFacts, create_interest
from tfctr.losses import create_auxiliary_loss, create_loss
from tfctr.models.config import ModelConfig, as_mapping
from tfctr.models.entry_keys import ENTRY_KEYS, module_options
from tfctr.models.naming import model_name
from tfctr.models.presets import preset
from tfctr.optimizers import check_learning_rate, check_optimizer
from tfctr.training.demands import Evaluation
from tfctr.training.keys import with_key
from tfctr.training.monitors import MonitorName
from tfctr.training.published import published_experiments, published_path

RATE = "training.learning_rate"
"""The key of the rate that optimizers share, for messages."""
# Stands for the sequences of a feature file where there is none at hand.
ANY_SEQUENCE = SequenceFacts("any", max_length=1, frozen=("any",), features={"any": 1})


class StartFrom(Strict):
    """Weights of single interests from an earlier run, as in MAKE's two stages."""

    run: str = Field(min_length=1, description="the directory of a finished `tfctr train`")
    parts: tuple[str, ...] = Field(min_length=1, description="types of interests that this run and that one have")
    freeze: bool = Field(False, description="keep these weights: no gradient, no dropout, no loss of their own")

    @field_validator("parts")
    @classmethod
    def _named_once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError(f"the same type twice in {list(parts)}")
        return parts


class Training(Strict):
    """How to train: optimizers and rates, validation after every epoch, plateau and early stopping by what it shows."""

    epochs: int = Field(20, ge=1, description="at most that many passes over the training split")
    batch_size: int = Field(1024, ge=1)
    batch_of: Literal["rows", "requests", "users"] = Field(
        "rows",
        description="requests: rows that differ in their candidates only share one encoded history; users: in their "
        "candidates and their context",
    )
    optimizer: Annotated[
        str | dict[str, Any], either("the name of an optimizer, or a mapping with its `type` and arguments")
    ] = Field("adam", description="of all weights, or of all but tables")
    embedding_optimizer: Annotated[
        str | dict[str, Any] | None,
        either("the name of an optimizer, a mapping with its `type` and arguments, or null"),
    ] = Field(None, description="of tables, where the feature file names none; null: as all other weights")
    learning_rate: Annotated[
        Annotated[float, Field(gt=0)] | dict[str, Any],
        either("a number above 0, or a mapping with the `type` of a schedule and its arguments"),
    ] = Field(1e-3, description="of every optimizer that has none of its own; a schedule is a mapping with its type")
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rates rise from zero")
    clip_norm: float | None = Field(10.0, gt=0, description="global gradient norm; null: no clipping")
    monitor: MonitorName = Field("auc", description="what tells a better epoch, on the validation split")
    patience: int = Field(2, ge=1, description="stop after that many epochs without a better one")
    plateau_factor: float = Field(
        0.1, gt=0, le=1, description="rates that are numbers times this after an epoch that is no better"
    )
    min_learning_rate: float = Field(1e-6, gt=0)
    min_improvement: float = Field(1e-6, ge=0, description="a smaller gain of the monitor is none")
    checkpoint_steps: int = Field(500, ge=1, description="a killed run loses at most that many steps")
    dtype: Literal["float32", "mixed_bfloat16"] = "float32"
    jit_compile: bool | None = Field(
        None, description="XLA, which compiles for seconds; null: if steps of backbone and interests are faster with it"
    )
    devices: Annotated[
        Annotated[int, Field(ge=1)] | Literal["all"], either("a whole number of at least 1, or `all`")
    ] = Field(1, description="GPUs of this machine, each of which has its part of every batch")
    seed: int = Field(1, ge=0, lt=2**32)
    start_from: StartFrom | None = Field(None, description="weights of interests from an earlier run")


class Export(Strict):
    """How the SavedModel is written."""

    state_dtype: Literal["float32", "float16"] = "float32"
    warmup_candidates: tuple[int, ...] = Field((1, 500), description="candidates in the warm-up requests of score")
    warmup_row: Literal["made", "logged"] = Field(
        "made", description="logged: the warm-up requests hold the first row of the training data, a real user's"
    )
    max_rows: int = Field(4096, ge=1, description="rows of a request of serving_default and user_tower")
    max_candidates: int = Field(16_384, ge=1, description="candidates of all rows of a request of score together")
    max_string_bytes: int = Field(2**24, ge=1, description="bytes of all strings of a request together")
    fold: bool = Field(True, description="serve the backbone with its products summed and its normalization folded")


class Experiment(Strict):
    """An experiment: a preset, changes to it, and how to train, evaluate and export it."""

    preset: str = "din"
    model: dict[str, Any] = Field(default_factory=dict, description="replaces keys of the preset: interests, loss ...")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    export: Export = Export()

    def model_config_of(self) -> ModelConfig:
        """The preset with the changes; `interaction` and `loss` are merged key by key unless their `type` changes."""
        base = preset(self.preset).model_dump()
        for key, given in self.model.items():
            value = as_mapping(given) if isinstance(base.get(key), dict) else given
            merges = isinstance(value, dict) and isinstance(base.get(key), dict)
            same_type = merges and value.get("type", base[key].get("type")) == base[key].get("type")
            base[key] = {**base[key], **value} if same_type else value
        return ModelConfig.model_validate(base)

    def as_trained(self) -> Experiment:
        """The experiment without its demands and slices, on which no training depends."""
        return self.model_copy(update={"evaluation": Evaluation(weighting=self.evaluation.weighting)})

    @property
    def model_name(self) -> str:
        """What the model is called: the preset, and which parts of it are others."""
        return model_name(self.preset, self.model_config_of().model_dump())

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; runs of equal experiments share their checkpoints."""
        # A run may be continued on more devices or fewer.
        text = self.model_dump_json(exclude={"evaluation": True, "export": True, "training": {"devices"}})
        text += self.model_config_of().model_dump_json()
        # The only key of `evaluation` that a run's own figures depend on.
        text += self.evaluation.weighting
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """An experiment with some keys changed.

    Args:
        experiment: The experiment.
        settings: `KEY=VALUE` each: the path of a key in the file, its parts joined by dots, and a value in YAML.

    Raises:
        UserError: with the path and what is allowed.
    """
    content = experiment.model_dump(mode="json", exclude_unset=True)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise UserError(f"--set: must be KEY=VALUE, as in training.epochs=3. Received: '{setting}'")
        value = parse_yaml(text, f"--set {path}")
        try:
            with_key(content, path, value)
        except ValueError as error:
            raise UserError(f"--set {setting}: {error}") from None
    return experiment_of(content, "--set") if settings else experiment


def load_experiment(path: str | Path) -> Experiment:
    """Reads and checks an experiment file.

    Args:
        path: A file, or the name of a published run.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    if Path(path).is_file() or Path(path).suffix:
        return experiment_of(load_yaml(path), path)
    names = published_experiments()
    if str(path) not in names:
        raise UserError(f"{path}: can't be read (no such file); published runs: {', '.join(names)}")
    return experiment_of(load_yaml(published_path(str(path))), path)


def experiment_of(content: dict[str, Any], path: str | Path) -> Experiment:
    """An experiment from the content of its file, whose layers and optimizers are tried.

    Args:
        content: The content.
        path: Where it stands, for messages.

    Raises:
        UserError: with the path inside the file and what is allowed.
    """
    experiment = checked(Experiment, content, path)
    try:
        _try_layers(experiment.model_config_of())
        _try_optimizers(experiment.training)
    except ValidationError as error:
        raise UserError(describe_validation_error(f"{path}: model", error)) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return experiment


def _try_optimizers(training: Training) -> None:
    # Also where each optimizer has a rate of its own.
    check_learning_rate(RATE, training.learning_rate)
    check_optimizer("training.optimizer", training.optimizer, training.learning_rate, tables=False, rate_where=RATE)
    if training.embedding_optimizer is not None:
        check_optimizer(
            "training.embedding_optimizer",
            training.embedding_optimizer,
            training.learning_rate,
            tables=True,
            rate_where=RATE,
        )


def _try_layers(config: ModelConfig) -> None:
    """Makes the losses, the interaction and the interests, so that a mistake is told before any data is read."""
    interaction = create_interaction(config.interaction)
    create_loss(config.loss).check_backbone(INTERACTIONS.name_of(type(interaction)), interaction.branches)
    for entry in config.auxiliary:
        create_auxiliary_loss(entry)
    for entry in config.interests or ():
        create_interest(module_options(entry), ANY_SEQUENCE, ENTRY_KEYS)
