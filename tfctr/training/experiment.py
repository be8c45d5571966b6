"""The experiment file: which model, how it is trained, what it must reach."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfctr.errors import UserError
from tfctr.features.yaml_file import describe_validation_error, load_yaml
from tfctr.interactions import create_interaction
from tfctr.interests import SequenceFacts, create_interest
from tfctr.losses import create_loss
from tfctr.models.presets import ModelConfig, preset

# Stands for the sequences of a feature file where there is none at hand.
ANY_SEQUENCE = SequenceFacts("any", max_length=1, frozen=("any",), features={"any": 1})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Strict):
    """How to train: Adam, validation after every epoch, plateau and early stopping on the validation AUC."""

    epochs: int = Field(20, ge=1, description="at most that many passes over the training split")
    batch_size: int = Field(1024, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    clip_norm: float | None = Field(10.0, gt=0, description="global gradient norm; null: no clipping")
    patience: int = Field(2, ge=1, description="stop after that many epochs without a better validation AUC")
    plateau_factor: float = Field(
        0.1, gt=0, le=1, description="learning rate times this after an epoch without a better AUC"
    )
    min_learning_rate: float = Field(1e-6, gt=0)
    min_improvement: float = Field(1e-6, ge=0, description="a smaller gain in AUC is none")
    checkpoint_steps: int = Field(500, ge=1, description="a killed run loses at most that many steps")
    shuffle_buffer: int = Field(50_000, ge=1, description="rows in the shuffle buffer")
    dtype: Literal["float32", "mixed_bfloat16"] = "float32"
    jit_compile: bool = Field(True, description="XLA: half the time a step on CPU, after a compilation of seconds")
    seed: int = 1


class Demand(_Strict):
    """A demand on one metric in one slice, beside those on all examples together."""

    column: str = Field(description="the slice column")
    value: str | None = Field(None, description="the slice's value; null: every value of the column")
    metric: Literal["auc", "gauc", "logloss", "copc", "ece", "calibration"] = "gauc"
    minimum: float | None = None
    maximum: float | None = None
    max_fall: float | None = Field(None, description="auc and gauc: allowed fall against the latest blessed model")


class Evaluation(_Strict):
    """What the evaluation reports and what a model must reach to be pushed."""

    slices: tuple[str, ...] = Field((), description="features to slice by, beside the feature file's meta columns")
    weighting: Literal["impressions", "clicks", "uniform"] = Field("impressions", description="of users in GAUC")
    min_auc: float = Field(0.5, ge=0, le=1)
    min_gauc: float = Field(0.5, ge=0, le=1)
    max_auc_fall: float = Field(0.002, ge=0, description="allowed fall against the latest blessed model")
    max_gauc_fall: float = Field(0.002, ge=0)
    demands: tuple[Demand, ...] = Field((), description="demands on single slices")


class Export(_Strict):
    """How the SavedModel is written."""

    state_dtype: Literal["float32", "float16"] = "float32"
    warmup_candidates: tuple[int, ...] = Field((1, 500), description="candidates in the warm-up requests of score")
    fold: bool = Field(True, description="serve the backbone with its products summed and its normalization folded")


class Experiment(_Strict):
    """An experiment: a preset, changes to it, and how to train, evaluate and export it."""

    preset: str = "din"
    model: dict[str, Any] = Field(default_factory=dict, description="replaces keys of the preset: interests, loss ...")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    export: Export = Export()

    def model_config_of(self) -> ModelConfig:
        """The preset with the changes; `interaction` and `loss` are merged key by key unless their `type` changes."""
        base = preset(self.preset).model_dump()
        for key, value in self.model.items():
            merges = isinstance(value, dict) and isinstance(base.get(key), dict)
            same_type = merges and value.get("type", base[key].get("type")) == base[key].get("type")
            base[key] = {**base[key], **value} if same_type else value
        return ModelConfig.model_validate(base)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; runs of equal experiments share their checkpoints."""
        text = self.model_dump_json(exclude={"evaluation", "export"}) + self.model_config_of().model_dump_json()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_experiment(path: str | Path) -> Experiment:
    """Reads and checks an experiment file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    content = load_yaml(path)
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise UserError(describe_validation_error(path, error, Experiment)) from None
    try:
        _try_layers(experiment.model_config_of())
    except ValidationError as error:
        raise UserError(describe_validation_error(f"{path}: model", error, ModelConfig)) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return experiment


def _try_layers(config: ModelConfig) -> None:
    """Makes the loss, the interaction and the interests, so that a mistake is told before any data is read."""
    create_loss(config.loss)
    create_interaction(config.interaction)
    for entry in config.interests:
        options = {key: value for key, value in entry.items() if key not in ("sequence", "content")}
        create_interest(options, ANY_SEQUENCE)
