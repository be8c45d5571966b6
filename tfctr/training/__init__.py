"""Training: experiment files, input, loop."""
