"""The optimizer of a training: of dense weights, of tables, and of tables for which the feature file has its own."""

from __future__ import annotations

import json
from typing import Any

from tfctr.models.model import RankingModel
from tfctr.optimizers import GroupedOptimizer, OptimizerConfig, create_optimizer
from tfctr.training.experiment import Training


def make_optimizer(training: Training, model: RankingModel) -> GroupedOptimizer:
    """Make the optimizer of a model, and leave it the penalty on tables of which it reads the rows of the batch alone.

    Raises:
        UserError: the feature file names an optimizer that makes no sense.
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
            )
        return made[key]

    dense = optimizer("training.optimizer", training.optimizer)
    tables = {}
    for table, weight in model.trained_tables():
        config = table.optimizer or training.embedding_optimizer
        if config is not None and weight.trainable:
            tables[weight.path] = optimizer(f"optimizer of feature '{table.name}'", config)
    grouped = GroupedOptimizer(dense, tables, training.clip_norm)
    model.leave_penalties(weight for _, weight in model.trained_tables() if grouped.leaves_rows(weight.path))
    return grouped
