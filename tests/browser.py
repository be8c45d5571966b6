"""Debian's Chromium without a window: what it makes of a page, at a width, light or dark, and what it complains of."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here; as root: apt-get install -y chromium")

_PROBE = """<script>
const seen = getComputedStyle(document.body), root = document.documentElement;
document.title = [root.clientWidth, root.scrollWidth, seen.backgroundColor, document.querySelectorAll("svg").length];
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser shows of a page.

    Attributes:
        width: Of the window, in pixels.
        needed: The width that the page takes; more than `width` scrolls sideways.
        background: Its colour, "rgb(255, 255, 255)".
        pictures: How many SVG elements it has.
        complaints: What the browser wrote to its console.
    """

    width: int
    needed: int
    background: str
    pictures: int
    complaints: list[str]


def look(page: Path, directory: Path, width: int = 1200, dark: bool = False, screenshot: Path | None = None) -> Seen:
    """Open a page, without a network.

    Args:
        page: The HTML file.
        directory: For the browser's profile and a copy of the page.
        width: Of the window.
        dark: Whether the user prefers dark pages.
        screenshot: The PNG file to write, or None.
    """
    probed = directory / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8") + _PROBE, encoding="utf-8")
    assert BROWSER is not None
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={directory / 'profile'}",
        f"--window-size={width},3000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    run = [BROWSER, *options, "--dump-dom", probed.as_uri()]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    if screenshot is not None:
        shot = [BROWSER, *options, f"--screenshot={screenshot}", page.as_uri()]
        subprocess.run(shot, capture_output=True, timeout=300, check=True)
    title = re.search(r"<title>(\d+),(\d+),(.*?),(\d+)</title>", done.stdout)
    assert title is not None, done.stdout[:1000]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "net::" in line]
    return Seen(int(title[1]), int(title[2]), title[3], int(title[4]), complaints)
