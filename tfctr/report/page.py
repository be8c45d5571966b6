"""The page of a report, from its sections: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

import tfctr
from tfctr.report.content import Content, Section
from tfctr.report.figures import drawing
from tfctr.report.searches import OF_SEARCHES
from tfctr.report.sections import SECTIONS

_TEMPLATE = "page.html.j2"


def page(content: Content, title: str) -> str:
    """The page as HTML.

    Args:
        content: What the sections read.
        title: The title of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: list[tuple[str, Section, list[Markup]]] = []
    number = 0
    with drawing():
        for make in (*(SECTIONS if content.runs else ()), *OF_SEARCHES):
            section = make(content)
            if section is None:
                continue
            # A picture alone has the width of the page, and another drawing for a phone, whose letters are as large.
            alone = len(section.pictures) == 1
            pictures: list[Markup] = []
            for picture in [one for one in section.pictures for _ in range(1 + alone)]:
                pictures.append(Markup(picture.svg(number, wide=alone and len(pictures) > 0)))
                number += 1
            shown.append((f"section-{len(shown) + 1}", section, pictures))
    names = [*(run.name for run in content.runs), *content.searches]
    return environment.get_template(_TEMPLATE).render(
        title=title, runs=names, sections=shown, version=tfctr.__version__
    )
