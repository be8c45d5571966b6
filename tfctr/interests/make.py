"""MAKE's stage over frozen vectors: an interest that is learned from the contents alone."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Shapes, Tensors, interest
from tfctr.interests.din import Din
from tfctr.interests.frozen import Frozen, FrozenInterest, frozen_pair
from tfctr.layers.arguments import check_flag, check_optional_count, check_positive, check_units
from tfctr.layers.masking import length_mask, zero_padding


@interest("make")
class ContentInterest(FrozenInterest):
    """A DIN over frozen vectors with a logit of its own; its last hidden layer is the interest.

        v' = v P                                                      frozen vectors, brought to `content_dim`
        u = sum_i w_i v'_i,  w_i = DIN unit of (v'_t, v'_i)
        h = relu([u ; v'_t] W_1 + b_1) ...                            the last one is the output
        content logit = h w + b

    The module learns from the clicks through the `content` logit, whose cross-entropy is part of the loss. With
    `detach` the model reads h but sends no gradient back into it: the module is trained apart from the ids, as in the
    two stages of MAKE. The logit is linear in h, so a projection of h in the model can be equal to it.

    The embeddings of events and candidate are not read. A history without events gives zeros; its logit is the bias.

    Args:
        frozen: the frozen table, or several: each has its own P and DIN unit, all are joined before W_1.
        content_dim: the width of v'; without it there is no P, and the unit works on the vectors as they are.
        unit_hidden: widths of the hidden layers of the DIN unit.
        activation: of those; see `Din`.
        hidden_units: widths of the layers before the last hidden one.
        units: the width of the last hidden layer, the output; that of the events when left out.
        detach: whether the output stops the gradient.
        auxiliary_weight: weight of the cross-entropy of the content logit in the loss.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, units]`; `attend` returns
    `(output, {"content": logits [B, C]})`.
    State: `rows/<frozen>` `[B, L]`, `length` `[B]`.

    The weights that depend on the width of the frozen vectors are created by `build` where its shapes hold
    `vectors/<frozen>` of the sequence, and else at the first `attend`.

    Example:
        >>> layer = ContentInterest("text", content_dim=4)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        MAKE as a baseline of Fan et al., Decoupled Multimodal Fusion (2025), table 2: content vectors in a DIN-type
        module trained on clicks for several epochs, its hidden output and logit given to the model over ids. The
        encoders are not trained here. `training.start_from` gives the module of one run to another, which are the two
        stages; in one run both are trained side by side, kept apart by `detach`, and the contents see no more epochs
        than the ids.
    """

    reads_events = False
    weight_kinds = ("kernel",)

    def __init__(
        self,
        frozen: Frozen,
        content_dim: int | None = 64,
        unit_hidden: Sequence[int] = (80, 40),
        activation: str = "dice",
        hidden_units: Sequence[int] = (64,),
        units: int | None = None,
        detach: bool = True,
        auxiliary_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(frozen, **kwargs)
        self.content_dim = check_optional_count("content_dim", content_dim)
        self.unit_hidden = check_units("unit_hidden", unit_hidden)
        self.hidden_units = check_units("hidden_units", hidden_units)
        self.units = check_optional_count("units", units)
        self.detach = check_flag("detach", detach)
        self.auxiliary = {"content": check_positive("auxiliary_weight", auxiliary_weight)}
        self.projections = {}
        if self.content_dim is not None:
            for name in self.frozen_names:
                self.projections[name] = self.make_dense(f"projection_{name}", self.content_dim, use_bias=False)
        self.attention = {
            name: self.make_part(Din, f"unit_{name}", unit_hidden, activation) for name in self.frozen_names
        }
        self.hidden: list[keras.layers.Dense] = []

    @override
    def output_width(self, width: int) -> int:
        return self.units or width

    @override
    def build(self, input_shape: Shapes) -> None:
        super().build(input_shape)
        widths = [input_shape["sequence"].get(f"vectors/{name}", (None,))[-1] for name in self.frozen_names]
        known = [width for width in widths if width is not None]
        if len(known) == len(self.frozen_names):
            self._build_content(known)

    @override
    def build_width(self, width: int) -> None:
        # The hidden layers' weights need the width of the frozen vectors.
        sizes = [*self.hidden_units, self.output_width(width)]
        self.hidden = [self.make_dense(f"hidden_{i}", size, activation="relu") for i, size in enumerate(sizes)]
        self.logit = self.make_dense("logit", 1, sizes[-1])

    def _build_content(self, widths: Sequence[int]) -> None:
        """Create what depends on the widths of the frozen vectors."""
        joined = 0
        for name, width in zip(self.frozen_names, widths, strict=True):
            size = self.content_dim or width
            if self.content_dim is not None:
                self.projections[name].build((None, None, width))
            self.attention[name].build({"sequence": {"events": (None, None, size)}})
            joined += 2 * size
        for dense in self.hidden:
            dense.build((None, None, joined))
            joined = dense.units

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        return self.start(sequence)[1]

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Any:
        pairs = {name: frozen_pair(state, candidate, name)[:2] for name in self.frozen_names}
        if not self.hidden[0].built:
            # Weights keep this layer's name, also where a model calls `attend` by itself.
            with keras.name_scope(self.name, caller=self):
                self._build_content([target.shape[-1] for target, _ in pairs.values()])
        counted = {"mask": candidate["mask"]} if "mask" in candidate else {}
        features = []
        for name, (target, history) in pairs.items():
            mask = length_mask(state["length"], ops.shape(history)[1])
            history = zero_padding(ops.cast(history, self.compute_dtype), mask)
            target = ops.cast(target, self.compute_dtype)
            if self.content_dim is not None:
                target, history = self.projections[name](target), self.projections[name](history)
            unit_state = {"events": history, "length": state["length"]}
            features += [self.attention[name].attend(unit_state, {"target": target, **counted}, {}, training), target]
        x = ops.concatenate(features, axis=-1)
        for dense in self.hidden:
            x = dense(x)
        x = x * ops.cast(state["length"] > 0, self.compute_dtype)[:, None, None]
        logits = ops.squeeze(self.logit(x), axis=-1)
        return (ops.stop_gradient(x) if self.detach else x), {"content": logits}
