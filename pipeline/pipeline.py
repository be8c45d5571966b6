"""The TFX pipeline, made by one pure function of a configuration; the runners only fill in paths."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tfx import v1 as tfx

from pipeline.baseline import Baseline
from pipeline.configs import PIPELINE_NAME, PREPROCESSING_FN, RUN_FN, SPLITS, TEST_SPLIT, TUNER_FN, PipelineConfig
from pipeline.evaluation import DEFAULT_SLICES, eval_config
from pipeline.example_gen import log_example_gen
from pipeline.gate import AnomalyGate
from pipeline.model_check import ModelCheck
from pipeline.pusher import AtomicPusher
from pipeline.report_component import Report
from pipeline.schema_by_content import CuratedSchema
from tfctr.errors import UserError
from tfctr.features.parsing import default_slices, sliceable
from tfctr.training.optimizer import check_table_optimizers
from tfctr.tuning.plan import Plan, check_plan

if TYPE_CHECKING:  # TFX must be imported before it
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig
    from tfx.components.example_gen.component import FileBasedExampleGen


def create_pipeline(config: PipelineConfig) -> tfx.dsl.Pipeline:
    """Returns the pipeline.

    Without a curated schema it ends at SchemaGen; with one it goes on to the Pusher:

        ExampleGen -> StatisticsGen -> ExampleValidator -> AnomalyGate -> Transform -> Trainer -> ModelCheck
        -> Evaluator -> Pusher, and Report where that is asked for

    With a plan of a search, a Tuner stands between Transform and Trainer, which trains the best experiment.

    Args:
        config: What it is made of.
    """
    # At once, so that an interest without a sequence, or a demand that can't be made, is refused before anything runs.
    config.experiment.model_config_of().interests_of(config.features)
    check_table_optimizers(config.experiment.training, config.features)
    if config.experiment.training.start_from is not None:
        raise UserError("training.start_from: a pipeline has no earlier run to start from; use `tfctr train`")
    if config.tuning is not None:
        check_plan(config.tuning, config.features)
        _check_searched(config.tuning)
    judging = _eval_config(config)
    examples = log_example_gen(config.data, config.features, SPLITS, config.code["ExampleGen"])
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    components = [examples, statistics]
    if config.schema is None and config.schema_text is None:
        # Without shapes Transform sees every column as sparse, so a missing value is missing and not an error.
        components.append(
            tfx.components.SchemaGen(
                statistics=statistics.outputs["statistics"],
                infer_feature_shape=False,
                exclude_splits=[name for name in SPLITS if name != "train"],
            )
        )
    else:
        components += _after_schema(config, examples, statistics, judging)
    metadata = None
    if config.metadata is not None:
        metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(config.metadata)
    return tfx.dsl.Pipeline(
        pipeline_name=PIPELINE_NAME,
        pipeline_root=config.root,
        components=components,
        enable_cache=config.cache,
        metadata_connection_config=metadata,
        beam_pipeline_args=list(config.beam_args),
    )


def _check_searched(plan: Plan) -> None:
    """Checks that the Trainer can train whatever a search may find.

    Raises:
        UserError: which key it can't honour.
    """
    for name, said in plan.said_of_training():
        if said.get("start_from") is not None:
            raise UserError(f"search.{name}: a pipeline has no earlier run to start from; use `tfctr tune`")
    for name, one in plan.spaces.items():
        if any(path.split(".")[0] == "evaluation" for path in one.paths(name)):
            raise UserError(
                f"search.{name}: a pipeline judges every model by the `evaluation` of the plan's experiment; set it "
                "there, or use `tfctr tune`"
            )


def _after_schema(
    config: PipelineConfig,
    examples: FileBasedExampleGen,
    statistics: tfx.components.StatisticsGen,
    judging: EvalConfig,
) -> list[object]:
    if config.schema_text is None:
        schema = tfx.components.ImportSchemaGen(schema_file=config.schema)
    else:
        schema = CuratedSchema(text=config.schema_text)
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    gate = AnomalyGate(anomalies=validator.outputs["anomalies"])
    features = config.features.model_dump_json(exclude_unset=True)
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=PREPROCESSING_FN,
        # The test split is evaluated on raw examples, through the signature that will serve.
        splits_config=tfx.proto.SplitsConfig(analyze=["train"], transform=["train", "eval"]),
        custom_config={
            "features": features,
            "data": config.data,
            "data_digest": config.data_digest,
            "code": config.code["Transform"],
        },
        # Statistics of indices are of no use, and the analyzer cache is for data in spans, which this pipeline has not.
        disable_statistics=True,
        disable_analyzer_cache=True,
    )
    transform.add_upstream_node(gate)
    custom_config = {
        "features": features,
        # Demands and slices do not change the model, so they must not change the cache keys of Trainer and Tuner.
        "experiment": config.experiment.as_trained().model_dump_json(),
        "data": config.data,
        "checkpoints": config.checkpoints,
        "code": config.code["Trainer"],
    }
    reads: dict[str, Any] = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema.outputs["schema"],
        "train_args": tfx.proto.TrainArgs(splits=["train"]),
        "eval_args": tfx.proto.EvalArgs(splits=["eval"]),
    }
    tuners = []
    if config.tuning is not None:
        plan = config.tuning.as_searched().model_dump_json(exclude_unset=True)
        tuners.append(tfx.components.Tuner(tuner_fn=TUNER_FN, custom_config={**custom_config, "plan": plan}, **reads))
        tuners[0].add_upstream_node(gate)
    trainer = tfx.components.Trainer(
        run_fn=RUN_FN,
        custom_config=custom_config,
        hyperparameters=tuners[0].outputs["best_hyperparameters"] if tuners else None,
        **reads,
    )
    trainer.add_upstream_node(gate)
    check = ModelCheck(model=trainer.outputs["model"], code=config.code["ModelCheck"])
    if config.baseline_is_pushed:
        baseline = Baseline(destination=config.pushed)
    else:
        baseline = tfx.dsl.Resolver(
            strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
            model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
            model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
        ).with_id("Baseline")
    # The latest blessed model is looked up when the evaluation begins, not when the run does.
    baseline.add_upstream_node(trainer)
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        example_splits=[TEST_SPLIT],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        eval_config=judging,
    )
    # What can't be served is never blessed, or it would be the baseline of later models.
    evaluator.add_upstream_node(check)
    pusher = AtomicPusher(
        model=trainer.outputs["model"],
        blessing=evaluator.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        destination=config.pushed,
    ).with_id("Pusher")
    pusher.add_upstream_node(check)
    components = [schema, validator, gate, transform, *tuners, trainer, check, baseline, evaluator, pusher]
    if config.report:
        report = Report(
            model=trainer.outputs["model"],
            baseline=baseline.outputs["model"],
            data=config.data,
            slices=json.dumps(sliced_features(config)),
            data_version=config.data_digest,
            code=config.code["Report"],
        )
        report.add_upstream_node(evaluator)
        components.append(report)
    return components


def _eval_config(config: PipelineConfig) -> EvalConfig:
    file, evaluation = config.features, config.experiment.evaluation
    logged = [
        d if d.column is None else d.model_copy(update={"column": file.column_of(d.column)}) for d in evaluation.demands
    ]
    return eval_config(
        evaluation.model_copy(update={"demands": tuple(logged)}),
        label=file.labels.evaluated,
        group=file.column_of(file.group or ""),
        weight=file.weight or "",
        slices=slice_columns(config),
    )


def slice_columns(config: PipelineConfig) -> list[str]:
    """The columns of the log that metrics are sliced by: those of `sliced_features`.

    Raises:
        UserError: when the experiment names a column that can't be sliced by.
    """
    return [config.features.column_of(name) for name in sliced_features(config)]


def sliced_features(config: PipelineConfig) -> list[str]:
    """What metrics are sliced by: the meta columns, the usual features that exist, and the experiment's own.

    Raises:
        UserError: when the experiment names a column that can't be sliced by.
    """
    file, wanted = config.features, config.experiment.evaluation
    asked = wanted.slice_columns(file)
    usual = [name for name in DEFAULT_SLICES if name in sliceable(file) and name != file.group]
    return list(dict.fromkeys([*default_slices(file), *usual, *asked]))
