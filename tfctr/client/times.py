"""The order of a history, as far as the metadata of a served version tell which of its inputs are times."""

from collections.abc import Mapping

import numpy as np

from tfctr.client.codec import Array
from tfctr.client.errors import BadRequestError
from tfctr.client.metadata import USER_TOWER, ServedModel
from tfctr.client.protos import wire_pb2 as wire

_MISSING = np.iinfo(np.int64).min
_YEAR_1971, _YEAR_2100 = 31_536_000, 4_102_444_800


def newest_time_of(sequence: str) -> str:
    """The tensor of a state that has the time of the newest event: there for a history that has times, as exported."""
    return f"state_{sequence}_newest_time"


def check_newest_first(model: ServedModel, inputs: Mapping[str, Array]) -> None:
    """Refuses a history whose times ascend from event to event, as training does; a history is newest first.

    The state says that a history has times, not which input they are. It is the history's only input of whole numbers,
    or the only one whose values are all seconds between 1971 and 2100; else nothing is checked.

    Args:
        model: The served version.
        inputs: The inputs of `user_tower` for one user, `[1]` and `[1, L]`.

    Raises:
        BadRequestError: which input, and what to do.
    """
    for sequence, fields in model.sequences.items():
        if newest_time_of(sequence) not in model.signatures[USER_TOWER].outputs:
            continue
        size = int(inputs[f"{sequence}_length"][0])
        whole = [name for name in fields if model.user_inputs[name].dtype == wire.DT_INT64]
        given = {name: values[values != _MISSING] for name in whole for values in [inputs[name][0, :size]]}
        if len(given) > 1:
            # Were the times left out, ids that look like such would be taken for them.
            all_given = all(map(len, given.values()))
            given = {name: values for name, values in given.items() if all_given and _are_seconds(values)}
        for name, values in given.items():
            if len(given) == 1 and len(values) > 1 and bool(np.all(values[1:] > values[:-1])):
                raise BadRequestError(
                    f"user.{name} must be newest first: reverse every column of the history. "
                    f"Received: {values[0]} before {values[1]}"
                )


def _are_seconds(values: Array) -> bool:
    return bool(np.all((values >= _YEAR_1971) & (values < _YEAR_2100)))
