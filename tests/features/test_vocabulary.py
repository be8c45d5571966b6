"""Token files: every reader finds the same tokens in them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfctr.errors import UserError
from tfctr.export.op_check import check_ops
from tfctr.features import vocabulary

UGLY = [
    b"plain", b"\r", b"\n", b"\r\n", b"\x00", b"plain\x00", b"plain\r", b"plain\n", b" plain", b"plain ", b" ", b"\t",
    b"%", b"%0A", b"%250A", b"%25", b"%0a", b"\\1", b"\x0b", "\u2028".encode(), "\u0085".encode(), b"\xef\xbb\xbfplain",
    b"\xff\xfe", b"\xff\n\xfe%\xe1\r", b"x" * 100_000,
]  # fmt: skip
TOKENS = st.lists(st.binary(min_size=1) | st.text("%025AD\n\r", min_size=1).map(str.encode), unique=True)


def ids(table: Any, tokens: list[bytes]) -> list[int]:
    found: list[int] = table.lookup(tf.constant(tokens, tf.string)).numpy().tolist()
    return found


@settings(deadline=None)
@given(st.binary() | st.text("%025AD\n\r").map(str.encode))
def test_an_escaped_token_is_one_line_and_comes_back(token: bytes) -> None:
    line = vocabulary.escape(token)
    assert not {*b"\r\n"} & {*line}
    assert vocabulary.unescape(line) == token


@pytest.mark.slow
@settings(deadline=None)
@given(TOKENS)
def test_every_reader_gives_a_token_the_same_index(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    vocabulary.write_tokens(path, tokens)
    assert vocabulary.read_tokens(path) == tokens
    table = vocabulary.lookup_table(str(path))
    assert ids(table, [*tokens, b""]) == [*range(len(tokens)), -1]
    assert table.size() == len(tokens) + 1
    lines = vocabulary.escape_tensor(tf.constant(tokens, tf.string))
    assert lines.numpy().tolist() == [vocabulary.escape(token) for token in tokens]
    assert vocabulary.unescape_tensor(lines).numpy().tolist() == tokens


def test_ordinary_tokens_are_plain_text(tmp_path: Path) -> None:
    vocabulary.write_tokens(tmp_path / "tokens.txt", [b"42", "Zürich".encode(), b"100%"])
    assert (tmp_path / "tokens.txt").read_text(encoding="utf-8") == "42\nZürich\n100%25\n"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"a\nb", ":2: the file was cut off"),
        (b"a\n%0a\n", ":2: `%` starts .* Received: b'%0a'"),
        (b"a%\nb\n", ":1: `%` starts .* Received: b'a%'"),
        (b"a\r\nb\r\n", ":1: a carriage return is written %0D"),
        (b"a\n\nb\n", ":2: the line is empty"),
        (b"a\nb\nc\nb\n", ":4: the token 'b' stands on line 2 already"),
    ],
)
def test_what_is_no_token_file_is_told_with_its_line(tmp_path: Path, contents: bytes, message: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=f"tokens.txt{message}"):
        vocabulary.read_tokens(path)


@pytest.mark.parametrize("read", [vocabulary.read_tokens, vocabulary.read_user_tokens, vocabulary.lookup_table])
def test_a_missing_file_is_told(tmp_path: Path, read: Any) -> None:
    with pytest.raises(UserError, match=r"missing\.txt: no such file"):
        read(tmp_path / "missing.txt")


def test_a_user_may_write_any_text_file(tmp_path: Path) -> None:
    path = tmp_path / "cities.txt"
    path.write_bytes("\ufeffRome\r\n\r\nOslo\n\n50%\n%0A\n a\u2028b \n\r\r\n".encode() + b"\xff")
    assert vocabulary.read_user_tokens(path) == [
        b"Rome", b"Oslo", b"50%", b"%0A", " a\u2028b ".encode(), b"\r", b"\xff"
    ]  # fmt: skip
    for nothing in (b"", b"\n\r\n", b"\xef\xbb\xbf"):
        path.write_bytes(nothing)
        with pytest.raises(UserError, match=r"cities\.txt: holds no token"):
            vocabulary.read_user_tokens(path)
    for encoding in ("utf-16", "utf-16-be"):
        path.write_bytes(("\ufeff" if encoding.endswith("be") else "").encode(encoding) + "Rome\n".encode(encoding))
        with pytest.raises(UserError, match=r"cities\.txt: is UTF-16 text; save it as UTF-8"):
            vocabulary.read_user_tokens(path)
    path.write_bytes(b"a\r\n\r\n\xffb\nc\n\xffb\n")
    with pytest.raises(UserError, match=r"cities\.txt:5: the token .*xffb.* stands on line 3 already"):
        vocabulary.read_user_tokens(path)


def test_a_rewritten_file_gets_a_new_table(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    for tokens in ([b"a", b"b"], [b"b", b"c"], []):
        vocabulary.write_tokens(path, tokens)
        table = vocabulary.lookup_table(path)
        assert ids(table, [b"a", b"b", b"c"]) == [tokens.index(t) if t in tokens else -1 for t in (b"a", b"b", b"c")]


class Served(tf.Module):
    """Makes its table when it is traced, as the raw function does."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.paths = paths
        self.tables: list[Any] = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, tokens: Any) -> Any:
        if not self.tables:
            with tf.init_scope():
                self.tables = [vocabulary.lookup_table(path) for path in self.paths]
        return {str(number): table.lookup(tokens) for number, table in enumerate(self.tables)}


