"""Names and the one configuration object that runners fill in and `create_pipeline` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfctr.data.keys import code_digest
from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile

if TYPE_CHECKING:  # importing it starts TensorFlow, and the local runner wants to redirect its noise first
    from tfctr.training.experiment import Experiment
    from tfctr.tuning.plan import Plan

PIPELINE_NAME = "tfctr"
#: Split of the examples -> folder of the data directory. TFX calls the validation split "eval".
SPLITS = {"train": "train", "eval": "valid", "test": "test"}
#: The split that the Evaluator measures. Nothing before the Evaluator learns from it.
TEST_SPLIT = "test"

PREPROCESSING_FN = "pipeline.preprocessing.preprocessing_fn"
RUN_FN = "pipeline.trainer.run_fn"
TUNER_FN = "pipeline.tuner.tuner_fn"
BEAM_PLUGIN = "pipeline.beam_compat"

#: The packages and modules of ours that the result of a component depends on, by component.
SOURCES = {
    "ExampleGen": ("tfctr/data/sources", "tfctr/data/examples.py", "pipeline/example_gen.py"),
    "Transform": ("tfctr/features", "pipeline/preprocessing.py", "pipeline/assets.py"),
    "Trainer": ("tfctr", "pipeline/trainer.py", "pipeline/tuner.py", "pipeline/assets.py"),
    "ModelCheck": ("pipeline/servable.py", "pipeline/ask_model.py"),
    "Report": ("tfctr", "pipeline/plain.py", "pipeline/report.py"),
}


@dataclass(frozen=True)
class PipelineConfig:
    """What one pipeline is made of; every path may be remote where TFX and Beam can read it.

    Attributes:
        root: Where artifacts go.
        data: Directory with train/, valid/ and test/ and the files that the feature file names.
        data_digest: Hash of those files (vectors, vocabularies): a changed file must not be served from cache.
        code: Hashes of our source by component; TFX knows a function by its name and would miss a change inside.
        features: The feature file.
        experiment: The experiment.
        checkpoints: Where training keeps its checkpoints, so that a killed run continues.
        pushed: The directory a model server watches.
        schema: The curated schema, a file; without one, and without its text, the short pipeline infers one.
        schema_text: Its content instead, for containers that can't read the file.
        baseline_is_pushed: Whether a new model is compared with the newest version in `pushed` and not with the latest
            blessed model of ML Metadata, which open-source Kubeflow does not look up for TFX.
        report: Whether a component writes the page about the model. The local runner writes it after the run, when it
            knows the seconds of the components.
        metadata: SQLite file of ML Metadata; None for runners that bring their own.
        beam_args: Beam's pipeline arguments.
        tuning: What is searched before the training, if anything; its experiment is `experiment`.
        cache: Whether components with the same inputs are served from earlier runs.
    """

    root: str
    data: str
    data_digest: str
    code: dict[str, str]
    features: FeatureFile
    experiment: Experiment
    checkpoints: str
    pushed: str
    schema: str | None = None
    schema_text: str | None = None
    baseline_is_pushed: bool = False
    report: bool = False
    metadata: str | None = None
    beam_args: tuple[str, ...] = ()
    tuning: Plan | None = None
    cache: bool = True


def check_one(experiment: Path | None, plan: Path | None) -> None:
    """Raises a UserError unless one of the two files is given."""
    if (experiment is None) == (plan is None):
        raise UserError("one of --experiment and --plan must be given, and not both")


def trained_or_tuned(experiment: Path | None, plan: Path | None) -> tuple[Experiment, Plan | None]:
    """The experiment of an experiment file; or that of a plan file, and the plan.

    Raises:
        UserError: neither is given or both, or what is wrong in the file.
    """
    check_one(experiment, plan)
    from tfctr.training.experiment import load_experiment  # which starts TensorFlow
    from tfctr.tuning.plan import load_plan

    if plan is None:
        return load_experiment(str(experiment)), None
    tuning = load_plan(plan)
    return tuning.experiment, tuning


def beam_args(workers: int = 1) -> tuple[str, ...]:
    """Beam's arguments for a run on this machine.

    Args:
        workers: Worker processes; 1 runs Beam inside this process.
    """
    args = [f"--beam_plugin={BEAM_PLUGIN}"]
    if workers > 1:
        args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return tuple(args)


def code_digests() -> dict[str, str]:
    """A hash of our source for every component of `SOURCES`."""
    return {component: code_digest(*places) for component, places in SOURCES.items()}
