"""Click-through-rate ranking on Keras 3, TFX and TensorFlow Serving."""

__version__ = "0.1.0"

MODEL_NAME = "ranking"
"""The model's name in requests, and so of the directory that holds its versions, from the pipeline to the client."""
