"""The batching parameters and their configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from serving.server.config import ConfigError, read_text_proto
from serving.text_protos import batching_parameters


@dataclass(frozen=True)
class BatchingOptions:
    """Batching parameters, with the defaults of TensorFlow Serving.

    Args:
        max_batch_size: The most rows of a batch, and of a request.
        timeout_seconds: How long a batch that is not full waits for more requests.
        max_enqueued_batches: The most batches in a queue; further requests are refused.
        num_batch_threads: How many batches run at the same time.
        allowed_batch_sizes: Batches are padded to the next of these sizes. If empty, any size is allowed.
        pad_variable_length_inputs: Pad the other dimensions to the largest in the batch. Outputs keep the padding.
    """

    max_batch_size: int = 1000
    timeout_seconds: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False

    def rounded(self, rows: int) -> int:
        """The size that a batch with this many rows is padded to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching(path: Path) -> BatchingOptions:
    """The content of the file of `--batching-parameters-file`.

    Raises:
        ConfigError: The file cannot be read, or a value is not allowed.
    """
    parameters = read_text_proto(path, batching_parameters())
    given = {
        name: getattr(parameters, name).value
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads")
        if parameters.HasField(name)
    }
    sizes = tuple(parameters.allowed_batch_sizes)
    micros = parameters.batch_timeout_micros.value
    options = BatchingOptions(
        **given,
        timeout_seconds=micros / 1e6,
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
    )
    for name, value in given.items():
        if value < 1:
            raise ConfigError(f"{path}: {name} must be at least 1. Received: {value}")
    if micros < 0:
        raise ConfigError(f"{path}: batch_timeout_micros must not be negative. Received: {micros}")
    if list(sizes) != sorted(set(sizes)):
        raise ConfigError(
            f"{path}: allowed_batch_sizes entries must be monotonically increasing. Received: {list(sizes)}"
        )
    if sizes and sizes[-1] != options.max_batch_size:
        raise ConfigError(
            f"{path}: Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; "
            f"expected {options.max_batch_size}"
        )
    return options
