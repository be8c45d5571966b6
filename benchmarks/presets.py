"""The page of presets: what each is made of, its paper and equations, its parameters, state and operations.

    python -m benchmarks.presets

Writes docs/presets.md. Words and equations are those of the docstrings; figures are those of the built models, with
the features of configs/synthetic.yaml. It takes about three minutes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from benchmarks.report import say
from tfctr.models.presets import PRESETS

app = typer.Typer(add_completion=False, rich_markup_mode=None)
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "presets.md"
FEATURES = ROOT / "configs" / "synthetic.yaml"
_TABLE_ROWS, _VECTOR_WIDTH = 1000, 128
_MANY = 12
_TAG = 8
"""Bytes of `model_tag`, which a state has when it is served."""

_START = f"""# Presets

Every preset with its paper, its equations and what it costs. `python -m benchmarks.presets` makes this page from the
docstrings, where arguments and shapes stand too, and from the models as they are built. `tfctr models NAME`
shows all settings of one; `tfctr train --preset NAME` trains it. Names in backticks below an equation are classes of
`tfctr`.

Figures: the features of `configs/synthetic.yaml` with E = 16 and one frozen table of {_VECTOR_WIDTH} numbers, a history
of 50 events, float32, before folding. *Parameters* are those that train, without first-order weights and the tables of
features and positions, which depend on the data. *State* is what a cache holds for a user, `model_tag` included.
*FLOPs* are those of `score` for each further candidate of a request. A loss other than cross-entropy stands in the row.

| preset | what it is | interests | interaction | loss | parameters | state, bytes | FLOPs a candidate |
|---|---|---|---|---|---|---|---|
"""


@app.command()
def main() -> None:
    """Write docs/presets.md."""
    PAGE.write_text(page({name: figures(name) for name in PRESETS}), encoding="utf-8")
    say(f"{PAGE.relative_to(ROOT)}: {len(PRESETS)} presets")


def page(found: Mapping[str, tuple[int, int, int]]) -> str:
    """The page, with the figures of presets by name."""
    return _START + "".join(_row(name, found[name]) for name in PRESETS) + "\n" + "\n".join(_sections())


def figures(name: str) -> tuple[int, int, int]:
    """Trainable parameters, bytes of state and FLOPs for each candidate of a preset."""
    import keras
    import numpy as np

    from tfctr.export.cost import model_cost
    from tfctr.features import load_feature_file, model_inputs
    from tfctr.models.model import RankingModel, dummy_inputs

    keras.backend.clear_session()
    file = load_feature_file(FEATURES)
    fields = [field for feature in file.features for field in feature.kind.fields(feature)]
    rows = {field.table.name: _TABLE_ROWS for field in fields if field.table is not None}
    frozen = dict.fromkeys(file.frozen_of_sequence("history"), (_TABLE_ROWS, _VECTOR_WIDTH))
    model = RankingModel(file, rows, frozen, PRESETS[name][1])
    inputs = dummy_inputs(file)
    model(inputs)
    of_user = {spec.name: inputs[spec.name] for spec in model_inputs(file) if spec.side == "user"}
    state = model.user_tower(of_user, training=False)
    size = sum(np.asarray(tensor).nbytes for tensor in state.values())
    scorer = model.scorer
    tables = [*scorer.embeddings.tables.values(), *scorer.bias_tables.values()]
    left_out = {id(weight) for table in (*tables, scorer.first_order) if table for weight in table.weights}
    trained = [weight for weight in model.trainable_weights if id(weight) not in left_out]
    return sum(int(np.prod(one.shape)) for one in trained), size + _TAG, model_cost(model).flops_per_candidate


def _row(name: str, found: tuple[int, int, int]) -> str:
    about, config = PRESETS[name]
    interests = ", ".join(_link(entry["type"]) for entry in config.interests or ()) or _link("mean")
    loss = config.loss["type"] if config.loss["type"] != "binary_crossentropy" else ""
    losses = ", ".join([*([_link(loss)] if loss else []), *(f"+ {_link(one['type'])}" for one in config.auxiliary)])
    parameters, state, operations = (f"{number:,}" for number in found)
    return (
        f"| `{name}` | {about} | {interests} | {_link(config.interaction['type'])} | {losses} "
        f"| {parameters} | {state} | {operations} |\n"
    )


def _link(kind: str) -> str:
    return f"[{kind}](#{kind})"


def _sections() -> Iterator[str]:
    from tfctr.interactions.base import INTERACTIONS
    from tfctr.interests.base import INTERESTS
    from tfctr.losses import AUXILIARY_LOSSES, LOSSES

    for title, registry in (("Interests", INTERESTS), ("Interactions", INTERACTIONS)):
        yield f"## {title}\n"
        for kind, made in registry.items():
            yield _section(kind, made)
    yield "## Losses\n"
    for kind, made in {**LOSSES, **AUXILIARY_LOSSES}.items():
        yield _section(kind, made)


def _section(kind: str, made: type[Any]) -> str:
    first, equations, references = described(made)
    named = [name for name, (_, config) in PRESETS.items() if kind in _types(config)]
    lines = [f"### `{kind}` {{: #{kind} }}\n", first + "\n"]
    if equations:
        lines.append(f"```text\n{equations}\n```\n")
    for part in _parts(made):
        first, equations, _ = described(part)
        lines.append(f"`{part.__name__}`: {first}\n\n```text\n{equations}\n```\n")
    if references:
        lines.append(f"Paper: {references}\n")
    if len(named) > _MANY:
        lines.append(f"{len(named)} presets, see the table.\n")
    elif named:
        lines.append(f"Presets: {', '.join(f'`{name}`' for name in named)}.\n")
    return "\n".join(lines)


def _types(config: Any) -> set[str]:
    interests = config.interests or ({"type": "mean"},)
    return {one["type"] for one in (config.interaction, config.loss, *config.auxiliary, *interests)}


def _parts(made: type[Any]) -> list[type[Any]]:
    """The layers with equations of their own that the module of an architecture makes it of."""
    import keras

    from tfctr.interactions.base import INTERACTIONS
    from tfctr.interests.base import INTERESTS
    from tfctr.layers.dropout import Dropout

    # Dropout's equation is that of its random numbers, which are no part of an architecture.
    known = {*INTERACTIONS.values(), *INTERESTS.values(), Dropout, made}
    found = vars(sys.modules[made.__module__]).values()
    classes = {one: None for one in found if isinstance(one, type) and issubclass(one, keras.layers.Layer)}
    parts = [one for one in classes if one not in known and not issubclass(made, one)]
    return [one for one in parts if one.__module__.startswith("tfctr.") and described(one)[1]]


def described(made: type[Any]) -> tuple[str, str, str]:
    """The first line, the first block of equations and the references of a docstring."""
    text = inspect.cleandoc(made.__doc__ or "")
    before = re.split(
        r"^(?:Args|Call arguments|Inputs|Shapes|Example|Raises|References)\b", text, maxsplit=1, flags=re.MULTILINE
    )[0]
    block = re.search(r"(?:^(?: {4}.*)?\n)*^ {4}.*$", before, re.MULTILINE)
    _, _, references = text.partition("References:\n")
    return before.split("\n")[0], inspect.cleandoc(block[0]) if block else "", " ".join(references.split())


if __name__ == "__main__":
    app()
