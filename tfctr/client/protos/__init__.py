"""Messages that are wire-compatible with TensorFlow Serving, generated from wire.proto."""
