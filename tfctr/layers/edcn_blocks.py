"""The pieces of EDCN that share what its two branches have learned: the bridge and the regulation."""

from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_choice, check_flag, check_positive
from tfctr.layers.configured import ConfiguredLayer, SameShapeLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.tokens import as_vector, flat_shape, known_width, softmax, token_shape

BridgeKind = Literal["hadamard", "addition", "concatenation", "attention"]
BRIDGES: tuple[BridgeKind, ...] = ("hadamard", "addition", "concatenation", "attention")
BRANCHES = ("cross", "deep")


@tfctr_export
class EdcnBridge(SameShapeLayer):
    """One vector of the outputs of two branches.

        hadamard:       y = c * h
        addition:       y = c + h
        concatenation:  y = relu([c; h] W + b)
        attention:      y = a_c(c) * c + a_h(h) * h,    a(x) = softmax(relu(x W_0 + b_0) W_1) over the D elements

    Args:
        kind: one of the above.
        shared_attention: whether a_c and a_h are one network; for `attention` only.

    Call arguments:
        inputs: c, float `[..., D]`.
        deep: h, float `[..., D]`.

    Output shape: `[..., D]`.

    Example:
        >>> cross, deep = keras.random.normal((8, 50, 12)), keras.random.normal((8, 50, 12))
        >>> tuple(EdcnBridge("attention")(cross, deep).shape)
        (8, 50, 12)

    References:
        Chen et al., EDCN (2021), the bridge module. The paper has an attention network for each branch. The public
        implementation in FuxiCTR makes both and uses the first for both branches, which is `shared_attention`.
    """

    weight_kinds = ("kernel",)

    def __init__(self, kind: BridgeKind = "hadamard", shared_attention: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = check_choice("kind", kind, BRIDGES)
        self.shared_attention = check_flag("shared_attention", shared_attention)
        if shared_attention and kind != "attention":
            raise ValueError(f"`shared_attention` is for the attention bridge only. Received: {kind!r}")
        self.supports_masking = True

    @override
    def build(self, inputs_shape: Shape, deep_shape: Shape | None = None) -> None:
        dim = known_width(inputs_shape)
        if self.kind == "concatenation":
            self.dense = self.make_dense("dense", dim, 2 * dim, xavier_normal(), activation="relu")
        elif self.kind == "attention":
            # Separate lists, since Keras does not save layers in a list of pairs.
            names = ["attention1"] if self.shared_attention else ["attention1", "attention2"]
            self.first = [
                self.make_dense(f"{name}_dense0", dim, dim, xavier_normal(), activation="relu") for name in names
            ]
            self.second = [
                self.make_dense(f"{name}_dense1", dim, dim, xavier_normal(), use_bias=False) for name in names
            ]
        self.built = True

    @override
    def call(self, inputs: Any, deep: Any) -> Any:
        if self.kind == "hadamard":
            return inputs * deep
        if self.kind == "addition":
            return inputs + deep
        if self.kind == "concatenation":
            return self.dense(ops.concatenate([inputs, deep], axis=-1))
        return self._attended(inputs, 0) + self._attended(deep, -1)

    def _attended(self, x: Any, network: int) -> Any:
        return softmax(self.second[network](self.first[network](x))) * x


@tfctr_export
class EdcnRegulation(ConfiguredLayer):
    """A share of each field for each of the two branches.

        c = norm(g_c * x),    h = norm(g_h * x),    g = softmax(gamma / temperature) over fields

    A field's share multiplies all of its elements. All fields start with the same share, 1 / F.

    Args:
        temperature: tau; the higher, the more equal the shares.
        batch_norm: whether each branch is normalized.

    Call arguments:
        inputs: x, float `[..., F, E]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to use and update batch statistics.

    Output shape: two of `[..., F * E]`.

    Example:
        >>> cross, deep = EdcnRegulation(temperature=5.0)(keras.random.normal((8, 50, 3, 4)))
        >>> tuple(cross.shape), tuple(deep.shape)
        ((8, 50, 12), (8, 50, 12))

    References:
        Chen et al., EDCN (2021), the regulation module. The normalization is that of FuxiCTR, an option there too.
    """

    def __init__(self, temperature: float = 1.0, batch_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = check_positive("temperature", temperature)
        normalized = check_flag("batch_norm", batch_norm)
        self.norms = [self.make_part(BatchNormalization, f"bn_{name}") for name in BRANCHES] if normalized else []
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        fields = token_shape(input_shape)[0]
        self.gates = [self.add_weight(name=f"gate_{name}", shape=(fields,), initializer="ones") for name in BRANCHES]
        for norm in self.norms:
            norm.build(flat_shape(input_shape))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        shares = [softmax(gate / self.temperature) for gate in self.gates]
        outputs = [as_vector(inputs * ops.expand_dims(share, -1)) for share in shares]
        if self.norms:
            pairs = zip(self.norms, outputs, strict=True)
            outputs = [norm(output, mask=mask, training=training) for norm, output in pairs]
        return tuple(outputs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None, so that Keras does not attach the mask of the rows to the outputs; the caller has the mask."""

    @override
    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        shape = flat_shape(input_shape)
        return shape, shape
