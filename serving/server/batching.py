"""Dynamic batching: requests to the same signature of a version are concatenated along dimension 0 and run together."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import grpc
import numpy as np

from serving.server.codec import Array
from serving.server.metrics import Metrics
from serving.server.options import BatchingOptions
from serving.server.status import StatusError, invalid_argument

Execute = Callable[[list[Array], int | None], list[Array]]

_MOST_PADDED = 2**22
"""The most elements of an input of a batch whose requests have to be padded."""


@dataclass
class _Task:
    inputs: list[Array]
    rows: int
    deadline: float | None
    enqueued: float
    result: Future[list[Array]] = field(default_factory=Future)


@dataclass
class _Batch:
    execute: Execute
    opened: float
    rows: int = 0
    tasks: list[_Task] = field(default_factory=list)


class Batcher:
    """The batching queues and the threads that process them, shared by all models.

    Args:
        options: The batching parameters.
        metrics: Where batches are counted.
    """

    def __init__(self, options: BatchingOptions, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._queues: dict[Hashable, deque[_Batch]] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self.threads = [
            threading.Thread(target=self._work, name=f"batch {number}", daemon=True)
            for number in range(options.num_batch_threads)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Stops the threads when the queues are empty."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self, key: Hashable, inputs: list[Array], execute: Execute, timeout_ms: int | None) -> list[Array]:
        """Runs one request, possibly in a batch with other requests of the same key, and returns its outputs.

        Args:
            key: Identifies the requests that may share a batch: model, version, signature and outputs. The types of the
                inputs are added to it, and their shapes beyond dimension 0 unless they are padded, so that a request
                never fails because of its neighbours.
            inputs: The inputs, all with the same dimension 0.
            execute: Runs the concatenated inputs.
            timeout_ms: How long the caller waits for the outputs.

        Raises:
            StatusError: The inputs cannot be batched, or the queue is full.
        """
        rows = _rows(inputs)
        largest = self._options.max_batch_size
        if rows > largest:
            raise invalid_argument(f"Task size {rows} is larger than maximum input batch size {largest}")
        now = time.monotonic()
        task = _Task(inputs, rows, None if timeout_ms is None else now + timeout_ms / 1000, now)
        key = (key, *map(self._kind, inputs))
        with self._changed:
            queue = self._queues.setdefault(key, deque())
            if not queue or queue[-1].rows + rows > largest:
                if len(queue) >= self._options.max_enqueued_batches:
                    raise StatusError(
                        grpc.StatusCode.UNAVAILABLE,
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(queue)} batches enqueued and max_enqueued_batches is "
                        f"{self._options.max_enqueued_batches}",
                    )
                queue.append(_Batch(execute, now))
            queue[-1].tasks.append(task)
            queue[-1].rows += rows
            self._changed.notify()
        return task.result.result()

    def _kind(self, array: Array) -> Hashable:
        """What is equal in the arrays that can be joined."""
        shape = array.shape[1:]
        return array.dtype, len(shape) if self._options.pad_variable_length_inputs else shape

    def _work(self) -> None:
        while True:
            with self._changed:
                while (batch := self._take()) is None:
                    if self._stopped and not self._queues:
                        return
                    self._changed.wait(self._wait_seconds())
            self._process(batch)

    def _take(self) -> _Batch | None:
        """The oldest batch that is ready to run."""
        now = time.monotonic()
        due = [
            (queue[0].opened, key)
            for key, queue in self._queues.items()
            if len(queue) > 1
            or queue[0].rows >= self._options.max_batch_size
            or now - queue[0].opened >= self._options.timeout_seconds
        ]
        if not due:
            return None
        _, key = min(due, key=lambda pair: pair[0])
        batch = self._queues[key].popleft()
        if not self._queues[key]:
            del self._queues[key]
        return batch

    def _wait_seconds(self) -> float | None:
        opened = [queue[0].opened for queue in self._queues.values()]
        return max(0.0, min(opened) + self._options.timeout_seconds - time.monotonic()) if opened else None

    def _process(self, batch: _Batch) -> None:
        now = time.monotonic()
        tasks = []
        for task in batch.tasks:
            if task.deadline is not None and task.deadline <= now:
                message = "Run() timeout exceeded while waiting in batching queue"
                task.result.set_exception(StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
            else:
                tasks.append(task)
        if not tasks:
            return
        try:
            self._run(batch, tasks, now)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].result.set_exception(error)
                return
            # One request can be at fault for all of them, so each is run alone and gets its own answer.
            for task in tasks:
                self._process(replace(batch, rows=task.rows, tasks=[task]))

    def _run(self, batch: _Batch, tasks: list[_Task], now: float) -> None:
        rows = sum(task.rows for task in tasks)
        size = self._options.rounded(rows)
        joined = [self._join(list(arrays), size) for arrays in zip(*(task.inputs for task in tasks), strict=True)]
        # The batch runs until the latest of its deadlines, so that no request is cut off early.
        deadlines = [task.deadline for task in tasks]
        left = None if None in deadlines else max(1, int(1000 * (max(filter(None, deadlines)) - now)))
        outputs = batch.execute(joined, left)
        self._metrics.batch(rows, size - rows, [now - task.enqueued for task in tasks])
        _split(outputs, tasks, len(joined[0]) if joined else size)

    def _join(self, arrays: list[Array], size: int) -> Array:
        if len({array.shape[1:] for array in arrays}) > 1:
            widest = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
            if sum(map(len, arrays)) * math.prod(widest) > _MOST_PADDED:
                raise invalid_argument("the requests of a batch are too different to be padded")  # each runs alone
            arrays = [_padded(array, widest) for array in arrays]
        rows = sum(len(array) for array in arrays)
        filled = [array for array in arrays if len(array)]
        if filled and size > rows:
            # Like TensorFlow Serving, pad with copies of the first row of the last request.
            arrays = [*arrays, np.repeat(filled[-1][:1], size - rows, axis=0)]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _rows(inputs: list[Array]) -> int:
    if any(array.ndim == 0 for array in inputs):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs}
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop() if sizes else 1


def _padded(array: Array, widest: tuple[int, ...]) -> Array:
    """The array, padded with its first element as in TensorFlow Serving."""
    if array.shape[1:] == widest:
        return array
    result = np.zeros((len(array), *widest), array.dtype)
    result[...] = array.flat[0] if array.size else (b"" if array.dtype == object else 0)
    result[tuple(slice(0, length) for length in array.shape)] = array
    return result


def _split(outputs: list[Array], tasks: list[_Task], size: int) -> None:
    for output in outputs:
        if np.ndim(output) == 0:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(output) != size:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
    start = 0
    for task in tasks:
        task.result.set_result([output[start : start + task.rows] for output in outputs])
        start += task.rows
