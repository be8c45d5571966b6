"""Runs the signatures of SavedModels in a process that has neither keras nor tfctr; used as a script by the tests.

For each model directory it compares score(user_tower(user), candidates) with serving_default over the rows of an .npz.
"""

import json
import sys
from typing import ClassVar


class _Blocker:
    """Refuses every import of keras, tf_keras and tfctr."""

    attempts: ClassVar[list[str]] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in ("keras", "tf_keras", "tfctr"):
            self.attempts.append(name)
            raise ImportError(f"{name} is blocked")


def main(rows: str, *directories: str) -> None:
    import numpy as np
    import tensorflow as tf

    for name in [n for n in sys.modules if n.split(".")[0] in ("keras", "tf_keras", "tfctr")]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Blocker())
    with np.load(rows) as file:
        content = {name: _bytes(column) for name, column in file.items()}
    examples = tf.constant(content["examples"])
    results = {}
    for directory in directories:
        loaded = tf.saved_model.load(directory)
        signatures = loaded.signatures
        whole = signatures["serving_default"](examples=examples)["probabilities"].numpy()

        def inputs(signature: str, loaded: object = loaded) -> dict:
            specs = loaded.signatures[signature].structured_input_signature[1]
            return {n: s for n, s in specs.items() if n in content}

        state = {}
        if "user_tower" in signatures:
            user = {name: tf.constant(_typed(content[name], spec)) for name, spec in inputs("user_tower").items()}
            state = signatures["user_tower"](**user)
        score_specs = inputs("score")
        one, many = {}, {}
        for name, spec in score_specs.items():
            column = _typed(content[name], spec)
            if spec.shape.rank == 2:
                one[name] = tf.constant(column[:, None])
                many[name] = tf.constant(np.stack([column, column[::-1], column], axis=1))
            else:
                one[name] = many[name] = tf.constant(column)
        split = signatures["score"](**state, **one)["probabilities"].numpy()[:, 0]
        several = signatures["score"](**state, **many)["probabilities"].numpy()
        results[directory] = {
            "rows": len(whole),
            "spread": float(whole.std()),
            "probabilities": whole.tolist(),
            "difference": float(np.abs(split - whole).max()),
            "difference_among_others": float(np.abs(several[:, [0, 2]] - whole[:, None]).max()),
        }
    print(json.dumps({"results": results, "import_attempts": _Blocker.attempts}))


def _bytes(column: object) -> object:
    """The bytes of an array of hexadecimal digits; other arrays as they are."""
    import numpy as np

    return np.vectorize(bytes.fromhex, otypes=[object])(column) if column.dtype.kind == "U" else column


def _typed(column: object, spec: object) -> object:
    return column.astype(object if spec.dtype.name == "string" else spec.dtype.as_numpy_dtype)


if __name__ == "__main__":
    main(*sys.argv[1:])
