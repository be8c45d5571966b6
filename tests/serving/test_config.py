"""The server can parse the rendered files, and the committed files are up to date."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from typer.testing import CliRunner

from serving.deployment import Batching, Deployment, Model, flags, load_deployment, server_files
from serving.render import app
from serving.text_protos import batching_parameters, monitoring_config
from tfctr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "serving.yaml"
RENDERED = ROOT / "serving"
BATCHED = Deployment(
    model=Model(name="ranking", base_path="/models/ranking"),
    image="ranking-serving:2.19.0",
    base_image="tensorflow/serving:2.19.0",
    batching=Batching(allowed_batch_sizes=(1, 4, 16)),
)


def test_models_config() -> None:
    text = server_files(load_deployment(CONFIG))["models.config"]
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("ranking", "/models/ranking", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 2


def test_batching_and_monitoring() -> None:
    files = server_files(BATCHED)
    batching = text_format.Parse(files["batching.config"], batching_parameters())
    assert list(batching.allowed_batch_sizes) == [1, 4, 16]
    assert batching.max_batch_size.value == 16
    monitoring = text_format.Parse(files["monitoring.config"], monitoring_config())
    assert monitoring.prometheus_config.enable
    assert "--enable_batching=true" in files["server.flags"].splitlines()


def test_batching_file_and_flag_come_together() -> None:
    files = server_files(BATCHED.model_copy(update={"batching": None}))
    assert "batching.config" not in files
    assert "batching" not in files["server.flags"]


def test_what_is_not_said_is_left_to_the_server() -> None:
    plain = flags(BATCHED)
    said = flags(BATCHED.model_copy(update={"xla": True, "gpu_memory_fraction": 0.5, "intra_op_threads": 4}))
    assert plain[-1] == "--tensorflow_intra_op_parallelism=1"
    assert said == [
        *plain[:-1],
        "--xla_gpu_compilation_enabled=true",
        "--per_process_gpu_memory_fraction=0.5",
        "--tensorflow_intra_op_parallelism=4",
    ]
    assert not any(word in flag for flag in plain for word in ("xla", "gpu"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("load_threads", "load_thread", "load_thread: unknown key. Allowed: "),
        ("num_versions: 2", "num_versions: 1", "model.num_versions: "),
        ("base_path: /models", "base_path: models", "model.base_path: "),
        (": ranking-serving:2.19.0", ": ranking-serving:latest", "image: "),
        ("tensorflow/serving:2.19.0", "tensorflow/serving:2.19.0-gpu", "base_image: must be named without -gpu"),
        ("gpu_memory_fraction: null", "gpu_memory_fraction: 2", "gpu_memory_fraction: "),
        ("intra_op_threads: 1", "intra_op_threads: 0", "intra_op_threads: "),
        ("batching: null", "batching: {allowed_batch_sizes: [4, 1]}", "must be positive and increase"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text(CONFIG.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        load_deployment(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


def test_what_is_committed_is_what_is_rendered() -> None:
    result = CliRunner().invoke(app, ["--config", str(CONFIG), "--out", str(RENDERED), "--check"])
    assert result.exit_code == 0, result.output


def test_check_finds_drift(tmp_path: Path) -> None:
    arguments = ["--config", str(CONFIG), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (tmp_path / "k8s" / "base" / "config" / "models.config").write_text("")
    (tmp_path / "compose" / ".env").unlink()
    result = CliRunner().invoke(app, [*arguments, "--check"])
    assert result.exit_code == 1
    assert "k8s/base/config/models.config, compose/.env" in result.output.replace("\n", " ")
