"""Products of all pairs of fields, the second-order part of factorization models."""

from typing import Any

import numpy as np
from keras import ops


def bi_interaction(fields: Any) -> Any:
    """The sum of the elementwise products of all pairs of fields, in time linear in their number.

        sum_{i<j} e_i * e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2

    Fields are float `[..., F, E]`. The result, float32 `[..., E]`, sums over E to the second-order term of a
    factorization machine. In half precision the difference would lose most of its digits.

    Example:
        >>> tuple(bi_interaction(keras.random.normal((8, 5, 16))).shape)
        (8, 16)

    References:
        Rendle, Factorization Machines (2010), lemma 3.1; He and Chua, Neural Factorization Machines (2017), equation 4.
    """
    fields = ops.cast(fields, "float32")
    return 0.5 * (ops.square(ops.sum(fields, axis=-2)) - ops.sum(ops.square(fields), axis=-2))


def pairwise_products(fields: Any) -> Any:
    """The elementwise products of all pairs of fields, in the order (0, 1), (0, 2), ..., (1, 2), ...

    For fields `[..., F, E]` it is `[..., F * (F - 1) / 2, E]`. For the sums over E there is `inner_products`.

    Example:
        >>> tuple(pairwise_products(keras.random.normal((8, 5, 16))).shape)
        (8, 10, 16)
    """
    first, second = np.triu_indices(fields.shape[-2], 1)
    return ops.take(fields, first, axis=-2) * ops.take(fields, second, axis=-2)


def inner_products(fields: Any) -> Any:
    """The inner products of all pairs of fields, in the order (0, 1), (0, 2), ..., (1, 2), ...

        out_ij = <e_i, e_j>, i < j

    For fields `[..., F, E]` it is `[..., F * (F - 1) / 2]`. All products come from one matrix product, of which the
    upper triangle is taken: a half of the work is wasted, and it is still several times faster than pair by pair.

    Example:
        >>> tuple(inner_products(keras.random.normal((8, 5, 16))).shape)
        (8, 10)
    """
    count = fields.shape[-2]
    first, second = np.triu_indices(count, 1)
    products = ops.matmul(fields, ops.swapaxes(fields, -1, -2))
    flat = ops.reshape(products, (*ops.shape(products)[:-2], count * count))
    return ops.take(flat, first * count + second, axis=-1)
