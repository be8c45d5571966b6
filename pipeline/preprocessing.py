"""Transform's preprocessing: analyzers learn vocabularies and statistics, then the one raw function is applied."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from typing_extensions import override

from pipeline.assets import vocabulary_file
from tfctr.features.assets import given_files, given_tables, given_vocabularies, learned_numbers, learned_vocabularies
from tfctr.features.columns import GROUP, STATISTICS
from tfctr.features.inputs import model_inputs
from tfctr.features.kinds.base import Lookups
from tfctr.features.kinds.learned import Accumulator, Numbers, Tokens, known
from tfctr.features.parsing import dense, densify, outcomes
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import RawFunction
from tfctr.features.vocabulary import escape_tensor, indices, lookup_table, write_tokens
from tfctr.storage import local_copy


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Maps the columns of the log to model inputs, label, weight and group.

    Args:
        inputs: Every column of the schema as a sparse tensor.
        custom_config: `features` (the feature file, JSON) and `data` (what relative paths in it are relative to).
    """
    file = FeatureFile.model_validate_json(custom_config["features"])
    inputs = {name: inputs[rule.column] for name, rule in column_rules(file).items()}
    raw = densify(inputs, file)
    lookups = AnalyzerLookups(file, inputs, custom_config["data"])
    transformed = RawFunction(file, lookups).all_sides(raw)
    # tf.Example has int64 only; training reads the indices back as int32.
    outputs = {
        spec.name: transformed[spec.name] if spec.dtype == "float32" else tf.cast(transformed[spec.name], tf.int64)
        for spec in model_inputs(file)
    }
    # The Trainer's validation groups by the raw value: a vocabulary makes one user of all that it does not know.
    outputs |= {
        GROUP if name == file.group else name: dense(inputs[name], column) for name, column in outcomes(file).items()
    }
    if lookups.numbers:
        # The open-source build of Transform has no other public way to hand on numbers, so they stand in every row. A
        # tf.Example has no float64: as bytes they keep all their digits.
        rows = tf.shape(outputs[file.labels.evaluated])[:1]
        outputs[STATISTICS] = tf.fill(rows, tf.io.serialize_tensor(lookups.all_statistics))
    return outputs


class AnalyzerLookups(Lookups):
    """Look-ups from Transform's analyzers; see `tfctr.features.kinds.base.Lookups`.

    A vocabulary is one analyzer over all columns that share it, and all numbers are one analyzer: an analyzer costs
    seconds of fixed time, whatever the data. Numbers are learned by the accumulators of the local pass.

    Args:
        file: The feature file.
        columns: Every column of the log as a sparse tensor.
        data_directory: What relative paths in the feature file are relative to.
    """

    def __init__(self, file: FeatureFile, columns: Mapping[str, Any], data_directory: str) -> None:
        self._columns = columns
        with local_copy(data_directory, only=given_files(file)) as data:
            self._given = given_vocabularies(file, data)
            self._keys = {name: table.keys for name, table in given_tables(file, data).items()}
        self._paths = {owner: self._learn(owner, feeds) for owner, feeds in learned_vocabularies(file).items()}
        self.numbers = learned_numbers(file)
        if self.numbers:
            sizes = [asked.size for asked in self.numbers.values()]
            (self.all_statistics,) = tft.experimental.ptransform_analyzer(
                [columns[name].values for name in self.numbers],
                _Statistics([*self.numbers.values()], file.seed),
                [tf.float64],
                [[sum(sizes)]],
            )
            self._vectors = dict(zip(self.numbers, tf.split(self.all_statistics, sizes), strict=True))

    @override
    def vocabulary(self, owner: str, tokens: Any) -> Any:
        if owner in self._given:
            return indices(_tracked_table(f"vocabulary_{owner}", self._given[owner]), tokens)
        return tft.apply_vocabulary(tokens, self._paths[owner], lookup_fn=_look_up)

    @override
    def rows(self, table: str, tokens: Any) -> Any:
        return _tracked_table(f"frozen_{table}", self._keys[table]).lookup(tokens) + 1

    @override
    def statistics(self, column: str) -> Mapping[str, Any]:
        return self.numbers[column].named(self._vectors[column])

    def _learn(self, owner: str, feeds: Sequence[Tokens]) -> Any:
        tokens = tf.concat([one.of(self._columns[one.column].values) for one in feeds], axis=0)
        return tft.vocabulary(
            escape_tensor(tokens),
            top_k=feeds[0].max_size,
            frequency_threshold=feeds[0].min_count,
            vocab_filename=vocabulary_file(owner),
        )


def _look_up(tokens: Any, path: Any) -> tuple[Any, Any]:
    """Indices of tokens in a token file, and how many different indices there are, that of missing tokens included."""
    # While Transform analyzes, the path of a vocabulary that is not learned yet is a placeholder of the graph.
    with contextlib.nullcontext() if tf.is_symbolic_tensor(path) else tf.init_scope():
        table = lookup_table(path)
    return indices(table, tokens), table.size() + 1


class _Statistics(beam.PTransform):  # type: ignore[misc]
    """From the flat values of columns, a tuple of arrays a batch, to all that is learned of them: one float64 vector.

    Args:
        numbers: What to learn of each column.
        seed: Of the samples.
    """

    def __init__(self, numbers: Sequence[Numbers], seed: int) -> None:
        super().__init__()
        self._combine = _Gather(numbers, seed)

    @override
    def expand(self, batches: Any) -> Any:
        return batches | beam.CombineGlobally(self._combine)


class _Gather(beam.CombineFn):  # type: ignore[misc]
    """The accumulators of the local pass, one a column; NaN stands for the statistics of a column without a number."""

    def __init__(self, numbers: Sequence[Numbers], seed: int) -> None:
        self._numbers, self._seed = numbers, seed

    @override
    def create_accumulator(self) -> list[Accumulator]:
        return [asked.start(self._seed) for asked in self._numbers]

    @override
    def add_input(self, gathered: list[Accumulator], batch: Sequence[Any]) -> list[Accumulator]:
        for accumulator, values in zip(gathered, batch, strict=True):
            accumulator.add(known(values))
        return gathered

    @override
    def merge_accumulators(self, several: Iterable[list[Accumulator]]) -> list[Accumulator]:
        whole = self.create_accumulator()
        for gathered in several:
            for accumulator, other in zip(whole, gathered, strict=True):
                accumulator.merge(other)
        return whole

    @override
    def extract_output(self, gathered: list[Accumulator]) -> Any:
        vectors = [accumulator.result() for accumulator in gathered]
        pairs = zip(self._numbers, vectors, strict=True)
        return np.concatenate([np.full(asked.size, np.nan) if one is None else one for asked, one in pairs])


def _tracked_table(name: str, tokens: list[bytes]) -> Any:
    """A look-up of given tokens, which the graph of Transform takes along as a file."""

    def create() -> Any:
        handle, path = tempfile.mkstemp(dir=_token_files().name)
        os.close(handle)
        write_tokens(path, tokens)
        return lookup_table(path)

    return tft.make_and_track_object(create, name=name)


@functools.cache
def _token_files() -> tempfile.TemporaryDirectory[str]:
    # The files must be there until Transform has saved its graph, so they stay until the process ends.
    return tempfile.TemporaryDirectory(prefix="tfctr-")
