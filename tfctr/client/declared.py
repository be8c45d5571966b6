"""What a feature file tells a client that the metadata of a served version does not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.client.codec import Array
from tfctr.client.errors import BadRequestError
from tfctr.errors import UserError


@dataclass(frozen=True)
class Declared:
    """What a feature file declares.

    Attributes:
        names: raw inputs. Any other name is an error, even if the client drops unknown features.
        groups: sequence -> its columns.
        separators: multi-valued feature -> the separator of its tokens.
        times: the features that are times, as the feature file places them.
    """

    names: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]
    separators: Mapping[str, str]
    times: tuple[Any, ...] = ()

    @classmethod
    def of(cls, feature_file: Any) -> "Declared":
        """Reads a feature file, given as its path or loaded.

        Raises:
            BadRequestError: it cannot be read.
        """
        from tfctr.features import load_feature_file
        from tfctr.features.inputs import columns, raw_inputs

        try:
            file = load_feature_file(feature_file) if isinstance(feature_file, str | Path) else feature_file
        except UserError as error:
            raise BadRequestError(f"feature_file: {error}") from None
        return cls(
            frozenset(spec.name for spec in raw_inputs(file)),
            {name: tuple(spec.name for spec in columns(file, name)) for name in file.sequences},
            {spec.name: spec.separator for spec in columns(file) if spec.separator is not None},
            tuple(feature for feature in file.features if feature.kind.is_time),
        )

    def check_times(self, side: str, values: Mapping[str, Array]) -> None:
        """Refuses times in milliseconds and a history with its oldest event first, as training does.

        Whether an event came before the request is not checked: the clocks of two machines may differ.

        Args:
            side: the side of the features.
            values: feature -> its values for one request, int64 `[n]`.

        Raises:
            BadRequestError: what is wrong with which time.
        """
        from tfctr.features.columns import Column

        unknown = Column(np.empty(0, np.int64), np.zeros(1, np.int64))
        for at in self.times:
            if at.side == side and at.name in values:
                given = Column(values[at.name], np.array([len(values[at.name])]))
                for fault in at.kind.faults(at, {at.timestamp: unknown, at.name: given}):
                    raise BadRequestError(f"{side}.{fault.problem}")
