"""The sample configuration is what TensorFlow Serving's own parser reads."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_models_config() -> None:
    text = (ROOT / "serving" / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("ranker", "/models/ranker", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 2
