"""Named models are presets: an interest and an interaction, with the papers' settings where they are known."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import Strict


def as_mapping(part: Any) -> Any:
    """A part of a model that is given by its name alone, as the mapping with `type` that it stands for."""
    return {"type": part} if isinstance(part, str) else part


Part = Annotated[dict[str, Any], BeforeValidator(as_mapping)]


class ModelConfig(Strict):
    """What a model is made of.

    Attributes:
        interests: An entry without `sequence` reads every sequence that no other entry names; a sequence may have
            several. With `content: true` the projected frozen vectors of the items are part of events and candidate.
            None: mean pooling of every sequence, if there are any.
        interaction: The backbone and its options.
        loss: The loss and its options.
        auxiliary: Losses on the fields beside the loss on logits, for any backbone.
        embedding_l2: lambda of lambda / 2 * |table|^2, over whole tables.
    """

    interests: tuple[Part, ...] | None = None
    interaction: Part = Field(default_factory=lambda: {"type": "mlp"})
    loss: Part = Field(default_factory=lambda: {"type": "binary_crossentropy"})
    auxiliary: tuple[Part, ...] = ()
    embedding_l2: float = Field(0.0, ge=0)

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
            _check_entry(entry, reads, file)
            for sequence in reads:
                found[sequence].append({key: value for key, value in entry.items() if key != "sequence"})
        unread = [sequence for sequence, entries_of in found.items() if not entries_of]
        if unread:
            raise UserError(f"interests: no entry for the sequences {unread}; add one, or one without `sequence`")
        return _by_name(found)


def _check_entry(entry: dict[str, Any], reads: list[str], file: FeatureFile) -> None:
    for sequence in reads:
        if sequence not in file.sequences:
            allowed = sorted(file.sequences) or "none, the feature file has no sequences"
            raise UserError(f"interests: no sequence '{sequence}'. Allowed: {allowed}")
    if not reads:
        lacks = (
            "every sequence is named by another entry; leave it out"
            if file.sequences
            else "the feature file has no sequences; choose a preset without interests, such as mlp, or set `model: "
            "{interests: null}` in the experiment file"
        )
        raise UserError(f"interests: the entry of type '{entry.get('type')}' has no sequence to read: {lacks}")
    if not isinstance(entry.get("content", False), bool):
        raise UserError(f"interests: `content` must be true or false. Received: {entry['content']!r}")


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


Preset = tuple[str, ModelConfig]

_MLP = {"type": "mlp", "hidden": [256, 128, 64]}
_SELF_ENSEMBLE = {"type": "self_ensemble"}
_QNN = {"type": "qnn_alpha_released", "layers": 3, "rows": 8}
_DLF: dict[str, Any] = {"layers": 8, "attention_layers": 2}
_BARS_MLP = {"type": "mlp", "hidden": [400, 400, 400], "batch_norm": True, "dropout": 0.2}


def _interest(about: str, kind: str, interaction: dict[str, Any] | None = None, **options: Any) -> Preset:
    """An interest, with a multi-layer perceptron unless another backbone is given."""
    return about, ModelConfig(interests=({"type": kind, **options},), interaction=interaction or _MLP)


def _interaction(about: str, kind: str, loss: dict[str, Any] | None = None, **options: Any) -> Preset:
    """A backbone, with mean-pooled histories."""
    config: dict[str, Any] = {"interaction": {"type": kind, **options}}
    return about, ModelConfig(**config, **({} if loss is None else {"loss": loss}))


def _qin(about: str, interaction: dict[str, Any] | None = None, **options: Any) -> Preset:
    """QIN: events are ids and content, rows = 3 is its authors' advice where 4 is unstable."""
    backbone = {"type": "qin", "layers": 4, "rows": 3, "dropout": 0.1}
    return _interest(about, "asta", interaction or backbone, content=True, **options)


