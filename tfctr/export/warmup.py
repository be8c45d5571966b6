"""Warm-up requests, which TF Serving runs before a version becomes available."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfctr import MODEL_NAME
from tfctr.export.signatures import RankingModule
from tfctr.features.assets import FeatureAssets
from tfctr.features.parsing import parse_examples

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup_requests(module: RankingModule, directory: Path, candidates: Sequence[int], example: bytes) -> None:
    """Writes a request for `serving_default`, one for `user_tower`, and one for `score` for each number of candidates.

    A model that reads nothing of a user has none for `user_tower`.
    Their content is a serialized raw example.
    """
    serialized = tf.constant([example])
    raw = parse_examples(serialized, module.file)
    requests = [_request("serving_default", {"examples": serialized})]
    state = {}
    if user := {name: raw[name] for name in module.user_specs}:
        state = module.user_tower(user)
        requests.append(_request("user_tower", user))
    for count in candidates:
        repeated = {name: tf.repeat(raw[name][:, None], count, axis=1) for name in module.candidate_specs}
        context = {name: raw[name] for name in module.context_specs}
        requests.append(_request("score", {**state, **repeated, **context}))
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as writer:
        for request in requests:
            writer.write(request.SerializeToString())


def made_example(assets: FeatureAssets) -> bytes:
    """A serialized raw example that is nobody's: full histories of tokens and defaults.

    It is made of the feature file and of vocabularies, so that no user's record is in a SavedModel.
    """
    example = tf.train.Example()
    for feature in assets.file.features:
        for name, value in feature.kind.made_values(feature, assets).items():
            values = [value] * (feature.length or 1)
            column = example.features.feature[assets.file.column_of(name)]
            if isinstance(value, bytes):
                column.bytes_list.value.extend(values)
            elif isinstance(value, float):
                column.float_list.value.extend(values)
            else:
                column.int64_list.value.extend(values)
    return bytes(example.SerializeToString())


def _request(signature: str, inputs: Mapping[str, Any]) -> Any:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = MODEL_NAME
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.asarray(tensor)))
    return log
