"""Optimizers, above all those that read and write only the rows of a table that a batch reads."""

from tfctr.optimizers.base import RowOptimizer
from tfctr.optimizers.grouped import GroupedOptimizer
from tfctr.optimizers.lazy_adagrad import LazyAdagrad, RowwiseAdagrad
from tfctr.optimizers.lazy_adam import LazyAdam
from tfctr.optimizers.lazy_ftrl import LazyFtrl
from tfctr.optimizers.lazy_sgd import LazySGD
from tfctr.optimizers.make import OptimizerConfig, check_optimizer, create_optimizer
from tfctr.optimizers.rates import SCHEDULES, Rate, RateConfig, check_learning_rate, create_rate
from tfctr.optimizers.registry import OPTIMIZERS

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "GroupedOptimizer",
    "LazyAdagrad",
    "LazyAdam",
    "LazyFtrl",
    "LazySGD",
    "OptimizerConfig",
    "Rate",
    "RateConfig",
    "RowOptimizer",
    "RowwiseAdagrad",
    "check_learning_rate",
    "check_optimizer",
    "create_optimizer",
    "create_rate",
]
