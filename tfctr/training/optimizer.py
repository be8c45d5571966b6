"""The optimizer of a training: of dense weights, of tables, and of tables for which the feature file has its own."""

from __future__ import annotations

import json
from typing import Any

from tfctr.features.spec import FeatureFile
from tfctr.models.model import RankingModel
from tfctr.optimizers import GroupedOptimizer, OptimizerConfig, check_optimizer, create_optimizer
from tfctr.training.experiment import RATE, Training


def check_table_optimizers(training: Training, file: FeatureFile) -> None:
    """Checks the optimizers that a feature file names for its tables.

    Raises:
        UserError: with the file, the key, and what is allowed.
    """
    for name, config in file.table_optimizers.items():
        where = _where(name) if file.origin is None else f"{file.origin}: {file.feature(name).path}.optimizer"
        check_optimizer(where, config, training.learning_rate, tables=True, rate_where=RATE)


def _where(feature: str) -> str:
    return f"optimizer of feature '{feature}'"


def make_optimizer(training: Training, model: RankingModel) -> GroupedOptimizer:
    """Make the optimizer of a model, and leave it the penalty on tables of which it reads the rows of the batch alone.

    Raises:
        UserError: as `check_table_optimizers`.
    """
    made: dict[str, Any] = {}

    def optimizer(where: str, config: OptimizerConfig) -> Any:
        """One for all weights whose configuration is the same."""
        key = json.dumps(config, sort_keys=True)
        if key not in made:
            made[key] = create_optimizer(
                where,
                config,
                training.learning_rate,
                training.warmup_steps,
                training.min_learning_rate,
                model.model_config.embedding_l2,
                rate_where=RATE,
            )
        return made[key]

    dense = optimizer("training.optimizer", training.optimizer)
    tables = {}
    for table, weight in model.trained_tables():
        config = table.optimizer or training.embedding_optimizer
        if config is not None and weight.trainable:
            tables[weight.path] = optimizer(_where(table.name), config)
    grouped = GroupedOptimizer(dense, tables, training.clip_norm)
    model.leave_penalties(weight for _, weight in model.trained_tables() if grouped.leaves_rows(weight.path))
    return grouped
