"""Several processes, on one machine or more, that train one model: the workers that TF_CONFIG names."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from typing_extensions import override

from tfctr.console import console, hush
from tfctr.errors import UserError
from tfctr.models.model import RankingModel
from tfctr.training.cluster import VARIABLE, Cluster, cluster_of
from tfctr.training.dataset import Parts, RankingData
from tfctr.training.devices import check_devices, strategy_of
from tfctr.training.experiment import Training

_Value = TypeVar("_Value")
_CARRIED = (tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.int32, tf.int64)
"""What TensorFlow adds up over workers; other types travel as int64."""


class Workers:
    """The processes that train one model: here, this one alone.

    All of them must call the same methods in the same order, or they wait for one another.

    Attributes:
        count: How many there are.
        chief: Whether this one validates, writes and prints.
    """

    count = 1
    chief = True

    def replicas(self, training: Training) -> int:
        """How many parts a batch of a training has, each of which a device trains on.

        Raises:
            UserError: the devices are not there, or can't train together.
        """
        return check_devices(training)

    def strategy(self, training: Training) -> Any:
        """TensorFlow's strategy, in whose scope the model must be built."""
        return strategy_of(training)

    def said(self, value: _Value) -> _Value:
        """The chief's value, which must be of JSON."""
        return value

    def check_same(self, what: str, value: Any) -> None:
        """Raises a UserError on a worker whose value is not that of the chief."""

    def spread(self, variables: Sequence[Any]) -> None:
        """Gives TensorFlow's variables the values that they have on the chief."""

    def fit_for(self, model: RankingModel, told: Callable[[], bool]) -> None:
        """Prepares a compiled model for the training.

        Args:
            model: The model.
            told: Whether this process has been told to leave.
        """

    def batches(self, data: RankingData, batch_size: int, seed: int, skip: int) -> Any:
        """What this process reads of the batches of an epoch."""
        return data.batches(batch_size, seed, skip)

    def told_in_step(self, told: bool) -> bool:
        """Whether one of them had been told to leave when the last step began."""
        return told

    def told(self, told: bool) -> bool:
        """Whether one of them has been told to leave. On the chief, in what the others wait for."""
        return told

    def wait(self, told: Callable[[], bool]) -> bool:
        """Waits until the chief has come here too; returns whether one of them has been told to leave."""
        return told()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises a UserError if the block can't go on because another one has ended."""
        yield


ALONE = Workers()


@contextmanager
def connected() -> Iterator[Workers]:
    """The workers that TF_CONFIG names, when all of them are there.

    It must come before TensorFlow computes anything in the process, which the check of an experiment does.

    Raises:
        UserError: TF_CONFIG is broken, they can't find one another, or one of them has ended while the block ran.
    """
    cluster = cluster_of(os.environ.get(VARIABLE))
    workers = ALONE if cluster is None or cluster.count == 1 else _Several(cluster)
    with workers.together():
        yield workers


