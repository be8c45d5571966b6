"""What turns the values of a categorical feature into indices: one class for each type of vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field
from typing_extensions import override

from tfctr.features.kinds.base import Lookups
from tfctr.features.kinds.learned import Tokens
from tfctr.features.kinds.suggestion import Found
from tfctr.features.vocabulary import read_user_tokens
from tfctr.features.yaml_file import Strict, registered_name


class Vocabulary(Strict):
    """Everything that a categorical feature asks of its vocabulary."""

    type: str
    dtypes: ClassVar[tuple[str, ...]] = ("int64", "string")
    grows: ClassVar[bool] = False
    """Whether values that the training data never had are to be expected."""

    @property
    def about(self) -> str:
        """The vocabulary in words."""
        raise NotImplementedError

    @property
    def rows(self) -> int | None:
        """Rows of the table, index 0 included; None where there are two more than tokens."""
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it reads, relative to the data directory."""
        return ()

    def tokens(self, column: str, owner: str, separator: str | None) -> tuple[Tokens, ...]:
        """What is counted in a column of the training split."""
        return ()

    def given_tokens(self, data_directory: Path) -> list[bytes] | None:
        """The tokens that a file gives, in index order."""
        return None

    def constant(self, value: Any) -> int | None:
        """The index of a value if it is known without any data, else None."""
        return None

    def indices(self, owner: str, values: Any, lookups: Lookups) -> Any:
        """Indices int64 of values that are not missing: from 1 on, out of vocabulary last."""
        return lookups.vocabulary(owner, _tokens(values))


VOCABULARIES: dict[str, type[Vocabulary]] = {}
"""The types of vocabularies by the name that a feature file uses."""

VocabularyClass = TypeVar("VocabularyClass", bound=type[Vocabulary])


def vocabulary_type(vocabulary: VocabularyClass) -> VocabularyClass:
    """Register a vocabulary under the one value that its field `type` allows."""
    VOCABULARIES[registered_name(vocabulary, "type")] = vocabulary
    return vocabulary


@vocabulary_type
class LearnedVocabulary(Vocabulary):
    """Tokens counted on the training split, most frequent first."""

    type: Literal["learned"] = "learned"
    min_count: int = Field(1, ge=1, description="tokens seen less often are out of vocabulary")
    max_size: int | None = Field(None, ge=1, description="keep only that many tokens")
    grows: ClassVar[bool] = True

    @property
    @override
    def about(self) -> str:
        return "learned" + (f", at least {self.min_count} times" if self.min_count > 1 else "")

    @override
    def tokens(self, column: str, owner: str, separator: str | None) -> tuple[Tokens, ...]:
        return (Tokens(column, owner, self.min_count, self.max_size, separator),)


@vocabulary_type
class HashVocabulary(Vocabulary):
    """Tokens hashed to a fixed number of buckets; nothing is learned and nothing is out of vocabulary."""

    type: Literal["hash"]
    buckets: int = Field(ge=1, lt=2**31)

    @property
    @override
    def about(self) -> str:
        return f"hash to {self.buckets}"

    @property
    @override
    def rows(self) -> int:
        return self.buckets + 1

    @override
    def indices(self, owner: str, values: Any, lookups: Lookups) -> Any:
        import tensorflow as tf

        return tf.strings.to_hash_bucket_fast(_tokens(values), self.buckets) + 1


@vocabulary_type
class FileVocabulary(Vocabulary):
    """Tokens read from a text file, one a line, relative to the data directory."""

    type: Literal["file"]
    path: str

    @property
    @override
    def about(self) -> str:
        return f"file {self.path}"

    @property
    @override
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    @override
    def given_tokens(self, data_directory: Path) -> list[bytes]:
        return read_user_tokens(data_directory / self.path)


@vocabulary_type
class IdentityVocabulary(Vocabulary):
    """The value, an integer in [0, size), is its own index; anything else is out of vocabulary."""

    type: Literal["identity"]
    size: int = Field(ge=1, lt=2**31 - 2)
    dtypes: ClassVar[tuple[str, ...]] = ("int64",)

    @property
    @override
    def about(self) -> str:
        return f"identity below {self.size}"

    @property
    @override
    def rows(self) -> int:
        return self.size + 2

    @override
    def constant(self, value: Any) -> int | None:
        return value + 1 if 0 <= value < self.size else None

    @override
    def indices(self, owner: str, values: Any, lookups: Lookups) -> Any:
        import tensorflow as tf

        known = (values >= 0) & (values < self.size)
        return tf.where(known, values, self.size) + 1


_MANY, _RARE = 10_000, 100


def suggested_vocabulary(found: Found) -> tuple[dict[str, Any], str]:
    """The keys of a feature file that give a column like this its vocabulary, and why, as the end of a sentence."""
    if found.distinct > _MANY and 2 * found.distinct > found.count:
        # Twice as many buckets as values seen, up to a table of a million rows.
        buckets = 1 << min((2 * found.distinct).bit_length(), 20)
        return {"vocabulary": {"type": "hash", "buckets": buckets}}, ", and ever new ones: hashed"
    if found.once > _RARE:
        learned = {"type": "learned", "min_count": 2}
        return {"vocabulary": learned}, f", {found.once:,} of them seen once: rare ones train the row of unknown values"
    return {}, ""


def _tokens(values: Any) -> Any:
    import tensorflow as tf

    return values if values.dtype == tf.string else tf.strings.as_string(values)
