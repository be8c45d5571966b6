"""Dashboard, alerts and autoscaler ask for metrics that there are, and Prometheus is let in to read them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from serving.deployment import METRICS_PATH, flags, load_deployment
from tests.serving.conftest import NAME, Caller
from tests.serving.kustomize import build
from tests.serving.requests import SCORE

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "serving"
KUBERNETES = SERVING / "k8s"
ALERTS = yaml.safe_load((SERVING / "alerts.yaml").read_text("utf-8"))
RULES = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"]}

# The metrics of the client's collector, with their labels.
CLIENT_METRICS: dict[str, set[str]] = {
    "tfctr_client_requests_total": {"outcome"},
    "tfctr_client_request_seconds_bucket": {"le"},
    "tfctr_client_state_cache_total": {"result"},
    "tfctr_client_cache_paused": set(),
    "tfctr_client_state_age_seconds": set(),
    "tfctr_client_model_versions": {"version"},
}
# A metric, and what selects of it.
METRIC = re.compile(r"((?::tensorflow:serving:|tfctr_client_)[\w:]+)(?:\{([^}]*)\})?")


def asked(expression: str) -> dict[str, set[str]]:
    """The metrics of an expression, each with the labels that it needs."""
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    return {name: set(re.findall(r"(\w+)[!=]~?", selects)) | grouped for name, selects in METRIC.findall(expression)}


@pytest.fixture
def page(rest_address: str, caller: Caller) -> dict[str, set[str]]:
    """The metrics of the server and their labels, after a request."""
    caller.run("score", SCORE)
    with urllib.request.urlopen(f"http://{rest_address}{METRICS_PATH}", timeout=20) as reply:
        text = reply.read().decode()
    assert NAME in text
    labels: dict[str, set[str]] = {}
    for name, pairs in re.findall(r"^(:[\w:]+)\{(.*)\} ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", pairs))
    return labels


@pytest.mark.usefixtures("embedded")
def test_dashboard_and_autoscaler_ask_for_metrics_that_there_are(page: dict[str, set[str]]) -> None:
    dashboard = json.loads((SERVING / "compose" / "grafana" / "serving.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) == 6
    for expression in expressions:
        assert asked(expression)
        for name, labels in asked(expression).items():
            assert labels <= page[name], expression
    (adapter,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]
    assert re.findall(r'__name__="([^"]+)"', adapter["seriesQuery"])[0] in page


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_for_metrics_that_there_are(page: dict[str, set[str]], alert: str) -> None:
    wanted = asked(RULES[alert]["expr"])
    assert wanted
    for name, labels in wanted.items():
        assert labels <= (page | CLIENT_METRICS)[name], name


def test_there_is_an_alert_for_each_way_to_fail() -> None:
    text = " ".join(rule["expr"] for rule in RULES.values())
    for part in ('status!="OK"', "RESOURCE_EXHAUSTED", "request_latency_bucket", "model_versions", "cache_paused"):
        assert part in text
    assert len(RULES) == sum(len(group["rules"]) for group in ALERTS["groups"])


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_has_what_prometheus_and_people_need(alert: str) -> None:
    rule = RULES[alert]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert re.search(r"> [\d.]+\s*$", rule["expr"]), "without a threshold it always fires"
    # A text can name a label only if the expression keeps it.
    for label in re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())):
        assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"])


def test_the_operator_gets_the_same_rules() -> None:
    (rules,) = [one for one in build(KUBERNETES / "monitoring") if one["kind"] == "PrometheusRule"]
    assert rules["apiVersion"] == "monitoring.coreos.com/v1"
    assert rules["spec"] == ALERTS


def test_prometheus_may_read_what_the_monitor_names() -> None:
    (monitor,) = [one for one in build(KUBERNETES / "monitoring") if one["kind"] == "PodMonitor"]
    documents = {one["kind"]: one for one in build(KUBERNETES / "overlays" / "gpu")}
    pod = documents["Deployment"]["spec"]["template"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (server,) = pod["spec"]["containers"]
    port = next(one["containerPort"] for one in server["ports"] if one["name"] == endpoint["port"])
    assert endpoint["path"] == METRICS_PATH
    assert f"--rest_api_port={port}" in flags(load_deployment(ROOT / "configs" / "serving.yaml"))
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (peer,) = [peer for one in policy["ingress"] if {"port": port} in one["ports"] for peer in one["from"]]
    # The operator's Prometheus has this label, and is in a namespace of its own.
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
