"""The state of a user, as `user_tower` made it, and its form in a shared cache."""

import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from tfctr.client import codec
from tfctr.client.codec import Array
from tfctr.client.errors import CodecError

_MAGIC = b"tfctrST1"
_HEADER = struct.Struct("<8s16sqH")  # magic, digest of the key, version, number of tensors
_ENTRY = struct.Struct("<HBB")  # bytes of the name, DataType, rank
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class UserState:
    """What `score` needs to know of a user.

    Attributes:
        model: model name.
        version: the version that made it; only that version may score it.
        fingerprint: hash of that version's signatures.
        tensors: outputs of `user_tower` by name, each `[1, ...]`, read-only.
    """

    model: str
    version: int
    fingerprint: str
    tensors: Mapping[str, Array]

    def __post_init__(self) -> None:
        for tensor in self.tensors.values():
            tensor.setflags(write=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class StateKey:
    """What a cached state depends on.

    Attributes:
        model: model name.
        version: served version.
        fingerprint: hash of that version's signatures.
        user_key: the user.
        history_version: changes with every new event of the user (a counter, or the time of the newest event).
    """

    model: str
    version: int
    fingerprint: str
    user_key: str
    history_version: str

    def text(self, prefix: str = "tfctr:state") -> str:
        """One string, different for different keys: parts are quoted, so that no part can hold the separator."""
        parts = (self.model, str(self.version), self.fingerprint, self.user_key, self.history_version)
        return ":".join((prefix, *(quote(part, safe="", errors="surrogatepass") for part in parts)))

    @property
    def digest(self) -> bytes:
        """16 bytes that stand in the payload: a value filed under the wrong key is not taken for another user's."""
        return hashlib.blake2b(self.text("").encode(), digest_size=16).digest()


def to_bytes(key: StateKey, state: UserState) -> bytes:
    """The state as raw bytes behind a header, with a CRC-32 at the end.

    Raises:
        CodecError: a tensor that has no raw form (strings).
    """
    parts = [_HEADER.pack(_MAGIC, key.digest, state.version, len(state.tensors))]
    for name, tensor in state.tensors.items():
        if tensor.dtype == object:
            raise CodecError(f"state '{name}' is made of strings, which a shared cache cannot hold.")
        encoded = name.encode()
        parts.append(_ENTRY.pack(len(encoded), codec.dtype_enum(tensor.dtype), tensor.ndim))
        parts.append(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        parts += [encoded, np.ascontiguousarray(tensor).tobytes()]
    body = b"".join(parts)
    return body + _CRC.pack(zlib.crc32(body))


def from_bytes(key: StateKey, payload: bytes) -> UserState | None:
    """Reads what `to_bytes` wrote; anything else (garbage, another key, a cut or flipped byte) is `None`."""
    body, tail = payload[: -_CRC.size], payload[-_CRC.size :]
    if len(body) < _HEADER.size or _CRC.unpack(tail)[0] != zlib.crc32(body):
        return None
    magic, digest, version, count = _HEADER.unpack_from(body)
    if magic != _MAGIC or digest != key.digest or version != key.version:
        return None
    tensors = {}
    at = _HEADER.size
    try:
        for _ in range(count):
            name_size, enum, rank = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            shape = struct.unpack_from(f"<{rank}q", body, at)
            at += 8 * rank
            name = body[at : at + name_size].decode()
            at += name_size
            dtype = codec.DTYPES[enum][0]
            size = math.prod(shape)
            tensors[name] = np.frombuffer(body, dtype, size, at).reshape(shape)
            at += size * dtype.itemsize
    except (struct.error, KeyError, ValueError):
        return None  # the CRC holds, so another release of tfctr wrote it
    return UserState(key.model, version, key.fingerprint, tensors) if at == len(body) else None
