"""Named models are presets: an interest and an interaction, with the papers' settings where they are known."""

from __future__ import annotations

from typing import Any

from tfctr.errors import UserError
from tfctr.models.config import ModelConfig

Preset = tuple[str, ModelConfig]

_MLP = {"type": "mlp", "hidden": [256, 128, 64]}
_SELF_ENSEMBLE = {"type": "self_ensemble"}
_QNN = {"type": "qnn_alpha_released", "layers": 3, "rows": 8}
# rows = 3 is the advice of QIN's authors where 4 is unstable.
_QIN = {"type": "qin", "layers": 4, "rows": 3, "dropout": 0.1}
_QIN_MLP = {"type": "mlp", "hidden": [1024, 512, 256]}
_DLF: dict[str, Any] = {"layers": 8, "attention_layers": 2}
_BARS_MLP = {"type": "mlp", "hidden": [400, 400, 400], "batch_norm": True, "dropout": 0.2}


def _interest(about: str, *interests: str | dict[str, Any], interaction: dict[str, Any] = _MLP) -> Preset:
    """Interests, with a multi-layer perceptron unless another backbone is given."""
    return about, ModelConfig.model_validate({"interests": interests, "interaction": interaction})


def _as_is(kind: str, **options: Any) -> dict[str, Any]:
    """An interest whose output is part of the backbone's input as it is, where its paper has no further projection."""
    return {"type": kind, **options, "project": False}


def _interaction(about: str, kind: str, loss: dict[str, Any] | None = None, **options: Any) -> Preset:
    """A backbone, with mean-pooled histories."""
    config: dict[str, Any] = {"interaction": {"type": kind, **options}}
    return about, ModelConfig(**config, **({} if loss is None else {"loss": loss}))


def _qin(about: str, *interests: dict[str, Any], interaction: dict[str, Any] = _QIN) -> Preset:
    """QIN and what its paper compares: one attention over ids and content side by side, unless others are given."""
    return _interest(about, *(interests or [_as_is("asta", content=True)]), interaction=interaction)