class _Several(Workers):
    """Workers that TensorFlow's collective operations join."""

    def __init__(self, cluster: Cluster) -> None:
        self.count, self.chief = cluster.count, cluster.number == 0
        self._name = f"worker {cluster.number + 1} of {cluster.count}{' (the chief)' if self.chief else ''}"
        self._cluster, self._address = cluster, cluster.jobs[cluster.job][cluster.index]
        self._told = False
        console().print(f"{self._name}, at {self._address}: waits for the others")
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({job: list(addresses) for job, addresses in cluster.jobs.items()}),
            task_type=cluster.job,
            task_id=cluster.index,
            # To ask for logical devices would start TensorFlow too early.
            num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
            rpc_layer="grpc",
        )
        try:
            with self.together(), _killable():
                self._strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except RuntimeError as error:
            raise UserError(
                f"{VARIABLE}: several workers must find one another before TensorFlow computes anything in the "
                f"process; train first ({str(error).splitlines()[0]})"
            ) from None
        except tf.errors.OpError as error:
            raise UserError(f"{self._name}: can't listen at {self._address}: {error.message.splitlines()[0]}") from None
        if not self.chief:
            hush()

    @override
    def replicas(self, training: Training) -> int:
        wanted, all_of_them = check_devices(training, self.count), int(self._strategy.num_replicas_in_sync)
        if wanted * self.count != all_of_them:
            raise UserError(
                f"training.devices: {wanted} are asked for, and each of several workers trains on all GPUs that it "
                f"sees; {self._name} sees {all_of_them // self.count}: set it to `all`"
            )
        return all_of_them

    @override
    def strategy(self, training: Training) -> Any:
        return self._strategy

    @override
    def said(self, value: _Value) -> _Value:
        text = json.dumps(value).encode() if self.chief else b""
        with _killable():
            length = int(self._sum(np.int32(len(text))))
            padded = np.frombuffer(text.ljust(length, b"\0"), np.uint8).astype(np.int32)
            found: _Value = json.loads(self._sum(padded).numpy().astype(np.uint8).tobytes())
        return found

    @override
    def check_same(self, what: str, value: Any) -> None:
        if self.said(value) != value:
            raise UserError(f"{self._name}: {what} is not that of the chief; give all workers the same")

    @override
    def spread(self, variables: Sequence[Any]) -> None:
        for variable in variables:
            carried = variable.dtype if variable.dtype in _CARRIED else tf.int64
            value = tf.cast(variable.read_value(), carried)
            variable.assign(tf.cast(self._sum(value if self.chief else tf.zeros_like(value)), variable.dtype))

    @override
    def fit_for(self, model: RankingModel, told: Callable[[], bool]) -> None:
        strategy, names = self._strategy, list[str]()

        # Keras would reduce over an axis that a loss does not have.
        def step(iterator: Any, leaves: Any) -> Any:
            logs = strategy.run(model.train_step, args=(next(iterator),))
            names[:] = logs
            found = strategy.run(lambda logs, leaves: tf.stack([*logs.values(), leaves]), args=(logs, leaves))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, found, axis=None)

        compiled = tf.function(step, reduce_retracing=True)

        def train_function(iterator: Any) -> dict[str, Any]:
            *values, leaves = tf.unstack(compiled(iterator, tf.constant(float(told()))))
            self._told = float(leaves) > 0
            return dict(zip(names, values, strict=True))

        model.train_function = train_function

    @override
    def batches(self, data: RankingData, batch_size: int, seed: int, skip: int) -> Any:
        def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
            each = context.num_replicas_in_sync // context.num_input_pipelines
            parts = Parts(context.input_pipeline_id * each, each, context.num_replicas_in_sync)
            # Of a data set that might end, the workers would ask one another before each step whether it has.
            return data.batches(batch_size, seed, skip, parts=parts).repeat()

        return self._strategy.distribute_datasets_from_function(own)

    @override
    def told_in_step(self, told: bool) -> bool:
        return self._told

    @override
    def told(self, told: bool) -> bool:
        return self._exchange(told, done=False)[0]

    @override
    def wait(self, told: Callable[[], bool]) -> bool:
        while True:
            # The chief validates and calls `told` meanwhile, so a signal to any of them ends all of them soon.
            leave, done = self._exchange(told(), done=self.chief)
            if leave or done:
                return leave

    @override
    @contextmanager
    def together(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            if "Collective ops is aborted" not in error.message:
                raise
            tasks = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", error.message)
            others = dict.fromkeys(self._cluster.jobs[job][int(index)] for job, index in tasks)
            others.pop(self._address, None)
            raise UserError(
                f"{self._name}: can't reach the worker at {' or '.join(others) or 'another address'} any more; what "
                "that one wrote last says why. Start all workers again: they go on from the last checkpoint"
            ) from None

    def _exchange(self, told: bool, done: bool) -> tuple[bool, bool]:
        leave, ended = self._sum(np.array([told, done], np.int32)).numpy()
        return bool(leave), bool(ended)

    def _sum(self, value: Any) -> Any:
        """The sum over workers of a value each."""
        value = tf.convert_to_tensor(value)
        # Each device of a worker adds one.
        values = self._strategy.experimental_distribute_values_from_function(
            lambda context: value if self._first(context) else tf.zeros_like(value)
        )
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def _first(self, context: tf.distribute.InputContext) -> bool:
        return bool(context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0)


@contextmanager
def _killable() -> Iterator[None]:
    """Lets Ctrl-C end the process in a wait of TensorFlow's, which Python can't end.

    SIGTERM is TensorFlow's there: it notes it and waits on, and lets no thread of Python run meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
