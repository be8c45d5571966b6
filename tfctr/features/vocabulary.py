"""Vocabulary and key files: one reader and one writer for Python, TensorFlow and Transform.

A token is bytes and must not be empty. A token file holds one token a line, in index order, and every line ends in a
line feed. A token stands there byte for byte, except that `%` is written `%25`, a line feed `%0A` and a carriage return
`%0D`: no token can break a line, and a file of ordinary tokens reads as plain text. Transform's own vocabulary file has
this format when `tft.vocabulary` is given escaped tokens.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.errors import UserError

#: Character and escape. `%` is escaped first and unescaped last, so that an escape that was part of a token comes back.
_ESCAPES = ((b"%", b"%25"), (b"\n", b"%0A"), (b"\r", b"%0D"))
_NOT_ALLOWED = {
    re.compile(b"\r"): "a carriage return is written %0D, and a line ends in a line feed alone",
    re.compile(b"%(?!25|0A|0D)"): "`%` starts %25 (a percent sign), %0A (a line feed) or %0D (a carriage return)",
}
#: The whole file that Transform writes for an empty vocabulary (`get_empy_vocabulary_dummy_value` in its analyzers.py).
_EMPTY_IN_TRANSFORM = b"49d0cd50-04bb-48c0-bc6f-5b575dce351a\n"


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
    for pattern, rule in _NOT_ALLOWED.items():
        if found := pattern.search(contents):
            number = contents.count(b"\n", 0, found.start()) + 1
            raise UserError(f"{path}:{number}: {rule}. Received: {lines[number - 1]!r}")
    if b"" in lines:
        raise UserError(f"{path}:{lines.index(b'') + 1}: the line is empty; a token has at least one byte")
    tokens = [unescape(line) for line in lines] if b"%" in contents else lines
    _refuse_repeated(path, tokens, range(1, len(tokens) + 1))
    return tokens


def read_user_tokens(path: str | Path) -> list[bytes]:
    """Return the tokens of a text file that a user wrote: one a line, without escapes, in index order.

    A byte order mark at the start and empty lines are left out, and lines may end in CR LF.

    Raises:
        UserError: The file is missing, is UTF-16, holds no token, or a token stands on two lines.
    """
    contents = _contents(path)
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in contents:
        raise UserError(f"{path}: is UTF-16 text; save it as UTF-8, as the log's texts are")
    lines = contents.removeprefix(codecs.BOM_UTF8).split(b"\n")
    numbered = {number: token for number, line in enumerate(lines, 1) if (token := line.removesuffix(b"\r"))}
    tokens = list(numbered.values())
    if not tokens:
        raise UserError(f"{path}: holds no token; write one on each line")
    _refuse_repeated(path, tokens, numbered)
    return tokens


def _contents(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None


def _refuse_repeated(path: str | Path, tokens: list[bytes], numbers: Iterable[int]) -> None:
    # Sorted hashes tell for millions of tokens within seconds that none is repeated; a set takes several times as long.
    hashes = np.fromiter(map(hash, tokens), np.int64, len(tokens))
    hashes.sort()
    if not (hashes[1:] == hashes[:-1]).any():
        return
    first: dict[bytes, int] = {}
    for token, number in zip(tokens, numbers, strict=True):
        if first.setdefault(token, number) != number:
            shown = token.decode("utf-8", errors="backslashreplace")
            raise UserError(f"{path}:{number}: the token {shown!r} stands on line {first[token]} already")


def ranked(counts: Mapping[bytes, int], min_count: int = 1, max_size: int | None = None) -> list[bytes]:
    """Return the tokens of a learned vocabulary: the most frequent first, equally frequent ones by their bytes.

    `tft.vocabulary` keeps the same frequencies, but of equally frequent tokens it takes the greater bytes first.

    Args:
        counts: How often each token occurs. The empty token is left out.
        min_count: A token that occurs less often is left out.
        max_size: At most so many tokens are kept.
    """
    kept = [(-count, token) for token, count in counts.items() if token and count >= min_count]
    return [token for _, token in sorted(kept)[:max_size]]


def escape_tensor(tokens: Any) -> Any:
    """Return the lines that the tokens of a string tensor are written as."""
    import tensorflow as tf

    for character, escaped in _ESCAPES:
        tokens = tf.strings.regex_replace(tokens, character, escaped)
    return tokens


def unescape_tensor(lines: Any) -> Any:
    """Return the tokens that the lines of a string tensor stand for."""
    import tensorflow as tf

    for character, escaped in reversed(_ESCAPES):
        lines = tf.strings.regex_replace(lines, escaped, character)
    return lines


def lookup_table(path: Any) -> Any:
    """Return a `tf.lookup.StaticHashTable` from token to its index in a token file, from 0; -1 for any other string.

    The table reads the file when it is initialised, and a SavedModel takes the file along as an asset. Besides the n
    tokens it maps the empty string to -1, because TensorFlow refuses an empty table: its `size()` is n + 1.

    Args:
        path: The token file, a string or a string tensor.
    """
    import tensorflow as tf

    return tf.lookup.StaticHashTable(_token_file()(path), -1)


def indices(table: Any, tokens: Any) -> Any:
    """Return the indices int64 of tokens by a table of `lookup_table`: 1 .. n, and n + 1 for what it does not hold."""
    import tensorflow as tf

    found = table.lookup(tokens)
    # The size counts the empty string too, so it is n + 1.
    return tf.where(found < 0, table.size(), found + 1)


@functools.cache
def _token_file() -> Any:
    """Return the class of table initializers that read a token file, as `tf.lookup.TextFileInitializer` reads text."""
    import tensorflow as tf

    class TokenFile(tf.Module):
        key_dtype, value_dtype = tf.string, tf.int64

        def __init__(self, path: Any) -> None:
            super().__init__()
            self.file = tf.saved_model.Asset(path)
            # Tables of one name are one: equal files share a table, and a file that was rewritten gets a new one.
            self._shared_name = "" if tf.is_tensor(path) else hashlib.sha256(_contents(path)).hexdigest()

        def initialize(self, table: Any) -> Any:
            contents = tf.io.read_file(self.file.asset_path)
            contents = tf.where(contents == _EMPTY_IN_TRANSFORM, b"", contents)
            # The last key is what follows the last line feed: the empty string.
            keys = tf.raw_ops.StringSplitV2(input=contents[None], sep=b"\n").values
            plain = tf.strings.regex_full_match(contents, b"[^%]*")
            keys = tf.cond(plain, lambda: keys, lambda: unescape_tensor(keys))
            values = tf.concat([tf.range(tf.size(keys, tf.int64) - 1), [-1]], axis=0)
            return tf.lookup.KeyValueTensorInitializer(keys, values).initialize(table)

    return TokenFile
