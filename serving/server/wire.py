"""The wire format of protocol buffers, as far as it shows how much memory a message takes when it is parsed."""

from __future__ import annotations

from typing import Any

from serving.server.status import invalid_argument

MAX_PARTS = 200_000
"""The most fields of a message. One that is a message takes some 60 bytes when it is parsed, and 2 on the wire."""
_SHORT_BYTES = 2**16
_DEPTH = 32
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_parts(kind: Any, message: bytes) -> None:
    """Refuses a message of very many fields, which would take many times its size in memory when it is parsed.

    A short message can do no harm, so it is not read here. What is no message is left to the parser.

    Args:
        kind: The class of the message.
        message: Its bytes.

    Raises:
        StatusError: It has too many fields.
    """
    if len(message) > _SHORT_BYTES and _parts(kind.DESCRIPTOR, message, 0, len(message), 0, _DEPTH) > MAX_PARTS:
        raise invalid_argument(f"a message may have {MAX_PARTS} fields, those of its parts included, and not more")


def _parts(descriptor: Any, message: bytes, at: int, end: int, found: int, depth: int) -> int:
    """`found` and the fields between two positions; the count stops soon after MAX_PARTS."""
    fields = descriptor.fields_by_number
    while at < end and found <= MAX_PARTS:
        tag, at = _varint(message, at, end)
        found += 1
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at, end)
        elif kind == _LENGTH:
            size, at = _varint(message, at, end)
            field = fields.get(tag >> 3)
            if field is not None and field.message_type is not None:
                if not depth:
                    return MAX_PARTS + 1
                found = _parts(field.message_type, message, at, min(end, at + size), found, depth - 1)
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            break
    return found


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and the position after it."""
    value = shift = 0
    while at < end:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return value, at
