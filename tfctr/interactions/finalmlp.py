"""FinalMLP: two streams of an MLP, each with its own selection of features, and a bilinear fusion."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, FieldFacts, Interaction, interaction, select_fields
from tfctr.interactions.headed import create_part
from tfctr.layers.arguments import check_count, check_flag, check_names, check_optional_count, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import by_head
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import as_vector, contract, flat_shape, known_width, token_shape


@tfctr_export
class BilinearFusion(ConfiguredLayer):
    """A linear map of two vectors, and a bilinear form of each pair of their slices.

        y = w_1 . x_1 + b_1 + w_2 . x_2 + b_2 + sum_k x_1k^T W_k x_2k,    x_ik the k-th of H slices of x_i

    Args:
        heads: H, which divides both widths. With more heads there are fewer weights.

    Call arguments:
        first: x_1, float `[..., D_1]`.
        second: x_2, float `[..., D_2]`.

    Output shape: `[...]`.

    Raises:
        ValueError: when built, if the heads do not divide a width.

    Example:
        >>> layer = BilinearFusion(heads=2)
        >>> tuple(layer(keras.random.normal((8, 50, 12)), keras.random.normal((8, 50, 6))).shape)
        (8, 50)

    References:
        Mao et al., FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction (AAAI 2023). The
        bilinear weights start as in the public implementation: Xavier-normal, as one column of all of them.
    """

    weight_kinds = ("kernel",)

    def __init__(self, heads: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = check_count("heads", heads)
        self.supports_masking = True

    @override
    def build(self, first_shape: Shape, second_shape: Shape) -> None:
        widths = [known_width(shape) for shape in (first_shape, second_shape)]
        if any(width % self.heads for width in widths):
            raise ValueError(f"`heads` must divide the widths {widths} of both streams. Received: {self.heads}")
        first, second = widths
        shape = (self.heads, first // self.heads, second // self.heads)
        self.first_linear = self.make_dense("first", 1, first, xavier_normal())
        self.second_linear = self.make_dense("second", 1, second, xavier_normal())
        self.bilinear = self.make_weight("bilinear", shape, xavier_normal((first * second // self.heads, 1)))
        self.built = True

    @override
    def call(self, first: Any, second: Any) -> Any:
        linear = self.first_linear(first) + self.second_linear(second)
        projected = contract("hi,hij->hj", by_head(first, self.heads), self.bilinear)
        products = ops.reshape(projected, ops.shape(second)) * second
        return ops.squeeze(linear, -1) + ops.sum(products, axis=-1)

    @override
    def compute_output_shape(self, first_shape: Shape, second_shape: Shape) -> Shape:
        return tuple(first_shape[:-1])


@tfctr_export
class FeatureSelection(ConfiguredLayer):
    """Weights every coordinate of an input by a gate that is made of a context.

        y = x * 2 sigmoid(MLP(context))

    Args:
        hidden: the widths of the MLP's hidden layers.
        learned: the width of a learned vector in the place of the context, which starts at zero and is the same for all
            rows; None for a context that is given.

    Call arguments:
        inputs: x, float `[..., D]`.
        context: float `[..., K]`; None if it is learned.

    Output shape: `[..., D]`.

    Example:
        >>> layer = FeatureSelection(hidden=[8])
        >>> tuple(layer(keras.random.normal((8, 50, 12)), keras.random.normal((8, 50, 4))).shape)
        (8, 50, 12)

    References:
        Mao et al., FinalMLP (AAAI 2023).
    """

    weight_kinds = ("kernel",)

    def __init__(self, hidden: Sequence[int] = (400,), learned: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = check_units("hidden", hidden)
        self.learned = check_optional_count("learned", learned)

    @override
    def build(self, inputs_shape: Shape, context_shape: Shape | None = None) -> None:
        if self.learned is not None:
            context_shape = (None, self.learned)
            self.context = self.add_weight(name="context", shape=(self.learned,), initializer="zeros")
        if context_shape is None:
            raise ValueError("`context` must be given, unless it is learned. Received: None")
        shape = (None, known_width(context_shape))
        self.mlp = self.make_part(MlpBlock, "mlp", self.hidden, output=known_width(inputs_shape), built_for=shape)
        self.built = True

    @override
    def call(self, inputs: Any, context: Any = None) -> Any:
        if self.learned is None:
            return inputs * (2.0 * ops.sigmoid(self.mlp(context)))
        # One gate for all rows, without the axis of the rows.
        return inputs * (2.0 * ops.sigmoid(self.mlp(ops.expand_dims(self.context, 0))))[0]

    @override
    def compute_output_shape(self, inputs_shape: Shape, context_shape: Shape | None = None) -> Shape:
        return inputs_shape


@interaction("finalmlp")
class FinalMlp(Interaction):
    """FinalMLP: two MLPs, each over the fields as its own gate weights them, and a bilinear fusion of the two.

        x_i = x * 2 sigmoid(gate_i(context_i)),    h_i = MLP_i(x_i)
        logit = w_1 . h_1 + b_1 + w_2 . h_2 + b_2 + sum_k h_1k^T W_k h_2k

    The published gates read tables of their own. Here the last `context_width` of each field's numbers are for the
    gates alone, which is the same as tables of their own for the fields that the gates read.

    Args:
        mlp1: arguments of `MlpBlock` for the first stream; `hidden` is [400] by default.
        mlp2: the same for the second stream.
        heads: the slices of the bilinear form, which divide both widths.
        selection: whether there are gates.
        selection_hidden: the widths of the hidden layers of each gate.
        first: what the first gate reads: names of fields, or of sides (`user`, `candidate`, `context`, `history`),
            which stand for all fields of the side. None of them: a learned vector.
        second: the same for the second gate.
        context_width: how many of each field's numbers, the last ones, only the gates read; with 0 the streams and the
            gates read the same numbers.
        fields: the facts of the fields, filled in by the model; needed to build if `first` or `second` names any.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Raises:
        ValueError: for a name that is neither a field nor a side, and when built, if `heads` does not divide the
            widths of both streams, if `context_width` leaves the streams nothing or if `fields` is missing.

    Example:
        >>> layer = FinalMlp({"hidden": [12, 8]}, {"hidden": [6]}, heads=2, selection_hidden=[5])
        >>> tuple(layer(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Mao et al., FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction (AAAI 2023). In the public
        implementation the gates always read tables of their own, as wide as the fields.
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"

    def __init__(
        self,
        mlp1: Mapping[str, Any] | None = None,
        mlp2: Mapping[str, Any] | None = None,
        heads: int = 1,
        selection: bool = True,
        selection_hidden: Sequence[int] = (400,),
        first: Sequence[str] = (),
        second: Sequence[str] = (),
        context_width: int = 0,
        fields: Sequence[Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlps = [self._create_mlp("mlp1", mlp1), self._create_mlp("mlp2", mlp2)]
        self.fusion = self.make_part(BilinearFusion, "fusion", heads)
        self.selection = check_flag("selection", selection)
        self.selection_hidden = check_units("selection_hidden", selection_hidden)
        self.named = {"first": self._names("first", first), "second": self._names("second", second)}
        self.context_width = check_count("context_width", context_width, least=0)
        if context_width and not selection:
            raise ValueError(f"`context_width` is for a backbone with `selection` only. Received: {context_width}")
        # A configuration is checked before the fields are known, so that they may be missing until the layer is built.
        self.known = 0 if fields is None else len(fields)
        self.places = [[] if fields is None else select_fields(*one, fields) for one in self.named.items()]

    def _create_mlp(self, argument: str, given: Any) -> MlpBlock:
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"`{argument}` must be a mapping of arguments of MlpBlock. Received: {given!r}")
        return create_part(self, argument, {"mlp": MlpBlock}, {"type": "mlp", "hidden": [400], **(given or {})})

    def _names(self, argument: str, wanted: Any) -> tuple[str, ...]:
        names = check_names(argument, wanted, "field or side") if wanted else ()
        if names and not self.selection:
            raise ValueError(f"`{argument}` is for a backbone with `selection` only. Received: {wanted!r}")
        return names

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], fields: Sequence[FieldFacts]) -> dict[str, Any]:
        return {"fields": [list(one) for one in fields], **options}

    @override
    def build(self, input_shape: Shape) -> None:
        count, width = token_shape(input_shape)
        if any(self.named.values()) and self.known != count:
            raise ValueError(f"`fields` must have the facts of {count} fields. Received: those of {self.known}")
        if width <= self.context_width:
            raise ValueError(
                f"`context_width` must be below the width of the fields, {width}. Received: {self.context_width}"
            )
        flat = flat_shape((*input_shape[:-1], width - self.context_width))
        for mlp in self.mlps:
            mlp.build(flat)
        self.fusion.build(*(mlp.compute_output_shape(flat) for mlp in self.mlps))
        self.gates = [self._build_gate(i, flat, self.context_width or width) for i in range(2 * self.selection)]
        self.built = True

    def _build_gate(self, i: int, flat: Shape, width: int) -> FeatureSelection:
        read = len(self.places[i]) * width
        gate = self.make_part(FeatureSelection, f"gate{i + 1}", self.selection_hidden, None if read else width)
        gate.build(flat, (*flat[:-1], read) if read else None)
        return gate

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        own = self.context_width
        read = inputs[..., -own:] if own else inputs
        contexts = [as_vector(ops.take(read, places, axis=-2)) if places else None for places in self.places]
        return self.fused(as_vector(inputs[..., :-own] if own else inputs), contexts, mask, training)

    def fused(self, flat: Any, contexts: Sequence[Any], mask: Any = None, training: bool | None = None) -> Any:
        """The logits of fields side by side `[..., F * E]` and the contexts of the gates, None for a learned one."""
        streams = [flat, flat]
        if self.selection:
            streams = [gate(flat, context) for gate, context in zip(self.gates, contexts, strict=True)]
        return self.fusion(*(mlp(x, mask=mask, training=training) for mlp, x in zip(self.mlps, streams, strict=True)))
