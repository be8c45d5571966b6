"""ExampleGen over the package's own reader, so that the pipeline takes every format that `tfctr train` takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from google.protobuf import json_format, wrappers_pb2
from tfx.components.example_gen import base_example_gen_executor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from typing_extensions import override

from tfctr.data.sources import serialized, split_files
from tfctr.features.row_checks import ColumnRule, column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.table_format import TableFormat
from tfctr.storage import parent


def log_example_gen(data: str, file: FeatureFile, splits: Mapping[str, str], code: str) -> FileBasedExampleGen:
    """The component.

    Args:
        data: The data directory.
        file: The feature file. Examples are served from the cache as long as it names the same columns.
        splits: The folder of every split, by the split's name.
        code: A digest of the code that reads logs: another one makes the examples again.
    """
    patterns = [example_gen_pb2.Input.Split(name=name, pattern=f"{folder}/*") for name, folder in splits.items()]
    rules = {name: asdict(rule) for name, rule in column_rules(file).items()}
    told = {"rules": rules, "tables": file.csv.model_dump(mode="json"), "code": code}
    custom = example_gen_pb2.CustomConfig()
    custom.custom_config.Pack(wrappers_pb2.StringValue(value=json.dumps(told, sort_keys=True)))
    return FileBasedExampleGen(
        input_base=data,
        input_config=example_gen_pb2.Input(splits=patterns),
        custom_config=custom,
        custom_executor_spec=executor_spec.BeamExecutorSpec(LogExecutor),
    ).with_id("ExampleGen")


class LogExecutor(base_example_gen_executor.BaseExampleGenExecutor):
    """Reads the files of a split, each by one worker."""

    @override
    def GetInputSourceToExamplePTransform(self) -> Any:
        return _read_log


@beam.ptransform_fn
@beam.typehints.with_input_types(beam.Pipeline)
@beam.typehints.with_output_types(bytes)
def _read_log(pipeline: Any, exec_properties: dict[str, Any], split_pattern: str) -> Any:
    custom = json_format.Parse(exec_properties["custom_config"], example_gen_pb2.CustomConfig())
    told = wrappers_pb2.StringValue()
    custom.custom_config.Unpack(told)
    paths = split_files(exec_properties["input_base"], parent(split_pattern))
    return pipeline | beam.Create(paths) | beam.Reshuffle() | beam.FlatMap(_examples, told.value)


def _examples(path: str, told: str) -> Iterator[bytes]:
    content = json.loads(told)
    rules = {name: ColumnRule(**rule) for name, rule in content["rules"].items()}
    return serialized(path, rules, TableFormat.model_validate(content["tables"]))
