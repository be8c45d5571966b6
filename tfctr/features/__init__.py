"""The feature file and what follows from it; importing this needs no TensorFlow."""

from tfctr.features.columns import INT64_MISSING, InputSpec
from tfctr.features.inputs import model_inputs, raw_inputs
from tfctr.features.spec import FeatureFile, load_feature_file

__all__ = ["INT64_MISSING", "FeatureFile", "InputSpec", "load_feature_file", "model_inputs", "raw_inputs"]
