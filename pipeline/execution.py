"""A LocalDagRunner that prints its progress."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from pipeline.progress import Progress
from pipeline.store import Store

RELAYED = ("Tuner", "Trainer")


def execute(pipeline: Any, progress: Progress) -> None:
    """Runs the components of a pipeline one after another, in this process.

    The loop is that of tfx.orchestration.local.LocalDagRunner, which offers no way to see a component begin and end, or
    whether it was served from the cache.

    Args:
        pipeline: What `create_pipeline` returned.
        progress: Told about every component.
    """
    compiled = compiler.Compiler().compile(pipeline)
    run_id = datetime.now().isoformat()
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    deployment = runner_utils.extract_local_deployment_config(compiled)
    which = deployment.metadata_connection_config.WhichOneof("connection_config")
    connection = getattr(deployment.metadata_connection_config, which)
    told = {name for name, _, _ in progress.times}
    for entry in compiled.nodes:
        node = entry.pipeline_node
        name = node.node_info.id
        component = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=metadata.Metadata(connection),
            pipeline_info=compiled.pipeline_info,
            pipeline_runtime_spec=compiled.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        )
        if name in told:
            # The short pipeline that inferred the schema has just run this component.
            component.launch()
            continue
        progress.start(name)
        progress.relaying = name in RELAYED
        try:
            execution = component.launch()
        except BaseException as error:
            progress.finish(name, "FAILED")
            error.add_note(name)
            raise
        finally:
            progress.relaying = False
        progress.finish(name, _outcome(name, execution, connection))


def _outcome(name: str, execution: Any, connection: Any) -> str:
    if execution is None or not execution.execution_id:
        # A resolver leaves no execution. Any other node without one could not run because its inputs were missing.
        return "done"
    return "cached" if Store(connection.sqlite.filename_uri).was_cached(execution.execution_id) else "done"
