"""Vocabulary and key files: one reader and one writer for Python, TensorFlow and Transform.

A token is bytes and must not be empty. A token file holds one token a line, in index order, and every line ends in a
line feed. A token stands there byte for byte, except that `%` is written `%25`, a line feed `%0A` and a carriage return
`%0D`: no token can break a line, and a file of ordinary tokens reads as plain text. Transform's own vocabulary file has
this format when `tft.vocabulary` is given escaped tokens.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfctr.errors import UserError

#: Character and escape. `%` is escaped first and unescaped last, so that an escape that was part of a token comes back.
_ESCAPES = ((b"%", b"%25"), (b"\n", b"%0A"), (b"\r", b"%0D"))
_BAD_LINE = re.compile(b"\r|%(?!25|0A|0D)")
#: The whole file that Transform writes for an empty vocabulary (`get_empy_vocabulary_dummy_value` in its analyzers.py).
_EMPTY_IN_TRANSFORM = b"49d0cd50-04bb-48c0-bc6f-5b575dce351a\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def escape(token: bytes) -> bytes:
    """Return the line that a token is written as."""
    for character, escaped in _ESCAPES:
        token = token.replace(character, escaped)
    return token


def unescape(line: bytes) -> bytes:
    """Return the token that a line stands for."""
    for character, escaped in reversed(_ESCAPES):
        line = line.replace(escaped, character)
    return line


def write_tokens(path: str | Path, tokens: Iterable[bytes]) -> None:
    """Write a token file."""
    with open(path, "wb") as file:
        file.writelines(escape(token) + b"\n" for token in tokens)


def read_tokens(path: str | Path) -> list[bytes]:
    """Return the tokens of a token file in index order.

    Raises:
        UserError: The file is missing or cut off, or a line is empty, is no escaped token, or repeats another.
    """
    contents = _contents(path)
    if contents == _EMPTY_IN_TRANSFORM:
        return []
    *lines, rest = contents.split(b"\n")
    if rest:
        raise UserError(f"{path}:{len(lines) + 1}: the file was cut off: its last line does not end in a line feed")
    if bad := _BAD_LINE.search(contents):
        number = contents.count(b"\n", 0, bad.start()) + 1
        raise UserError(
            f"{path}:{number}: a carriage return must be written %0D, and `%` must "
            f"be the start of %25 (a percent sign), %0A (a line feed) or %0D. Received: {lines[number - 1]!r}"
        )
    tokens = [unescape(line) for line in lines] if b"%" in contents else lines
    unique = set(tokens)
    if b"" in unique:
        raise UserError(f"{path}:{tokens.index(b'') + 1}: the line is empty; a token has at least one byte")
    if len(unique) < len(tokens):
        raise _repeated(path, enumerate(tokens, 1))
    return tokens


def read_user_tokens(path: str | Path) -> list[bytes]:
    """Return the tokens of a text file that a user wrote: one a line, without escapes, in index order.

    A byte order mark at the start and empty lines are left out, and lines may end in CR LF.

    Raises:
        UserError: The file is missing, or a token stands on two lines.
    """
    lines = _contents(path).removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    numbered = [(number, token) for number, line in enumerate(lines, 1) if (token := line.removesuffix(b"\r"))]
    tokens = [token for _, token in numbered]
    if len(set(tokens)) < len(tokens):
        raise _repeated(path, numbered)
    return tokens


def _contents(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None


def _repeated(path: str | Path, numbered: Iterable[tuple[int, bytes]]) -> UserError:
    first: dict[bytes, int] = {}
    for number, token in numbered:
        if first.setdefault(token, number) != number:
            shown = token.decode("utf-8", errors="backslashreplace")
            return UserError(f"{path}:{number}: the token {shown!r} stands on line {first[token]} already")
    raise AssertionError("no token is repeated")


def ranked(counts: Mapping[bytes, int], min_count: int = 1, max_size: int | None = None) -> list[bytes]:
    """Return the tokens that `tft.vocabulary` keeps of escaped tokens, in its order.

    The most frequent token comes first. Of equally frequent ones, the one whose escaped bytes are greater comes first.

    Args:
        counts: How often each token occurs. The empty token is left out.
        min_count: A token that occurs less often is left out (`frequency_threshold`).
        max_size: At most so many tokens are kept (`top_k`).
    """
    lines = [(count, escape(token)) for token, count in counts.items() if token and count >= min_count]
    return [unescape(line) for _, line in sorted(lines, reverse=True)[:max_size]]


def escape_tensor(tokens: Any) -> Any:
    """Return the lines that the tokens of a string tensor are written as."""
    import tensorflow as tf

    for character, escaped in _ESCAPES:
        tokens = tf.strings.regex_replace(tokens, character, escaped)
    return tokens


def lookup_table(path: Any) -> Any:
    """Return a `tf.lookup.StaticHashTable` from token to its index in a token file, from 0; -1 for any other string.

    The table reads the file when it is initialised, and a SavedModel takes the file along as an asset. Besides the n
    tokens it maps the empty string to -1, because TensorFlow refuses an empty table: its `size()` is n + 1.

    Args:
        path: The token file, a string or a string tensor.
    """
    import tensorflow as tf

    return tf.lookup.StaticHashTable(_token_file()(path), -1)


@functools.cache
def _token_file() -> Any:
    """Return the class of table initializers that read a token file, as `tf.lookup.TextFileInitializer` reads text."""
    import tensorflow as tf

    class TokenFile(tf.Module):
        key_dtype, value_dtype = tf.string, tf.int64
        # Without a shared name, a file that was rewritten under its old path cannot meet the old table.
        _shared_name = ""

        def __init__(self, path: Any) -> None:
            super().__init__()
            self.file = tf.saved_model.Asset(path)

        def initialize(self, table: Any) -> Any:
            contents = tf.io.read_file(self.file.asset_path)
            contents = tf.where(contents == _EMPTY_IN_TRANSFORM, b"", contents)
            # The last key is what follows the last line feed: the empty string.
            keys = tf.raw_ops.StringSplitV2(input=contents[None], sep=b"\n").values
            for character, escaped in reversed(_ESCAPES):
                keys = tf.strings.regex_replace(keys, escaped, character)
            values = tf.concat([tf.range(tf.size(keys, tf.int64) - 1), [-1]], axis=0)
            return tf.lookup.KeyValueTensorInitializer(keys, values).initialize(table)

    return TokenFile
