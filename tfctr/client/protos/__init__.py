"""Protobuf messages that are compatible with those of TensorFlow Serving, generated from wire.proto."""
