"""Which buckets of similarity are used, against what the layers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.workbench import Workbench
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features.parsing import parse_examples
from tfctr.layers.similarity import cosine_similarity
from tfctr.layers.similarity import similarity_buckets as buckets_of
from tfctr.report.similarities import similarity_buckets

ROWS = 5_000
"""More than the split has."""
BINS = 8


@pytest.mark.slow
def test_events_are_counted_in_the_buckets_of_the_layers(workbench: Workbench, tmp_path: Path) -> None:
    examples = tf.constant(workbench.serialized("test", ROWS))
    raw = parse_examples(examples, workbench.file)
    labels = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.int64)})["label"].numpy()
    inputs = {name: np.asarray(value) for name, value in workbench.function.all_sides(raw).items()}
    vectors = workbench.assets.frozen_vectors("item_vector").astype("float32")
    candidate, history = inputs["item_vector"].reshape(-1), inputs["history_item_vector"]
    cosine = cosine_similarity(ops.array(vectors[candidate][:, None]), ops.array(vectors[history]))
    absent = (candidate[:, None, None] == 0) | (history[:, None] == 0)
    expected = np.asarray(buckets_of(cosine, BINS, ops.array(absent)))[:, 0]
    real = np.arange(history.shape[1]) < inputs["history_length"].reshape(-1, 1)

    interests = [{"type": "dta", "bins": BINS}, {"type": "din"}]
    (found,) = similarity_buckets(
        workbench.file, interests, str(workbench.data), split_files(workbench.data, "test"), ROWS
    )

    assert found.events == "history: item_vector"
    for label, counts in ((1, found.clicked), (0, found.other)):
        chosen = expected[real & (labels == label)[:, None]]
        assert np.abs(counts - np.bincount(chosen, minlength=BINS + 1)).sum() <= 2  # of edges
        assert counts.sum() == len(chosen) > 100


@pytest.mark.slow
def test_a_model_without_similarities_has_none(workbench: Workbench) -> None:
    files = split_files(workbench.data, "test")
    assert similarity_buckets(workbench.file, [{"type": "din"}], str(workbench.data), files, ROWS) == []


@pytest.mark.slow
def test_vectors_that_are_not_there_are_told(workbench: Workbench, tmp_path: Path) -> None:
    files = split_files(workbench.data, "test")
    with pytest.raises(UserError, match=r"item_vectors\.npz: no such file"):
        similarity_buckets(workbench.file, [{"type": "dta"}], str(tmp_path), files, ROWS)
