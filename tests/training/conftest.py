"""The workbench's data with a feature file of only three features, whose graphs are traced quickly."""

import pytest

from tests.workbench import Workbench
from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.features import FeatureFile


@pytest.fixture(scope="session")
def tiny(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    file = FeatureFile.model_validate(
        {
            "labels": {"click": "label"},
            "group": "user_id",
            "embedding_dimension": 4,
            "user": {"user_id": {"dtype": "int64"}},
            "candidate": {"item_id": {"dtype": "int64"}},
            "sequences": {"history": {"max_length": 4, "fields": {"history_item_id": {"share": "item_id"}}}},
        }
    )
    directory = tmp_path_factory.mktemp("tiny")
    assets = analyze(file, split_files(workbench.data, "train"), directory / "assets", workbench.data)
    return Workbench(workbench.data, file, assets)
