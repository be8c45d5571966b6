"""The manifests against the Kubernetes schemas, and the readiness script against a real HTTP server."""

from __future__ import annotations

import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.deployment import load_deployment

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "serving" / "k8s"


def documents(overlay: str) -> list[dict[str, Any]]:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl builds the overlays and is not installed")
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(yaml.safe_load_all(built.stdout))


def test_the_base_as_it_is_written_is_valid() -> None:
    written = list(yaml.safe_load_all((KUBERNETES / "base" / "serving.yaml").read_text(encoding="utf-8")))
    assert {document["kind"] for document in written} >= {"Deployment", "Service", "NetworkPolicy"}
    for document in written:
        kubernetes_validate.validate(document, "1.31", strict=True)


@pytest.mark.parametrize("overlay", ["base", "overlays/cpu", "overlays/gpu"])
def test_what_is_built_is_valid(overlay: str) -> None:
    for document in documents(overlay):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_overlays_differ_in_image_and_card() -> None:
    servers = {}
    for name in ("cpu", "gpu"):
        (deployment,) = [d for d in documents(f"overlays/{name}") if d["kind"] == "Deployment"]
        (servers[name],) = deployment["spec"]["template"]["spec"]["containers"]
    assert servers["gpu"]["image"] == load_deployment(ROOT / "configs" / "serving.yaml").image
    assert servers["cpu"]["image"] + "-gpu" == servers["gpu"]["image"]
    assert servers["gpu"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in servers["cpu"]["resources"]["limits"]


@pytest.mark.parametrize(("state", "code"), [("AVAILABLE", 0), ("LOADING", 1), ("END", 1)])
def test_ready_is_an_available_version(state: str, code: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["bash", str(KUBERNETES / "base/config/ready.sh"), "ranker", str(server.server_address[1])]
        assert subprocess.run(command, timeout=20).returncode == code
        server.shutdown()
