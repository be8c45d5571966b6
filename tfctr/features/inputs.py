"""What goes in: the raw tensors of the signatures and the tensors the model eats, both from the feature file."""

from __future__ import annotations

from tfctr.features.columns import InputSpec, length_name
from tfctr.features.spec import FeatureFile


def columns(file: FeatureFile, sequence: str | None = None) -> list[InputSpec]:
    """The columns of the log that the features are read from: all of them, or those of one sequence."""
    features = file.features if sequence is None else file.of_sequence(sequence)
    return [spec for feature in features for spec in feature.kind.columns(feature)]


def raw_inputs(file: FeatureFile) -> list[InputSpec]:
    """The raw dense tensors, as the signatures take them: the columns, and the length of each sequence."""
    return columns(file) + [InputSpec(length_name(name), "user", "int64") for name in file.sequences]


def model_inputs(file: FeatureFile) -> list[InputSpec]:
    """The tensors that the raw function makes and the model eats."""
    inputs = [spec for feature in file.features for spec in feature.kind.inputs(feature)]
    return inputs + [InputSpec(length_name(name), "user", "int32") for name in file.sequences]