FRESH = """
import json
import sys
import tensorflow as tf

with open(sys.argv[2]) as file:
    tokens = [bytes.fromhex(token) for token in json.load(file)]
found = tf.saved_model.load(sys.argv[1]).signatures["serving_default"](tf.constant(tokens))
found = {name: ids.numpy().tolist() for name, ids in found.items()}
with tf.compat.v1.Session(graph=tf.Graph()) as session:  # as TensorFlow Serving runs it
    graph = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = graph.signature_def["serving_default"]
    outputs = {name: output.name for name, output in signature.outputs.items()}
    again = session.run(outputs, {signature.inputs["tokens"].name: tokens})
    again = {name: ids.tolist() for name, ids in again.items()}
ids, unknown = [*range(len(tokens) - 1), -1], [-1] * len(tokens)
assert found == again == {"0": ids, "1": ids, "2": unknown}, (found, again)
"""


@pytest.mark.e2e
def test_a_saved_model_takes_its_files_along(tmp_path: Path) -> None:
    files = {tmp_path / "tokens.txt": UGLY, tmp_path / "equal.txt": UGLY, tmp_path / "empty.txt": []}
    for path, tokens in files.items():
        vocabulary.write_tokens(path, tokens)
    served = Served([*files])
    tf.saved_model.save(served, tmp_path / "model", signatures={"serving_default": served.__call__})
    check_ops(tmp_path / "model")
    for path, tokens in files.items():
        assert vocabulary.read_tokens(tmp_path / "model" / "assets" / path.name) == tokens
        path.unlink()
    assert UGLY[-1] not in (tmp_path / "model" / "saved_model.pb").read_bytes()
    (tmp_path / "tokens.json").write_text(json.dumps([token.hex() for token in [*UGLY, b"unknown"]]))
    arguments = [sys.executable, "-c", FRESH, str(tmp_path / "model"), str(tmp_path / "tokens.json")]
    subprocess.run(arguments, check=True, cwd=tmp_path)


def test_ranked_by_count_then_by_bytes() -> None:
    counts = {b"a": 2, b"b": 3, b"c": 2, b"": 9, b"\n": 2, b"$": 2, b"d": 1}
    assert vocabulary.ranked(counts) == [b"b", b"\n", b"$", b"a", b"c", b"d"]
    assert vocabulary.ranked(counts, min_count=2, max_size=3) == [b"b", b"\n", b"$"]
    assert vocabulary.ranked({}) == []


@pytest.mark.e2e
def test_transform_learns_equally_frequent_tokens_and_looks_up_the_same_ids(tmp_path: Path) -> None:
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    generator = np.random.default_rng(0)
    known = [*UGLY, *(b"%d" % number for number in range(200))]
    tokens = [known[index] for index in generator.integers(0, len(known), 700)] + [b""] * 5
    selections: dict[str, dict[str, Any]] = {
        "all": {"min_count": 1, "max_size": None},
        "frequent": {"min_count": 3, "max_size": None},
        "largest": {"min_count": 2, "max_size": 50},
        "none": {"min_count": 1000, "max_size": None},
        "none_of_largest": {"min_count": 1000, "max_size": 50},
    }
    given_path = tmp_path / "given.txt"
    vocabulary.write_tokens(given_path, known)

    def look_up(tokens: Any, path: Any) -> Any:
        with tf.init_scope():
            table = vocabulary.lookup_table(path)
        return table.lookup(tokens), table.size()

    def preprocessing_fn(inputs: Any) -> Any:
        outputs = {}
        for name, selection in selections.items():
            path = tft.vocabulary(
                vocabulary.escape_tensor(inputs["token"]),
                frequency_threshold=selection["min_count"],
                top_k=selection["max_size"],
                vocab_filename=name,
            )
            outputs[name] = tft.apply_vocabulary(inputs["token"], path, lookup_fn=look_up)
        table = tft.make_and_track_object(lambda: vocabulary.lookup_table(str(given_path)), name="given")
        return outputs | {"given": table.lookup(inputs["token"])}

    schema = schema_utils.schema_from_feature_spec({"token": tf.io.FixedLenFeature([], tf.string)})
    with tft_beam.Context(temp_dir=str(tmp_path / "temporary"), force_tf_compat_v1=False):
        data = ([{"token": token} for token in tokens], dataset_metadata.DatasetMetadata(schema))
        (rows, _), transform = data | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
        _ = transform | tft_beam.WriteTransformFn(str(tmp_path / "transform"))
    output = tft.TFTransformOutput(str(tmp_path / "transform"))
    counts = Counter(tokens)
    learned = {name: vocabulary.read_tokens(output.vocabulary_file_by_name(name)) for name in selections}
    for name, selection in selections.items():
        ours = vocabulary.ranked(counts, **selection)
        # Among equally frequent tokens, Transform takes the greatest bytes first, and `ranked` takes the least.
        assert [counts[token] for token in learned[name]] == [counts[token] for token in ours], name
        if selection["max_size"] is None:
            assert sorted(learned[name]) == sorted(ours), name
    for name, expected in (learned | {"given": known}).items():
        index = {token: number for number, token in enumerate(expected)}
        assert [row[name] for row in rows] == [index.get(token, -1) for token in tokens], name
