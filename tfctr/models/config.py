"""What a model is made of, as an experiment file says it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import Strict
from tfctr.models.entry_keys import check_entry


def as_mapping(part: Any) -> Any:
    """A part of a model that is given by its name alone, as the mapping with `type` that it stands for."""
    return {"type": part} if isinstance(part, str) else part


Part = Annotated[dict[str, Any], BeforeValidator(as_mapping)]


class ModelConfig(Strict):
    """What a model is made of.

    Attributes:
        interests: An entry without `sequence` reads every sequence that no other entry names; a sequence may have
            several. Its other keys beside the module's options: `features`, `content` and `raw` choose what events and
            candidate consist of, and `project: false` gives the backbone the module's output as it is, see
            docs/models.md. None: mean pooling of every sequence, if there are any.
        interaction: The backbone and its options.
        loss: The loss and its options.
        auxiliary: Losses on the fields beside the loss on logits, for any backbone.
        embedding_start: The standard deviation that tables and the weights of numbers start with; 1e-4 in the runs of
            the QNN-alpha and QIN papers.
        embedding_l2: lambda of lambda / 2 * |w|^2 over all trained weights of the features: whole tables, those of
            first-order weights and positions too, and the maps of numbers and of given vectors.
        network_l2: lambda of lambda / 2 * |w|^2 over all other trained weights, biases and normalizations included.
    """

    interests: tuple[Part, ...] | None = None
    interaction: Part = Field(default_factory=lambda: {"type": "mlp"})
    loss: Part = Field(default_factory=lambda: {"type": "binary_crossentropy"})
    auxiliary: tuple[Part, ...] = ()
    embedding_start: float = Field(0.01, gt=0, le=100)
    embedding_l2: float = Field(0.0, ge=0, le=1e6)
    network_l2: float = Field(0.0, ge=0, le=1e6)

    @field_validator("interaction")
    @classmethod
    def _leaves_fields_to_the_model(cls, interaction: dict[str, Any]) -> dict[str, Any]:
        if "fields" in interaction:
            raise ValueError("`fields` is not an option: the model fills it in. Leave it out")
        return interaction

    def interests_of(self, file: FeatureFile) -> dict[str, tuple[str, dict[str, Any]]]:
        """The sequence and the entry of every interest, by a name: that of the sequence, if it has one interest only.

        Raises:
            UserError: an unknown sequence, one that no entry reads, or an entry without a sequence to read.
        """
        entries = [{"type": "mean"}] * bool(file.sequences) if self.interests is None else self.interests
        named = {str(entry["sequence"]) for entry in entries if "sequence" in entry}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in file.sequences}
        for entry in entries:
            reads = [str(entry["sequence"])] if "sequence" in entry else [n for n in file.sequences if n not in named]
            check_entry(entry, reads, file)
            for sequence in reads:
                found[sequence].append({key: value for key, value in entry.items() if key != "sequence"})
        unread = [sequence for sequence, entries_of in found.items() if not entries_of]
        if unread:
            raise UserError(f"interests: no entry for the sequences {unread}; add one, or one without `sequence`")
        return _by_name(found)


def _by_name(entries: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    for sequence, of_sequence in entries.items():
        types = [str(entry.get("type")) for entry in of_sequence]
        for i, entry in enumerate(of_sequence):
            again = types[:i].count(types[i])
            name = f"{sequence}_{types[i]}" + (f"_{again + 1}" if again else "") if len(types) > 1 else sequence
            if name in named or (name != sequence and name in entries):
                raise UserError(
                    f"interests: the name '{name}' of an interest is that of a sequence; rename the sequence"
                )
            named[name] = (sequence, entry)
    return named
