"""Click-through-rate ranking on Keras 3, TFX and TensorFlow Serving."""

__version__ = "0.1.0"
