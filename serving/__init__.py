"""Deployment of TensorFlow Serving, and an embedded server for development and tests."""
