"""The files and images that compose names are there. tests/serving/test_redis_server.py starts its Redis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from serving.deployment import METRICS_PATH, flags, load_deployment
from tfctr import MODEL_NAME

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "serving"
COMPOSE = SERVING / "compose"
DEPLOYMENT = load_deployment(ROOT / "configs" / "serving.yaml")


def _yaml(path: str) -> Any:
    return yaml.safe_load((COMPOSE / path).read_text(encoding="utf-8"))


def _variables() -> dict[str, str]:
    """What compose reads of .env."""
    lines = (COMPOSE / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_one_image_everywhere() -> None:
    cpu, gpu = (_yaml(name)["services"]["serving"] for name in ("compose.yaml", "compose.gpu.yaml"))
    assert _variables() == {"IMAGE": DEPLOYMENT.image, "BASE_IMAGE": DEPLOYMENT.base_image}
    assert (cpu["image"], gpu["image"]) == ("${IMAGE}", "${IMAGE}-gpu")
    bases = [service["build"]["args"] for service in (cpu, gpu)]
    assert bases == [{"BASE_IMAGE": "${BASE_IMAGE}"}, {"BASE_IMAGE": "${BASE_IMAGE}-gpu"}]
    assert "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n" in (SERVING / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_and_the_volumes_name_the_model() -> None:
    assert f"directory that holds {MODEL_NAME}/1" in _yaml("compose.yaml")["services"]["serving"]["volumes"][0]


def test_only_a_gpu_has_its_cache() -> None:
    assert "cache" not in (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    assert _yaml("compose.gpu.yaml")["services"]["serving"]["volumes"] == ["cuda-cache:/cache"]


def test_images_are_pinned_and_ports_stay_on_this_machine() -> None:
    for name, service in _yaml("compose.yaml")["services"].items():
        if name != "serving":
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_mounted_and_copied_files_exist() -> None:
    mounts = [mount for service in _yaml("compose.yaml")["services"].values() for mount in service.get("volumes", [])]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 6
    assert all((COMPOSE / path).is_file() for path in paths)
    copied = re.findall(r"^COPY (\S+) (\S+)$", (SERVING / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert copied == [("k8s/base/config", "/etc/serving")]
    assert (SERVING / copied[0][0] / "entrypoint.sh").is_file()


def test_prometheus_asks_where_the_page_is() -> None:
    (job,) = _yaml("prometheus.yaml")["scrape_configs"]
    port = next(flag.split("=")[1] for flag in flags(DEPLOYMENT) if flag.startswith("--rest_api_port"))
    assert _yaml("prometheus.yaml")["rule_files"] == ["alerts.yaml"]
    assert (job["metrics_path"], job["static_configs"][0]["targets"]) == (METRICS_PATH, [f"serving:{port}"])
