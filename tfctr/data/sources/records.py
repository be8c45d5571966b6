"""Reads TFRecord files and tf.Examples without TensorFlow, record by record, and says where one is damaged.

TFRecord frames every record as: length (uint64), masked CRC-32C of the length, the bytes, masked CRC-32C of the bytes.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfctr.errors import UserError

_MASK_DELTA = 0xA282EAD8
_LISTS = {
    "BytesList": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "FloatList": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "Int64List": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
}


def masked_crc32c(content: bytes) -> bytes:
    """The CRC-32C of some bytes, rotated and shifted as TFRecord stores it: four bytes."""
    plain: int = google_crc32c.value(content)
    return (((plain >> 15 | plain << 17) + _MASK_DELTA) & 0xFFFFFFFF).to_bytes(4, "little")


def located_records(paths: Sequence[str | Path]) -> Iterator[tuple[str, bytes]]:
    """Every record of some files, plain or gzip, with its file and number in words.

    A file that ends early is an error here; TensorFlow's reader takes the end of a cut gzip file for the end of data.

    Raises:
        UserError: a file is damaged; after which record, and how.
    """
    for path in paths:
        number = 0
        try:
            for number, record in enumerate(_records(Path(path)), start=1):
                yield f"{path}, record {number}", record
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{path} is damaged or cut off after record {number}: {error}") from error


def _records(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12:
                raise EOFError("the file ends within a record")
            # Before the bytes are read: a damaged length may ask for more of them than memory holds.
            if masked_crc32c(header[:8]) != header[8:]:
                raise ValueError("a length does not fit its checksum (no TFRecord file, or packed but not named .gz)")
            length = int.from_bytes(header[:8], "little")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise EOFError("the file ends within a record")
            if masked_crc32c(body[:length]) != body[length:]:
                raise ValueError("the next record does not fit its checksum")
            yield body[:length]


def _example_class() -> Any:
    """The message tf.Example, in a package of its own so that TensorFlow may be imported beside it."""
    file = descriptor_pb2.FileDescriptorProto(name="tfctr/example.proto", package="tfctr.log", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(parent: Any, name: str, *fields: tuple[str, int, int, str | None]) -> Any:
        made = parent.add(name=name)
        for number, (title, label, kind, of) in enumerate(fields, start=1):
            made.field.add(name=title, number=number, label=label, type=kind, type_name=of and f".tfctr.log.{of}")
        return made

    one, many, nested = field.LABEL_OPTIONAL, field.LABEL_REPEATED, field.TYPE_MESSAGE
    for name, kind in _LISTS.items():
        message(file.message_type, name, ("value", many, kind, None))
    names = ("bytes_list", "float_list", "int64_list")
    feature = message(
        file.message_type, "Feature", *((n, one, nested, of) for n, of in zip(names, _LISTS, strict=True))
    )
    feature.oneof_decl.add(name="kind")
    for entry in feature.field:
        entry.oneof_index = 0
    features = message(file.message_type, "Features", ("feature", many, nested, "Features.FeatureEntry"))
    entry = message(
        features.nested_type, "FeatureEntry", ("key", one, field.TYPE_STRING, None), ("value", one, nested, "Feature")
    )
    entry.options.map_entry = True
    message(file.message_type, "Example", ("features", one, nested, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tfctr.log.Example"))


Example = _example_class()
"""tf.Example."""