PRESETS: dict[str, Preset] = {
    # Interactions: what the QNN-alpha paper compares.
    "mlp": _interaction("mean-pooled history, MLP", "mlp", hidden=[256, 128, 64]),
    "qnn-alpha": _interaction(
        "QNN-alpha as in the paper, per-head weights, Self-Ensemble loss", "qnn_alpha", _SELF_ENSEMBLE
    ),
    "qnn-alpha-released": _interaction(
        "QNN-alpha as in the released code, one full matrix whatever the heads", "qnn_alpha_released", _SELF_ENSEMBLE
    ),
    "qnn-alpha-no-residual": _interaction(
        "QNN-alpha without its residual", "qnn_alpha", _SELF_ENSEMBLE, residual=False
    ),
    "qnn-alpha-no-activation": _interaction(
        "QNN-alpha without mid-activation", "qnn_alpha", _SELF_ENSEMBLE, activation=None
    ),
    "qnn-alpha-no-krp": _interaction(
        "QNN-alpha without its product: residual sums of activated projections",
        "qnn_alpha",
        _SELF_ENSEMBLE,
        product=False,
    ),
    "qnn-alpha-no-self-ensemble": _interaction("QNN-alpha with plain cross-entropy", "qnn_alpha"),
    "qnn-alpha-prelu": _interaction(
        "QNN-alpha with PReLU for its ReLU", "qnn_alpha", _SELF_ENSEMBLE, activation="prelu"
    ),
    "qnn-alpha-dice": _interaction("QNN-alpha with Dice for its ReLU", "qnn_alpha", _SELF_ENSEMBLE, activation="dice"),
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
    # What the benchmarks of these papers compare beside.
    "lr": _interaction("logistic regression", "lr"),
    "afm": _interaction(
        "attentional factorization machine", "afm", attention_units=128, attention_dropout=0.1, dropout=0.1
    ),
    "pnn": _interaction("PNN with inner products, IPNN", "pnn", hidden=[400, 400, 400], dropout=0.3),
    "opnn": _interaction("PNN with outer products, OPNN", "pnn", products="outer", hidden=[400, 400, 400], dropout=0.3),
    "autoint": _interaction("AutoInt", "autoint", layers=6, units=128, heads=4),
    "autoint-plus": _interaction(
        "AutoInt+, AutoInt beside an MLP",
        "autoint",
        layers=5,
        units=128,
        heads=4,
        scale=True,
        layer_norm=True,
        dropout=0.1,
        deep={**_BARS_MLP, "dropout": 0.1},
    ),
    "afn": _interaction("AFN, adaptive orders by logarithmic neurons", "afn", neurons=1000, hidden=[400], dropout=0.4),
    "afn-plus": _interaction(
        "AFN+, AFN beside an MLP, each with half of the embedding",
        "afn",
        neurons=1000,
        hidden=[400],
        dropout=0.4,
        deep={**_BARS_MLP, "batch_norm": False},
    ),
    "sam": _interaction(
        "SAM3A, self-attention without softmax", "sam", form="3A", layers=4, residual=True, dropout=0.2
    ),
    "gdcn": _interaction("GDCN-P, gated cross beside deep", "gdcn", deep=_BARS_MLP, cross={"layers": 3}),
    # FINAL, FinalMLP, FCN and its exponential network, and CL4CTR, with the settings of their authors' runs.
    "final-1b": _interaction(
        "FINAL with one block of factorized interactions", "final", block1={"hidden": [400, 400], "dropout": 0.2}
    ),
    "final-2b": _interaction(
        "FINAL with a field gate and two blocks, which also learn from their common prediction",
        "final",
        {"type": "self_ensemble", "over": "branches", "mean": "logit"},
        block1={"hidden": [400, 400], "dropout": 0.1},
        block2={"hidden": [400], "dropout": 0.1},
        field_gate=True,
    ),
    "finalmlp": _interaction(
        "FinalMLP: two MLPs, whose inputs are gated by the user's and by the candidate's fields, fused",
        "finalmlp",
        mlp1={"hidden": [400], "batch_norm": True, "dropout": 0.4},
        mlp2={"hidden": [100], "batch_norm": True, "dropout": 0.4},
        heads=5,
        selection_hidden=[400],
        first=["user"],
        second=["candidate"],
    ),
    "ecn": _interaction("ECN, the exponential cross network", "ecn", layers=2, dropout=0.2),
    "fcn": _interaction(
        "FCN: an exponential and a linear cross network, with losses on both logits and their mean",
        "fcn",
        {"type": "tri_bce", "over": "branches", "mean": "logit"},
        exponential={"layers": 3, "dropout": 0.1},
        linear={"layers": 4, "dropout": 0.1},
    ),
    "cl4ctr": (
        "DeepFM with CL4CTR's losses on its fields: contrast, alignment and uniformity",
        ModelConfig(interaction={"type": "deepfm", "deep": _BARS_MLP}, auxiliary=({"type": "cl4ctr"},)),
    ),
    # Branches that share, masks, rotations, stacked products and products of pairs, with the settings of FuxiCTR's
    # benchmark or their authors' code: those for Frappe where there are any, for masknet-serial those for MovieLens.
    "edcn": _interaction(
        "EDCN: cross and deep branches that share after every layer",
        "edcn",
        layers=3,
        temperature=5.0,
        batch_norm=True,
        dropout=0.3,
    ),
    "masknet-serial": _interaction(
        "MaskNet, mask blocks one after another",
        "masknet",
        structure="serial",
        hidden=[400, 400, 400],
        ratio=4.0,
        embedding_norm=False,
        dropout=0.5,
    ),
    "masknet-parallel": _interaction(
        "MaskNet, mask blocks side by side",
        "masknet",
        structure="parallel",
        hidden=[400, 400, 400],
        blocks=3,
        block_units=50,
        ratio=2.0,
        embedding_norm=False,
        dropout=0.1,
    ),
    "eulernet": _interaction("EulerNet: fields as angles, products of learned orders", "eulernet", neurons=[52]),
    "rfm": _interaction("RFM: fields as rotations, attention between angles", "rfm", units=16, hidden=[48]),
    "wukong": _interaction("Wukong: stacked factorization machines over tokens", "wukong"),
    "dlrm": _interaction("DLRM: inner products of embeddings and of a vector of all numbers", "dlrm"),
    # DLF.
    "dlf": _interaction("DLF as in the paper: RLI, gate and NAF", "dlf", **_DLF),
    "dlf-no-gate": _interaction("DLF without its gate", "dlf", **_DLF, gate=False),
    "dlf-no-rli": _interaction(
        "DLF without gate and low-order block, as its paper's ablation", "dlf", **_DLF, rli=False, gate=False
    ),
    "dlf-no-naf": _interaction("DLF whose blocks meet in the last layer only", "dlf", **_DLF, fusion="late"),
    "dlf-released": _interaction("DLF as in the released code", "dlf_released"),
    "dlf-released-attention": _interaction("DLF as released, with its attention block", "dlf_released", attention=True),
    # QIN, its ablations, and what its data set's organisers start from.
    "qin": _qin("QIN: sparse target attention, quadratic backbone"),
    "qin-softmax": _qin("QIN with a softmax in its attention", _as_is("asta", content=True, activation="softmax")),
    "qin-mean": _qin("QIN with mean pooling for its attention", _as_is("asta", content=True, activation="mean")),
    "qin-dropout": _qin("QIN with dropout in its attention", _as_is("asta", content=True, dropout=0.1)),
    "qin-mlp": _qin("QIN with an MLP for its backbone", interaction=_QIN_MLP),
    "qin-relu": _qin("QIN with ReLU for PReLU", interaction={**_QIN, "activation": "relu"}),
    "qin-modalities": _qin(
        "QIN with an attention for ids and one for content, as its paper draws it",
        _as_is("asta"),
        _as_is("asta", features=[], content=True),
    ),
    "qin-ids": _qin("QIN whose attention reads ids only", _as_is("asta")),
    "qin-content": _qin("QIN whose attention reads content only", _as_is("asta", features=[], content=True)),
    "qin-raw": _qin("QIN over content vectors as they are", {"type": "asta", "content": True, "raw": True}),
    "din-mmctr": _interest(
        "the DIN of QIN's data set: ReLU, no softmax, ids and content",
        _as_is("din", content=True, hidden=[512, 256], activation="relu", dropout=0.1),
        interaction={**_QIN_MLP, "activation": "relu", "batch_norm": True, "dropout": 0.1},
    ),
    # DMF, its variants and what its paper compares.
    "din": _interest("Deep Interest Network: DIN unit with Dice", _as_is("din")),
    "ta": _interest("target attention over ids", _as_is("target_attention")),
    "sasrec": _interest("SASRec: self-attention, one user vector", "sasrec"),
    "simtier": _interest("SimTier: histogram of similarities, beside a DIN over ids", _as_is("din"), "simtier"),
    "simtier-released": _interest(
        "SimTier as in the released code, beside a DIN over ids", _as_is("din"), "simtier_released"
    ),
    "simtier-only": _interest("SimTier's histogram without an interest over ids", "simtier"),
    "ta-simtier": _interest(
        "target attention beside SimTier, what DMF is compared with online", _as_is("target_attention"), "simtier"
    ),
    "bfs-mf": _interest("target attention with the similarity as a bias", "bfs_mf"),
    "make": _interest("MAKE: a DIN over content with a loss of its own, beside a DIN over ids", _as_is("din"), "make"),
    "make-only": _interest("MAKE's stage over content alone, which `training.start_from` gives to `make`", "make"),
    "ta-early": _interest("similarities joined to ids before the attention", _as_is("ta_early")),
    "ta-late": _interest("an attention over ids and one over similarities, joined after", _as_is("ta_late")),
    "dta": _interest("decoupled target attention over ids and similarities", _as_is("dta")),
    "dmf-noninvasive": _interest(
        "DMF's attention with similarities in the keys only", _as_is("dta", enrich_values=False)
    ),
    "dmf": _interest("Decoupled Multimodal Fusion: CMM of DTA and SimTier", _as_is("cmm")),
    "dmf-make": _interest("DMF beside MAKE's interest over content", _as_is("cmm"), "make"),
    "dmf-learned": _interest("DMF with a trained share of DTA", _as_is("cmm", mixing="learned")),
    "dmf-gated": _interest("DMF with a share of DTA that depends on the request", _as_is("cmm", mixing="gated")),
    "dmf-soft": _interest("DMF with similarities split between neighbouring buckets", _as_is("cmm", soft_buckets=True)),
    "dmf-sum": _interest("DMF whose attention sums instead of averaging", _as_is("cmm", activation="relu")),
    # DMQN and long histories.
    "sim-hard": _interest("SIM: the newest events of the candidate's category", {"type": "sim", "search": "hard"}),
    "sim-soft": _interest(
        "SIM: the events nearest to the candidate, a search of its own loss", {"type": "sim", "search": "soft"}
    ),
    "eta": _interest("ETA: search by hashed bits", "eta"),
    "sdim": _interest("SDIM: hash buckets instead of attention", "sdim"),
    "twin": _interest("TWIN: one attention that searches and attends", "twin"),
    "linear-attention": _interest("linear attention: sums of products for a history", "linear_attention"),
    "hstu": _interest("HSTU over the history, target attention over its outputs", "hstu"),
    "dmqn": _interest("DMQN: the history as clusters, attention over clusters", "dmqn"),
    "dmqn-published": _interest(
        "DMQN in the paper's words: inner products, Gumbel-Softmax, codewords by gradient",
        {"type": "dmqn", "similarity": "dot", "noise": "unit", "learning": "gradient", "reseed_below": 0.0},
    ),
    "dmqn-frozen-codewords": _interest(
        "DMQN with random codewords that never move, a control",
        {"type": "dmqn", "learning": "frozen", "reseed_below": 0.0},
    ),
    "dmqn-soft": _interest("DMQN with soft assignment, in serving too", {"type": "dmqn", "assignment": "soft"}),
    "dmqn-no-hstu": _interest("DMQN without interaction of clusters", {"type": "dmqn", "blocks": 0}),
}
"""What each preset is, in a few words, and its configuration."""


def preset(name: str) -> ModelConfig:
    """The configuration of a preset.

    Raises:
        UserError: an unknown name.
    """
    if name not in PRESETS:
        raise UserError(f"preset: no preset '{name}'. Allowed: {', '.join(PRESETS)}")
    return PRESETS[name][1]
