"""Data sets in the raw layout that the pipeline and `tfctr train` read.

Nothing here needs TensorFlow: the records are written by a small encoder of our own, so that data can be prepared
with the base installation.
"""
