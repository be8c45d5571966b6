"""`tfctr tune`: searches and sweeps over the keys of an experiment file, on the validation split.

Spaces and methods come in kinds: a new one is a class with `@space` in `spaces.py`, or with `@method` in `methods.py`.
"""

from tfctr.tuning.plan import Plan, load_plan
from tfctr.tuning.record import Search, Seed, Trial, read_search
from tfctr.tuning.search import tune

__all__ = ["Plan", "Search", "Seed", "Trial", "load_plan", "read_search", "tune"]
