"""Dashboard, alerts and autoscaler ask for metrics that there are, and Prometheus is let in to read them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from serving.deployment import METRICS_PATH, flags, load_deployment
from tests.serving.conftest import NAME, Caller
from tests.serving.kustomize import build
from tests.serving.requests import SCORE
from tfctr.client import RankingClient
from tfctr.client.prometheus import ClientCollector

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "serving"
KUBERNETES = SERVING / "k8s"
ALERTS = yaml.safe_load((SERVING / "alerts.yaml").read_text("utf-8"))
RULES = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"]}

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
    return labels_of(text)


@pytest.fixture(scope="module")
def of_clients() -> dict[str, set[str]]:
    """The metrics of the client's collector and their labels, as Prometheus reads them."""
    with RankingClient("127.0.0.1:1") as client:
        collector = ClientCollector(client)
        collector.request_ended("rank", "ok", 0.01)
        collector.call_ended("score", "ok", 0.01)
        collector.state_used(7, 1.0)
        registry = CollectorRegistry()
        registry.register(collector)
        return labels_of(generate_latest(registry).decode())


def labels_of(text: str) -> dict[str, set[str]]:
    """The metrics of a page and their labels."""
    labels: dict[str, set[str]] = {}
    for name, pairs in re.findall(r"^([\w:]+)\{(.*)\} ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", pairs))
    return labels


def test_what_is_counted_has_the_names_that_the_page_explains() -> None:
    explained = set(re.findall(r"`(cache_\w+)`", (ROOT / "docs" / "client.md").read_text("utf-8")))
    texts = [
        (SERVING / "alerts.yaml").read_text("utf-8"),
        (SERVING / "compose" / "grafana" / "serving.json").read_text(),
    ]
    named = {name for text in texts for name in re.findall(r"\bcache_[a-z]+", text)}
    assert len(named) >= 6
    assert named <= explained


@pytest.mark.usefixtures("embedded")
def test_dashboard_and_autoscaler_ask_for_metrics_that_there_are(
    page: dict[str, set[str]], of_clients: dict[str, set[str]]
) -> None:
    dashboard = json.loads((SERVING / "compose" / "grafana" / "serving.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) == 14
    for expression in expressions:
        assert asked(expression)
        for name, labels in asked(expression).items():
            assert labels <= (page | of_clients)[name], expression
    (adapter,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]
    assert re.findall(r'__name__="([^"]+)"', adapter["seriesQuery"])[0] in page


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_for_metrics_that_there_are(
    page: dict[str, set[str]], of_clients: dict[str, set[str]], alert: str
) -> None:
    wanted = asked(RULES[alert]["expr"])
    assert wanted
    for name, labels in wanted.items():
        assert labels <= (page | of_clients)[name], name


def test_there_is_an_alert_for_each_way_to_fail() -> None:
    text = " ".join(rule["expr"] for rule in RULES.values())
    for part in (
        'status!~"OK|CANCELLED"',
        "RESOURCE_EXHAUSTED",
        "request_latency_bucket",
        "state_age_seconds_count",
        "cache_skipped",
    ):
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
