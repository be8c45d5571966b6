"""Target attention with similarities of frozen vectors as a bias of its scores, after TWIN."""

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.frozen import FrozenInterest, known_similarity
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.masking import merge_heads, split_heads


@interest("bfs_mf")
class BehaviorFeatureSplit(FrozenInterest, TargetAttention):
    """BFS_MF: target attention over ids with the similarity of the contents as a bias of the scores.

        s_i = cos(v_t, v_i)                                           frozen vectors, no gradient
        a_hi = (t W_Q)_h (x_i W_K)_h / sqrt(d_h) + beta_h s_i
        output = concat_h(softmax(a_h) (X W_V)_h) W_O

    TWIN splits the features of an event into two groups. Those of the item alone are projected, once for each user.
    Those that cross user and item become one number for each head, which is added to the scores. Here the similarity is
    the crossed feature, and the values come from ids alone. A missing vector adds 0.

    Args:
        frozen: the frozen table, or several. Each has its own similarity and its own beta, and all biases are added.
        num_heads, attention_dim, output_projection, scale, activation, dropout, seed: see `TargetAttention`.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Every beta starts at 1: the similarity counts from the first step.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = BehaviorFeatureSplit("text", num_heads=2)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        The baseline of Fan et al., Decoupled Multimodal Fusion (2025), table 2, which says no more of it than that it
        adapts Chang et al., TWIN (KDD 2023), to multimodal features: the formula is our reconstruction, after eq. 4 of
        TWIN. TWIN's search for the best 100 of 10^4 events is left out; here the attention reads every event.
    """

    fixed_arguments = ("projections",)

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        self.betas = {
            name: self.add_weight(name=f"beta_{name}", shape=(self.num_heads,), initializer="ones", autocast=False)
            for name in self.frozen_names
        }

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        query = split_heads(self.queries(candidate), self.num_heads)
        scores = ops.matmul(query, ops.swapaxes(self.stored(state, "key"), -1, -2))
        scores = ops.cast(scores, "float32")
        for name, beta in self.betas.items():
            similarity = known_similarity(state, candidate, name)
            scores = scores + ops.convert_to_tensor(beta)[:, None, None] * similarity[:, None]
        weights = self.attention(scores, state, training)
        return self.project(merge_heads(ops.matmul(weights, self.stored(state, "value"))))
