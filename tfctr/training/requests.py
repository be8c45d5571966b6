"""Training input of whole requests, or of users: rows that are equal but for their candidates share a history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from typing_extensions import override

from tfctr.data.columnar import LABEL, WEIGHT
from tfctr.features.columns import CANDIDATE_MASK, GROUP, SIDES, InputSpec, Side, length_name
from tfctr.features.inputs import model_inputs
from tfctr.features.parsing import outcomes
from tfctr.features.spec import FeatureFile
from tfctr.training.dataset import WHOLE, Parts, RankingData
from tfctr.training.request_plan import RequestPlan, equal_rows

_WORTH_IT = 1.1
"""Candidates of a request on average, below which sharing gains next to nothing."""


class RequestData(RankingData):
    """One split as batches of requests, each with its candidates and their labels.

    A request is what the model can't tell apart: rows whose user and context inputs are the same bytes, whatever the
    log calls a request. Rows of a logged request that differ there are several; equal rows of several are one.

    Args:
        copy: The directory of the copy.
        file: The feature file.
    """

    shared: ClassVar[tuple[Side, ...]] = ("user", "context")
    """Whose inputs are equal in all rows of a request."""

    called: ClassVar[str] = "requests"

    def __init__(self, copy: Path, file: FeatureFile) -> None:
        super().__init__(copy, file)
        self._own = tuple(side for side in SIDES if side not in self.shared)
        self._order, self._counts = equal_rows(self._rows.digests(self.shared))

    @override
    def sharing(self, batch_size: int) -> str | None:
        if not len(self):
            return None
        plan = RequestPlan(self._counts, batch_size)
        mean, shapes = len(self) / len(plan.sizes), len(plan.buckets)
        line = (
            f"{len(self):,} rows in {len(plan.sizes):,} {self.called}, {mean:.1f} candidates in each; batches of "
            f"{shapes} shape{'s' if shapes > 1 else ''}, {plan.padding:.0%} of them padding"
        )
        nothing = "; there is next to nothing to share, so training.batch_of=rows is as fast"
        return line + (nothing if mean < _WORTH_IT else "")

    @override
    def steps(self, batch_size: int) -> int:
        return len(RequestPlan(self._counts, batch_size).batches(None))

    @override
    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | None = None,
        skip: int = 0,
        groups: bool = False,
        parts: Parts = WHOLE,
    ) -> tf.data.Dataset:
        """(inputs, labels [B, C], weights [B, C]) batches, `candidate_mask` [B, C] among the inputs.

        Every row is in one batch, as one candidate. The other places hold values of real rows again, so that they read
        no other row of a table, with empty histories, and weigh nothing. B and C are those of one of a few shapes; with
        a seed, the requests of a shape and the order of the batches are shuffled, the same seed giving the same.

        Args:
            batch_size: Rows in a batch, about; see `RequestPlan`.
            shuffle_seed: None keeps the order of the log among the requests of one shape.
            skip: Batches to leave out at the start (a resumed epoch).
            groups: Whether a batch has the raw groups [B, C] too, as its fourth; the feature file must name a group.
            parts: Which parts of every batch to read, by requests.
        """
        plan = RequestPlan(self._counts, batch_size)
        batches = plan.batches(shuffle_seed)[skip:]

        def generate() -> Iterator[tuple[Any, ...]]:
            for requests, (places, candidates) in batches:
                for part in parts.of_rows(places):
                    own, shape = requests[part], (len(range(places)[part]), candidates)
                    yield self._batch(plan.starts[own], plan.sizes[own], shape, groups)

        return tf.data.Dataset.from_generator(generate, output_signature=self._signature(groups)).prefetch(4)

    def _batch(
        self, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], shape: tuple[int, int], groups: bool
    ) -> tuple[Any, ...]:
        steps = np.arange(shape[1])
        real = np.zeros(shape, bool)
        real[: len(sizes)] = steps < sizes[:, None]
        rows = self._order[(starts[:, None] + steps)[real[: len(sizes)]]]
        # A device may have none of the requests of a small batch.
        first = self._order[:1]
        own = self._rows.take(rows if len(rows) else first, groups, sides=self._own)
        shared = self._rows.take(self._order[starts] if len(starts) else first, sides=self.shared)
        # What is not real repeats the first candidate of its request, or of the first one.
        candidates = np.zeros(shape, np.int64)
        candidates[: len(sizes)] = (np.cumsum(sizes) - sizes)[:, None]
        candidates[real] = np.arange(len(rows))
        repeated = np.minimum(np.arange(shape[0]), max(len(sizes) - 1, 0))

        def weighed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.where(real, values[candidates], 0.0).astype(values.dtype)

        def padded(spec: InputSpec) -> npt.NDArray[Any]:
            values: npt.NDArray[Any] = shared[spec.name][repeated]
            if spec.name in lengths:
                values[len(sizes) :] = 0
            return values if spec.side == "user" else values[:, None]

        lengths = {length_name(name) for name in self.file.sequences}
        # All contexts have an axis of candidates, or Keras would make one step of inputs with and without it.
        inputs = {
            spec.name: own[spec.name][candidates] if spec.side in self._own else padded(spec)
            for spec in model_inputs(self.file)
        }
        batch = (inputs | {CANDIDATE_MASK: real}, weighed(own[LABEL]), weighed(own[WEIGHT]))
        return (*batch, own[GROUP][candidates]) if groups else batch

    @override
    def _signature(self, groups: bool) -> tuple[Any, ...]:
        inputs = {CANDIDATE_MASK: tf.TensorSpec([None, None], tf.bool)}
        for spec in model_inputs(self.file):
            axes = [] if spec.side == "user" else [None]
            inputs[spec.name] = tf.TensorSpec([None, *axes, *spec.shape], spec.dtype)
        pairs = tf.TensorSpec([None, None], tf.float32)
        signature = (inputs, pairs, pairs)
        if not groups:
            return signature
        return (*signature, tf.TensorSpec([None, None], outcomes(self.file)[self.file.group or ""].dtype))


class UserData(RequestData):
    """One split as batches of users in one state: rows whose user inputs are the same bytes, at any time.

    Each row keeps a context of its own, along the axis of the candidates: [B, C, ...].

    Args:
        copy: The directory of the copy.
        file: The feature file.
    """

    shared = ("user",)
    called = "states of users"
