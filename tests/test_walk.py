"""One name of the model on all pages, and from what the pipeline pushes to what a client asks for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from pipeline.local_runner import OutputLayout
from tests.workbench import ROOT
from tfctr import MODEL_NAME
from tfctr.client import RankingClient


def test_one_name_from_the_pipeline_to_the_manifests(tmp_path: Path) -> None:
    asked = inspect.signature(RankingClient).parameters["model_name"].default
    configured = yaml.safe_load((ROOT / "configs" / "serving.yaml").read_text(encoding="utf-8"))["model"]["name"]
    assert {asked, configured, OutputLayout(tmp_path).serving.name} == {MODEL_NAME} == {"ranking"}


def test_no_page_asks_for_another_name() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "serving" / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"serving/(\w+)/1\d{9}|OUT/serving/(\w+)|demo/serving/(\w+)|/models/(\w+):ro", text)
        named += re.findall(r"client (?:rank|status)[^\n]* --model (\S+)|model_name=\"(\w+)\"", text)
        assert {name for names in named for name in names if name} <= {MODEL_NAME, "small"}, page
