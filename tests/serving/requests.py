"""Valid requests for the small model, and parts of invalid ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tests.serving.conftest import NAME
from tests.serving.model import HISTORY, WIDTH

USER = {"user_id": np.array([3, 4]), "history": np.arange(2 * HISTORY).reshape(2, HISTORY)}
STATE = {"user_vector": np.linspace(-1, 1, WIDTH, dtype=np.float32)[None], "model_tag": np.array([1])}
SCORE = {**STATE, "item_id": np.array([[5, 6, 7]])}
EXAMPLES = {
    "examples": np.array(
        [
            tf.train.Example(
                features=tf.train.Features(
                    feature={
                        key: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                        for key, value in (("user_id", user), ("item_id", item))
                    }
                )
            ).SerializeToString()
            for user, item in ((1, 2), (3, 4))
        ],
        object,
    )
}
ECHO = {
    "int32": np.array([[1, -2]], np.int32),
    "half": np.array([[0.5, -65504.0]], np.float16),
    "bfloat16": np.array([[0.5, -1e30]]).astype(tf.bfloat16.as_numpy_dtype),
    "text": np.array([[b"\xff\x00", b"caf\xc3\xa9"]], object),
    "flag": np.array([[True, False]]),
}


def tensor(dtype: int, shape: list[int], **content: Any) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **content)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def examples_request(kind: Any, signature: str, count: int = 2) -> Any:
    request = kind()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    for serialized in EXAMPLES["examples"][:count]:
        request.input.example_list.examples.add().ParseFromString(serialized)
    return request
