"""What a SavedModel says of itself, where a file of it is damaged: one line, and no traceback."""

from pathlib import Path

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfctr.errors import UserError
from tfctr.export.describe import DESCRIPTION, describe


@pytest.mark.parametrize("content", ['{"experiment": ', "[1]", "7"])
def test_a_description_that_can_not_be_read(tmp_path: Path, content: str) -> None:
    model = SavedModel()
    model.meta_graphs.add()
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    (tmp_path / DESCRIPTION).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(UserError, match=f"^{tmp_path / DESCRIPTION}: .*; export the model again$"):
        describe(tmp_path)


def test_a_graph_without_content(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match=f"^{tmp_path}/saved_model.pb: is not a SavedModel that can be parsed"):
        describe(tmp_path)