PRESETS: dict[str, Preset] = {
    # Interactions: what the QNN-alpha paper compares.
    "mlp": _interaction("mean-pooled history, MLP", "mlp", hidden=[256, 128, 64]),
    "qnn-alpha": _interaction(
        "QNN-alpha as in the paper, per-head weights, Self-Ensemble loss", "qnn_alpha", _SELF_ENSEMBLE
    ),
    "qnn-alpha-released": _interaction(
        "QNN-alpha as in the released code, one full matrix whatever the heads", "qnn_alpha_released", _SELF_ENSEMBLE
    ),
    "qnn-t9": _interaction("quadratic neurons of format T9: x * (W x + b) + x", "neuron", format="T9"),
    "qnn-t19": _interaction("quadratic neurons of format T19: x * relu(W x + b) + x", "neuron", format="T19"),
    "fm": _interaction("factorization machine", "fm"),
    "wide-deep": _interaction("Wide & Deep", "wide_deep", deep=_BARS_MLP),
    "deepfm": _interaction("DeepFM", "deepfm", deep=_BARS_MLP),
    "xdeepfm": _interaction("xDeepFM", "xdeepfm", deep=_BARS_MLP, maps=[64]),
    "dcn": _interaction("DCN", "dcn", deep=_BARS_MLP, cross={"layers": 3}),
    "dcnv2": _interaction("DCN V2, cross beside deep", "dcnv2", deep=_BARS_MLP, cross={"layers": 4}),
    "wide-deep-qnn": _interaction("Wide & Deep with QNN-alpha for its MLP", "wide_deep", _SELF_ENSEMBLE, deep=_QNN),
    "deepfm-qnn": _interaction(
        "DeepFM with QNN-alpha for its MLP, as released",
        "deepfm",
        _SELF_ENSEMBLE,
        deep=_QNN,
        fm_scale=0.5,
        fm_bias=True,
    ),
    "xdeepfm-qnn": _interaction(
        "xDeepFM with QNN-alpha for its MLP", "xdeepfm", _SELF_ENSEMBLE, deep={**_QNN, "rows": 5}, maps=[64, 64]
    ),
    "dcnv2-qnn": _interaction(
        "DCN V2 with QNN-alpha for its MLP, as released",
        "dcnv2",
        _SELF_ENSEMBLE,
        deep={**_QNN, "rows": 9},
        cross={"layers": 4, "activation": "relu", "batch_norm": True, "dropout": 0.1},
    ),
    # DLF.
    "dlf": _interaction("DLF as in the paper: RLI, gate and NAF", "dlf", **_DLF),
    "dlf-no-gate": _interaction("DLF without its gate", "dlf", **_DLF, gate=False),
    "dlf-no-rli": _interaction(
        "DLF without gate and low-order block, as its paper's ablation", "dlf", **_DLF, rli=False, gate=False
    ),
    "dlf-no-naf": _interaction("DLF whose blocks meet in the last layer only", "dlf", **_DLF, fusion="late"),
    "dlf-released": _interaction("DLF as in the released code", "dlf_released"),
    "dlf-released-attention": _interaction("DLF as released, with its attention block", "dlf_released", attention=True),
    # QIN and its ablations.
    "qin": _qin("QIN: sparse target attention, quadratic backbone"),
    "qin-softmax": _qin("QIN with a softmax in its attention", activation="softmax"),
    "qin-mean": _qin("QIN with mean pooling for its attention", activation="mean"),
    "qin-dropout": _qin("QIN with dropout in its attention", dropout=0.1),
    "qin-mlp": _qin("QIN with an MLP for its backbone", {"type": "mlp", "hidden": [1024, 512, 256]}),
    "qin-relu": _qin(
        "QIN with ReLU for PReLU", {"type": "qin", "layers": 4, "rows": 3, "dropout": 0.1, "activation": "relu"}
    ),
    # DMF, its variants and what its paper compares.
    "din": _interest("Deep Interest Network: DIN unit with Dice", "din"),
    "ta": _interest("target attention over ids", "target_attention"),
    "sasrec": _interest("SASRec: self-attention, one user vector", "sasrec"),
    "simtier": _interest("SimTier: histogram of similarities", "simtier"),
    "bfs-mf": _interest("target attention with the similarity as a bias", "bfs_mf"),
    "make": _interest("MAKE's frozen-vector stage: a DIN unit over content, with a loss of its own", "make"),
    "ta-early": _interest("similarities joined to ids before the attention", "ta_early"),
    "ta-late": _interest("an attention over ids and one over similarities, joined after", "ta_late"),
    "dta": _interest("decoupled target attention over ids and similarities", "dta"),
    "dmf-noninvasive": _interest("DMF's attention with similarities in the keys only", "dta", enrich_values=False),
    "dmf": _interest("Decoupled Multimodal Fusion: CMM of DTA and SimTier", "cmm"),
    "dmf-learned": _interest("DMF with a trained share of DTA", "cmm", mixing="learned"),
    "dmf-gated": _interest("DMF with a share of DTA that depends on the request", "cmm", mixing="gated"),
    "dmf-soft": _interest("DMF with similarities split between neighbouring buckets", "cmm", soft_buckets=True),
    "dmf-sum": _interest("DMF whose attention sums instead of averaging", "cmm", activation="relu"),
    # DMQN and long histories.
    "sim-hard": _interest("SIM: the newest events of the candidate's category", "sim", search="hard"),
    "sim-soft": _interest("SIM: the events nearest to the candidate, a search of its own loss", "sim", search="soft"),
    "eta": _interest("ETA: search by hashed bits", "eta"),
    "sdim": _interest("SDIM: hash buckets instead of attention", "sdim"),
    "twin": _interest("TWIN: one attention that searches and attends", "twin"),
    "hstu": _interest("HSTU over the history, target attention over its outputs", "hstu"),
    "dmqn": _interest("DMQN: the history as clusters, attention over clusters", "dmqn"),
    "dmqn-soft": _interest("DMQN with soft assignment, in serving too", "dmqn", assignment="soft"),
    "dmqn-no-hstu": _interest("DMQN without interaction of clusters", "dmqn", blocks=0),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a preset.

    Raises:
        UserError: an unknown name.
    """
    if name not in PRESETS:
        raise UserError(f"preset: no preset '{name}'. Allowed: {', '.join(PRESETS)}")
    return PRESETS[name][1]
