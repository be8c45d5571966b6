"""The files and images in the compose files exist, and the server has the metrics of the dashboard."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.deployment import METRICS_PATH, flags, load_deployment
from tests.serving.conftest import NAME, Caller
from tests.serving.requests import SCORE

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "serving"
COMPOSE = SERVING / "compose"
DEPLOYMENT = load_deployment(ROOT / "configs" / "serving.yaml")


def _yaml(path: str) -> Any:
    return yaml.safe_load((COMPOSE / path).read_text(encoding="utf-8"))


def test_one_image_everywhere() -> None:
    image = DEPLOYMENT.image
    assert image.endswith("-gpu")
    assert _yaml("compose.gpu.yaml")["services"]["serving"]["build"]["args"]["IMAGE"] == image
    assert _yaml("compose.yaml")["services"]["serving"]["build"]["args"]["IMAGE"] == image.removesuffix("-gpu")
    assert f"ARG IMAGE={image}\n" in (SERVING / "Dockerfile").read_text(encoding="utf-8")


def test_images_are_pinned_and_ports_stay_on_this_machine() -> None:
    for name, service in _yaml("compose.yaml")["services"].items():
        if name != "serving":
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_mounted_and_copied_files_exist() -> None:
    mounts = [mount for service in _yaml("compose.yaml")["services"].values() for mount in service.get("volumes", [])]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 4
    assert all((COMPOSE / path).is_file() for path in paths)
    copied = re.findall(r"^COPY (\S+) (\S+)$", (SERVING / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert copied == [("k8s/base/config", "/etc/serving")]
    assert (SERVING / copied[0][0] / "entrypoint.sh").is_file()


def test_prometheus_asks_where_the_page_is() -> None:
    (job,) = _yaml("prometheus.yaml")["scrape_configs"]
    port = next(flag.split("=")[1] for flag in flags(DEPLOYMENT) if flag.startswith("--rest_api_port"))
    assert (job["metrics_path"], job["static_configs"][0]["targets"]) == (METRICS_PATH, [f"serving:{port}"])


@pytest.mark.usefixtures("embedded")
def test_dashboard_and_autoscaler_ask_for_metrics_that_there_are(rest_address: str, caller: Caller) -> None:
    caller.run("score", SCORE)
    with urllib.request.urlopen(f"http://{rest_address}{METRICS_PATH}", timeout=20) as reply:
        page = reply.read().decode()
    labels: dict[str, set[str]] = {}
    for name, pairs in re.findall(r"^(:[\w:]+)\{(.*)\} ", page, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", pairs))
    dashboard = json.loads((COMPOSE / "grafana" / "serving.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) == 6
    for expression in expressions:
        asked = re.findall(r"(:tensorflow:[\w:]+)\{([^}]*)\}", expression)
        assert asked
        for name, pairs in asked:
            grouped = re.findall(r"by \(([^)]*)\)", expression)
            wanted = set(re.findall(r"(\w+)!?=", pairs)) | {
                one.strip() for group in grouped for one in group.split(",")
            }
            assert wanted <= labels[name], expression
    (rule,) = yaml.safe_load((SERVING / "k8s" / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]
    assert re.findall(r'__name__="([^"]+)"', rule["seriesQuery"])[0] in labels
    assert NAME in page
