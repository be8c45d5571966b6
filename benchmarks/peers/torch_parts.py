"""What the PyTorch peers share: the table of networks, linear heads, perceptrons, cross layers.

A network lists its parts in the order in which tfctr's backbone of the same name has its weights, and a weight that is
no layer's has the same shape. `weights_in_order` is therefore enough to copy weights from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn


class Network(nn.Module):
    """A network from fields `[B, F, E]` to logits `[B]`, or `[branches, B]`. A `wide` one adds first-order terms."""

    wide = False


NETWORKS: dict[str, type[Network]] = {}
"""The networks by the type of tfctr's interaction."""


def network(kind: str) -> Callable[[type[Network]], type[Network]]:
    def add(made: type[Network]) -> type[Network]:
        NETWORKS[kind] = made
        return made

    return add


class Fields(NamedTuple):
    """The fields `[B, F, E]` that a network reads: name and side of each, and E."""

    facts: list[tuple[str, str]]
    width: int

    @property
    def count(self) -> int:
        return len(self.facts)

    @property
    def size(self) -> int:
        return self.count * self.width

    def places(self, wanted: Sequence[str]) -> list[int]:
        """The places of the fields that are named, or whose side is."""
        return [i for i, fact in enumerate(self.facts) if set(fact) & set(wanted)]


class Headed(Network):
    """A network that ends in a linear head: `build` makes the parts and returns the size of `hidden`."""

    def __init__(self, fields: Fields, headless: bool = False, **options: Any) -> None:
        super().__init__()
        self.width = self.build(fields, **options)
        if not headless:
            self.head = nn.Linear(self.width, 1)

    def build(self, fields: Fields, **options: Any) -> int:
        raise NotImplementedError

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(x)).squeeze(-1)


def part(fields: Fields, config: dict[str, Any], **options: Any) -> Any:
    """The network that a configuration describes, for use inside another."""
    own = {name: value for name, value in config.items() if name != "type"}
    return NETWORKS[config["type"]](fields, **own, **options)


class Perceptron(nn.Module):
    """Linear, batch normalization, ReLU, dropout, for each of `hidden`; then a linear layer if there is an `output`."""

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        batch_norm: bool = False,
        dropout: float = 0.0,
        output: int | None = None,
        linear: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        widths = [size, *hidden, *([] if output is None else [output])]
        self.width = widths[-1]
        self.linears = nn.ModuleList(linear(*one) for one in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(one) for one in hidden if batch_norm)
        self.drop = nn.Dropout(dropout)
        self.activated = len(hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, linear in enumerate(self.linears):
            x = linear(x)
            if i < self.activated:
                x = self.drop(torch.relu(self.norms[i](x) if self.norms else x))
        return x


class CrossVector(nn.Module):
    """DCN's cross layer, with or without its residual."""

    def __init__(self, size: int, residual: bool = True) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.empty(size, 1)), nn.Parameter(torch.zeros(size))
        self.residual = residual
        nn.init.xavier_normal_(self.kernel)

    def forward(self, x: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        crossed = first * (x @ self.kernel) + self.bias
        return x + crossed if self.residual else crossed


def square(*shape: int, start: Callable[[torch.Tensor], torch.Tensor] = nn.init.xavier_normal_) -> nn.Parameter:
    """A weight of some shape."""
    weight = nn.Parameter(torch.empty(*shape))
    start(weight)
    return weight


def weights_in_order(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, weight, and whether tfctr has it transposed; those of a module before those of its parts."""
    for path, own in module.named_modules():
        transposed = isinstance(own, nn.Linear | nn.Conv1d)
        for name, weight in own.named_parameters(recurse=False):
            yield f"{path}.{name}", weight, transposed and name == "weight"
