"""The sides that benchmarks.training compares, each a process of its own: see `turns`."""
