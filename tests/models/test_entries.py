"""What an entry of `interests` says beside its module's options: events of chosen features, outputs as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.composition import model_batch
from tests.models.test_composition import assert_split_is_call, train_one_step
from tests.workbench import Workbench, small_features
from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.models import ModelConfig, RankingModel, build_model

pytestmark = pytest.mark.slow

E, TEXT, IMAGE = 8, 16, 12
MLP = {"type": "mlp", "hidden": [8]}


@pytest.fixture(scope="module")
def two_tables(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The workbench with two frozen tables: the image vectors are its own, those of the text are not of every item."""
    content = small_features().model_dump(mode="json", exclude_unset=True)
    del content["candidate"]["item_vector"]
    given = tmp_path_factory.mktemp("vectors")
    with np.load(workbench.data / "item_vectors.npz") as archive:
        ids, image = archive["ids"], archive["vectors"]
    text = np.random.default_rng(1).normal(size=(len(ids) // 2, TEXT)).astype("float32")
    for name, of_ids, vectors in (("image", ids, image), ("text", ids[: len(text)], text)):
        np.savez(given / f"{name}.npz", ids=of_ids, vectors=vectors)
        content["candidate"][name] = {"kind": "frozen", "key": "item_id", "vectors": f"{name}.npz"}
    file = FeatureFile.model_validate(content)
    return Workbench(workbench.data, file, analyze(file, split_files(workbench.data, "train"), given / "assets", given))


def config(*interests: dict[str, Any]) -> ModelConfig:
    return ModelConfig(interests=interests, interaction=MLP)


def paths(model: RankingModel) -> set[str]:
    return {weight.path.partition("/")[2] for weight in model.weights}


@pytest.mark.parametrize(
    ("entry", "width", "fields"),
    [
        ({"type": "asta"}, 2 * E, 2),
        ({"type": "asta", "content": True}, 4 * E, 4),
        ({"type": "asta", "features": ["item_id"], "content": ["text"]}, 2 * E, 2),
        ({"type": "asta", "features": [], "content": ["image"]}, E, 1),
        ({"type": "asta", "features": [], "content": True, "raw": True}, TEXT + IMAGE, 4),
        ({"type": "asta", "features": [], "content": ["text"], "raw": True, "project": False}, TEXT, 2),
        ({"type": "din", "features": ["genres"], "hidden": [4], "project": False}, E, 1),
        ({"type": "simtier", "units": 3 * E, "project": False}, 2 * E, 3),
        ({"type": "make", "units": E, "project": False}, 2 * E, 1),
        (
            {"type": "ta_early", "output_projection": False, "attention_dim": 4 * E, "project": False},
            2 * E,
            4,
        ),
    ],
)
def test_events_and_fields_of_an_entry(two_tables: Workbench, entry: dict[str, Any], width: int, fields: int) -> None:
    model = two_tables.model(config(entry))
    inputs = model_batch(two_tables, rows=4, candidates=2)
    found = model.scorer.entries["history"]
    assert (found.width, found.fields) == (width, fields)
    assert any("history_fields" in path for path in paths(model)) == entry.get("project", True)
    bare = two_tables.model(config({"type": "mean"})).scorer.interaction.block.dense[0].kernel.shape[0]
    assert model.scorer.interaction.block.dense[0].kernel.shape[0] == bare + (fields - 2) * E
    train_one_step(model, inputs)
    assert_split_is_call(model, inputs)


def test_events_by_hand(two_tables: Workbench) -> None:
    """The state of a mean is the mean of the events: genres, then the vectors of the tables by name."""
    entry = {"type": "mean", "features": ["genres"], "content": ["text", "image"], "raw": True}
    file = two_tables.file.model_dump(mode="json", exclude_unset=True)
    # Features that candidates do not have would be added to the events.
    del file["sequences"]["history"]["fields"]["history_rating"]
    del file["sequences"]["history"]["fields"]["history_time"]
    model = RankingModel(
        file,
        two_tables.assets.trained_tables(),
        {name: two_tables.assets.frozen_vectors(name).shape for name in two_tables.assets.frozen_tables()},
        config(entry),
    )
    model.build()
    for name, table in model.embeddings.frozen_tables.items():
        table.assign(two_tables.assets.frozen_vectors(name))
    inputs = model_batch(two_tables)
    user = {name: value for name, value in inputs.items() if name in model._pick("user", inputs)}
    state = np.asarray(model.user_tower(user)["history/mean"])
    genres = np.asarray(model.embeddings.tables["genres"].embeddings)
    image, text = (two_tables.assets.frozen_vectors(name) for name in ("image", "text"))
    for row, length in enumerate(inputs["history_length"]):
        events = []
        for step in range(length):
            ids = [one for one in inputs["history_genres"][row, step] if one]
            of_genres = genres[ids].mean(axis=0) if ids else np.zeros(E)
            rows = [inputs[f"history_{name}"][row, step] for name in ("image", "text")]
            events.append(np.concatenate([of_genres, image[rows[0]], text[rows[1]]]))
        np.testing.assert_allclose(state[row], np.mean(events, axis=0), atol=1e-6)


def test_an_output_that_is_not_projected_is_the_fields(workbench: Workbench) -> None:
    """Of two equal interests one is projected; with the identity as its projection both give the same logits."""
    projected, as_is = (
        workbench.model(config({"type": "cmm", "num_heads": 2, "bins": 5, "project": project}))
        for project in (True, False)
    )
    dense = projected.scorer.interest_projections["history"]
    assert as_is.scorer.interest_projections == {}
    for weight, other in zip(
        [one for one in projected.weights if "history_fields" not in one.path], as_is.weights, strict=True
    ):
        other.assign(weight)
    dense.kernel.assign(np.eye(2 * E))
    dense.bias.assign(np.zeros(2 * E))
    inputs = model_batch(workbench, candidates=2)
    np.testing.assert_allclose(as_is(inputs), projected(inputs), rtol=1e-5, atol=1e-6)


def test_projected_and_as_they_are_side_by_side(two_tables: Workbench) -> None:
    """QIN with an attention for each modality, the text's projected as one of several."""
    model = two_tables.model(
        config(
            {"type": "asta", "project": False},
            {"type": "asta", "features": [], "content": ["image"], "project": False},
            {"type": "asta", "features": [], "content": ["text"], "raw": True},
        )
    )
    assert list(model.scorer.entries) == ["history_asta", "history_asta_2", "history_asta_3"]
    assert list(model.scorer.interest_projections) == ["history_asta_3"]
    inputs = model_batch(two_tables, candidates=2)
    train_one_step(model, inputs)
    assert_split_is_call(model, inputs)


@pytest.mark.parametrize("kind", ["cmm", "dta", "simtier", "ta_early", "ta_late"])
def test_two_frozen_tables_side_by_side(two_tables: Workbench, kind: str) -> None:
    """Each table has weights of its own and changes the scores; with one table named, the other does not."""
    both = two_tables.model(config({"type": kind, "bins": 5}))
    one = two_tables.model(config({"type": kind, "bins": 5, "frozen": "text"}))
    assert both.scorer.interests["history"].frozen_names == ("image", "text")
    inputs = model_batch(two_tables, candidates=2)
    for model, expected in ((both, {"image", "text"}), (one, {"text"})):
        train_one_step(model, inputs)
        # Without the candidate's own fields of content, the tables reach the score through the interest alone.
        for projection in (model.embeddings.projections[name] for name in ("image", "text")):
            projection.kernel.assign(np.zeros(projection.kernel.shape))
        plain, moved = assert_split_is_call(model, inputs), set()
        for name, table in model.embeddings.frozen_tables.items():
            vectors = np.array(table)
            table.assign(np.roll(vectors, 1, axis=0))
            if not np.array_equal(model(inputs).numpy(), plain):
                moved.add(name)
            table.assign(vectors)
        assert moved == expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"content": "yes"}, "`content` must be true, false or a list of frozen tables. Received: 'yes'"),
        ({"content": ["sound"]}, r"`content`: sequence 'history' has no \['sound'\]. Allowed: \['image', 'text'\]"),
        ({"content": ["text", "text"]}, "`content`: the same name twice"),
        ({"features": "item_id"}, "`features` must be a list of features that candidate and events share"),
        ({"features": ["year"]}, r"`features`: sequence 'history' has no \['year'\]. Allowed: \['item_id', 'genres'\]"),
        ({"features": []}, "leaves nothing of the events of 'history': name `features` of"),
        ({"project": 1}, "`project` must be true or false. Received: 1"),
        ({"raw": "no"}, "`raw` must be true or false. Received: 'no'"),
        ({"raw": True}, "`raw: true` is for the vectors of `content`, and the entry has no content"),
        (
            {"type": "target_attention", "output_projection": False, "attention_dim": 12, "project": False},
            "interest target_attention: with `project: false` its output must be whole fields, a multiple of the "
            "embedding_dimension 8. Received: a width of 12",
        ),
        (
            {"content": ["image"], "raw": True, "project": False},
            "must be whole fields, a multiple of the embedding_dimension 8. Received: a width of 28",
        ),
    ],
)
def test_errors(two_tables: Workbench, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(two_tables.assets, config({"type": "din", **entry}))
