"""Checks the manifests against the Kubernetes schemas, and runs the scripts of the container in processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner, Result

from serving.deployment import CONFIG_DIRECTORY, Batching, flags, load_deployment, render
from serving.models_config import read_models_config, write_models_config
from serving.render import app
from tests.serving.conftest import PATIENCE
from tests.serving.kustomize import build
from tfctr import MODEL_NAME

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "serving" / "k8s"
CONFIG = KUBERNETES / "base" / "config"
DEPLOYMENT = load_deployment(ROOT / "configs" / "serving.yaml")
BUILT = ["base", "overlays/cpu", "overlays/gpu", "monitoring"]


def of_kind(overlay: str, kind: str) -> dict[str, Any]:
    (document,) = [document for document in build(KUBERNETES / overlay) if document["kind"] == kind]
    return document


def by_name(documents: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def containers_of(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return found


def container(overlay: str) -> dict[str, Any]:
    (one,) = containers_of(of_kind(overlay, "Deployment"))
    return one


def test_the_base_as_it_is_written_is_valid() -> None:
    written = list(yaml.safe_load_all((KUBERNETES / "base" / "serving.yaml").read_text(encoding="utf-8")))
    assert {document["kind"] for document in written} >= {"Deployment", "Service", "NetworkPolicy"}
    for document in written:
        kubernetes_validate.validate(document, "1.31", strict=True)


@pytest.mark.parametrize("overlay", BUILT)
def test_what_is_built_is_valid(overlay: str) -> None:
    for document in build(KUBERNETES / overlay):
        # The kinds of Prometheus Operator are not Kubernetes' own; tests/serving/test_monitoring.py reads them.
        if document["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(document, "1.31", strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="holds our builder against kubectl")
@pytest.mark.parametrize("overlay", BUILT)
def test_kubectl_builds_the_same(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    without_hash = re.sub(r"\branking-config-[a-z0-9]{10}\b", "ranking-config", built)
    assert by_name(yaml.safe_load_all(without_hash)) == by_name(build(KUBERNETES / overlay))


@pytest.mark.parametrize(
    ("kustomization", "message"),
    [
        ("namespace: ranking", "not understood here: namespace"),
        ("patches: [{target: {kind: Service, name: other}, patch: '[]'}]", "finds no Service other"),
        ("images: [{name: serving, digest: sha}]", "not understood here: digest"),
        (
            "patches: [{target: {kind: Service, name: ranking}, patch: '[{op: replace, path: /spec/typo, value: 1}]'}]",
            "nothing to replace",
        ),
        (
            "patches: [{target: {kind: Service, name: ranking}, patch: '[{op: remove, path: /spec/ports}]'}]",
            "not understood here: {'op': 'remove'",
        ),
    ],
)
def test_our_builder_refuses_what_it_does_not_know(tmp_path: Path, kustomization: str, message: str) -> None:
    base = os.path.relpath(KUBERNETES / "base", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{base}]\n{kustomization}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        build(tmp_path)


def test_overlays_differ_in_image_card_and_what_they_scale_by() -> None:
    cpu, gpu = (container(f"overlays/{name}") for name in ("cpu", "gpu"))
    assert (cpu["image"], gpu["image"]) == (DEPLOYMENT.image, f"{DEPLOYMENT.image}-gpu")
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]
    scaled_by = {
        name: [metric["type"] for metric in of_kind(f"overlays/{name}", "HorizontalPodAutoscaler")["spec"]["metrics"]]
        for name in ("cpu", "gpu")
    }
    assert scaled_by == {"cpu": ["Resource"], "gpu": ["Pods"]}


def test_the_image_is_said_once(tmp_path: Path) -> None:
    """Another image in the deployment file is the one that is deployed, and no manifest names it itself."""
    other = DEPLOYMENT.model_copy(update={"image": "registry:5000/other:3.0"})
    shutil.copytree(KUBERNETES, tmp_path / "k8s")
    for name, text in render(other).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for overlay, image in (("cpu", "registry:5000/other:3.0"), ("gpu", "registry:5000/other:3.0-gpu")):
        (found,) = containers_of(by_name(build(tmp_path / "k8s" / "overlays" / overlay))["Deployment", MODEL_NAME])
        assert found["image"] == image
    names = (DEPLOYMENT.image, DEPLOYMENT.base_image)
    written = [path for path in (ROOT / "serving").rglob("*") if path.is_file() and path.suffix in ("", ".yaml")]
    said = [path for path in written if any(name in path.read_text("utf-8") for name in names)]
    assert said == [ROOT / "serving" / "compose" / ".env"]


def test_pods_have_every_file_that_a_flag_names(tmp_path: Path) -> None:
    batched = DEPLOYMENT.model_copy(update={"batching": Batching(allowed_batch_sizes=(1, 4))})
    shutil.copytree(KUBERNETES, tmp_path / "k8s")
    for name, text in render(batched).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    files = by_name(build(tmp_path / "k8s" / "base"))["ConfigMap", "ranking-config"]["data"]
    named = re.findall(rf"={CONFIG_DIRECTORY}/(\S+)", files["server.flags"])
    assert "batching.config" in named
    assert set(named) <= set(files)


def test_what_is_deployed_has_jemalloc() -> None:
    dockerfile = (ROOT / "serving" / "Dockerfile").read_text("utf-8")
    assert "FROM ${BASE_IMAGE}" in dockerfile
    assert re.search(r"install .*libjemalloc2", dockerfile)
    assert "ENV LD_PRELOAD=libjemalloc.so.2" in dockerfile
    assert DEPLOYMENT.base_image != DEPLOYMENT.image


@pytest.mark.parametrize("overlay", ["overlays/cpu", "overlays/gpu"])
def test_the_autoscaler_alone_sets_the_replicas(overlay: str) -> None:
    target = of_kind(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = of_kind(overlay, "Deployment")
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]


def test_only_a_gpu_has_its_cache() -> None:
    cpu, gpu = (yaml.safe_dump_all(build(KUBERNETES / "overlays" / name)).lower() for name in ("cpu", "gpu"))
    assert "cache" not in cpu
    (mount,) = [mount for mount in container("overlays/gpu")["volumeMounts"] if mount["name"] == "cache"]
    assert {"name": "CUDA_CACHE_PATH", "value": mount["mountPath"]} in container("overlays/gpu")["env"]
    assert "ranking-cuda-cache" in gpu


@pytest.mark.parametrize("overlay", ["overlays/cpu", "overlays/gpu"])
def test_pods_spread_and_every_node_can_mount_what_they_need(overlay: str) -> None:
    documents = build(KUBERNETES / overlay)
    claims = {document["metadata"]["name"]: document["spec"] for document in documents if "Claim" in document["kind"]}
    pod = of_kind(overlay, "Deployment")["spec"]["template"]
    asked = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    assert {claim["claimName"] for claim in asked} == set(claims)
    for claim in claims.values():
        assert set(claim["accessModes"]) <= {"ReadWriteMany", "ReadOnlyMany"}
    spread = {one["topologyKey"]: one for one in pod["spec"]["topologySpreadConstraints"]}
    assert set(spread) == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(one["labelSelector"]["matchLabels"] == pod["metadata"]["labels"] for one in spread.values())


def test_volumes_are_mounted_and_mounts_have_volumes() -> None:
    for overlay in ("overlays/cpu", "overlays/gpu"):
        volumes = of_kind(overlay, "Deployment")["spec"]["template"]["spec"]["volumes"]
        assert {volume["name"] for volume in volumes} == {mount["name"] for mount in container(overlay)["volumeMounts"]}


def test_manifests_have_the_name_of_the_model() -> None:
    for overlay in BUILT:
        for document in build(KUBERNETES / overlay):
            assert document["metadata"]["name"].split("-")[0] == DEPLOYMENT.model.name == MODEL_NAME


def test_probes_ask_what_the_server_offers() -> None:
    server = container("base")
    probe = server["livenessProbe"]["grpc"]
    # The names under which TensorFlow Serving registers its services.
    assert probe["service"] in ("ModelService", "PredictionService")
    assert {f"--port={probe['port']}", "--enable_grpc_healthcheck_service=true"} <= set(flags(DEPLOYMENT))
    for name in ("startupProbe", "readinessProbe"):
        assert server[name]["exec"]["command"] == ["/bin/bash", "/etc/serving/ready.sh"]


def test_the_adapter_rule_gives_the_metric_that_the_gpu_overlay_scales_by() -> None:
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]
    (metric,) = of_kind("overlays/gpu", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]


@pytest.mark.slow
@pytest.mark.parametrize(("state", "code"), [("AVAILABLE", 0), ("LOADING", 1), ("END", 1)])
def test_ready_is_an_available_version(state: str, code: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == f"/v1/models/{MODEL_NAME}"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["bash", str(CONFIG / "ready.sh"), str(server.server_address[1])]
        assert subprocess.run(command, timeout=PATIENCE).returncode == code
        server.shutdown()


def rendered(tmp_path: Path, *arguments: str, **changes: Any) -> Result:
    """What the command says of a copy of serving/k8s/base/config, with keys of the deployment file changed."""
    out = tmp_path / "serving"
    if not out.exists():
        shutil.copytree(CONFIG, out / "k8s/base/config")
    settings = yaml.safe_load((ROOT / "configs/serving.yaml").read_text("utf-8"))
    (tmp_path / "serving.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return CliRunner().invoke(app, ["--config", str(tmp_path / "serving.yaml"), "--out", str(out), *arguments])


def test_a_model_of_another_name_needs_no_other_manifest(tmp_path: Path) -> None:
    assert rendered(tmp_path, model={"name": "shop", "base_path": "gs://bucket/shop"}).exit_code == 0
    out = tmp_path / "serving/k8s"
    (base,) = yaml.safe_load((out / "base/kustomization.yaml").read_text())["configMapGenerator"]
    assert base["name"] == f"{MODEL_NAME}-config"  # which serving.yaml mounts
    assert 'name: "shop"' in (out / "base/config/models.config").read_text()
    assert f"name: {MODEL_NAME}\n" in (out / "monitoring/alerts.yaml").read_text()


def test_a_rollout_is_not_written_over(tmp_path: Path) -> None:
    assert rendered(tmp_path).exit_code == 0
    path = tmp_path / "serving/k8s/base/config/models.config"
    config, retired = read_models_config(path)
    (model,) = config.model_config_list.config
    model.model_version_policy.specific.versions.append(3)
    model.version_labels["stable"] = 3
    write_models_config(path, config, retired, 0.0)
    refused = rendered(tmp_path)
    assert refused.exit_code == 2
    assert "holds the labels and versions of a rollout" in refused.output
    assert "stable" in path.read_text()


def test_batching_that_is_off_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "serving/k8s/base/config/batching.config"
    assert rendered(tmp_path, batching={"allowed_batch_sizes": [1, 4]}).exit_code == 0
    assert path.exists()
    assert rendered(tmp_path, "--check").exit_code == 1
    assert rendered(tmp_path).exit_code == 0
    assert not path.exists()
    assert rendered(tmp_path, "--check").exit_code == 0


SERVER = """#!/usr/bin/env bash
printf '%s\\n' "$@"
[[ $1 == --end ]] && exit 3
trap 'sleep 0.2; echo ended; exit 7' TERM
echo started
for _ in {1..6000}; do sleep 0.05; done
"""


def start_entrypoint(directory: Path, flag_lines: str | None) -> subprocess.Popen[str]:
    """Runs entrypoint.sh with a script as server. It exits with 3 if its first flag is --end, with 7 after SIGTERM."""
    server = directory / "tensorflow_model_server"
    server.write_text(SERVER)
    server.chmod(0o755)
    if flag_lines is not None:
        (directory / "server.flags").write_text(flag_lines)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    # A shell starts background jobs with SIGINT ignored. A bash that inherits this cannot trap SIGINT, so it is reset.
    command = ["env", "--default-signal=INT", "bash", str(CONFIG / "entrypoint.sh"), str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_entrypoint_hands_a_signal_on_and_waits_for_the_end(tmp_path: Path, number: signal.Signals) -> None:
    with start_entrypoint(tmp_path, "--port=1\n") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["--port=1\n", "started\n"]
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == 7
        assert process.stdout.read() == "ended\n"


def test_the_entrypoint_passes_flags_and_exit_status_on(tmp_path: Path) -> None:
    with start_entrypoint(tmp_path, "--end\n--two words\n") as process:
        assert process.communicate(timeout=PATIENCE)[0] == "--end\n--two words\n"
    assert process.returncode == 3


def test_the_entrypoint_starts_nothing_without_flags(tmp_path: Path) -> None:
    with start_entrypoint(tmp_path, None) as process:
        assert "server.flags: No such file" in process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1
