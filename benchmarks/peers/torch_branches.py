"""Networks in plain PyTorch, written from the papers' equations: those with branches beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.peers.torch_parts import CrossVector, Fields, Headed, Network, Perceptron, network, square


class Fusion(nn.Module):
    """w_1 . h_1 + b_1 + w_2 . h_2 + b_2 + sum_k h_1k^T W_k h_2k."""

    def __init__(self, heads: int, first: int, second: int) -> None:
        super().__init__()
        self.bilinear = square(heads, first // heads, second // heads)
        self.first, self.second = nn.Linear(first, 1), nn.Linear(second, 1)
        self.heads = heads

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        slices = (one.unflatten(-1, (self.heads, -1)) for one in (first, second))
        products = torch.einsum("bhi,hij,bhj->b", next(slices), self.bilinear, next(slices))
        return (self.first(first) + self.second(second)).squeeze(-1) + products


class Selection(nn.Module):
    """x * 2 sigmoid(MLP(context))."""

    def __init__(self, size: int, hidden: Sequence[int], context: int) -> None:
        super().__init__()
        self.mlp = Perceptron(context, hidden, output=size)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return x * (2 * torch.sigmoid(self.mlp(context)))


@network("finalmlp")
class FinalMlp(Network):
    """FinalMLP whose gates read fields."""

    def __init__(
        self,
        fields: Fields,
        mlp1: dict[str, Any],
        mlp2: dict[str, Any],
        heads: int,
        selection_hidden: Sequence[int],
        first: Sequence[str],
        second: Sequence[str],
    ) -> None:
        super().__init__()
        self.places = [fields.places(first), fields.places(second)]
        self.mlps = nn.ModuleList(Perceptron(fields.size, **one) for one in (mlp1, mlp2))
        self.fusion = Fusion(heads, *(one.width for one in self.mlps))
        contexts = (len(places) * fields.width for places in self.places)
        self.gates = nn.ModuleList(Selection(fields.size, selection_hidden, context) for context in contexts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        gated = (gate(flat, x[:, at].flatten(1)) for gate, at in zip(self.gates, self.places, strict=True))
        return self.fusion(*(mlp(one) for mlp, one in zip(self.mlps, gated, strict=True)))


class Factorized(nn.Module):
    """[a; a * b] of the halves of a linear layer."""

    def __init__(self, size: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.linear(x).chunk(2, -1)
        return torch.cat([first, first * second], -1)


class FieldGate(nn.Module):
    def __init__(self, fields: int) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.zeros(fields, fields)), nn.Parameter(torch.ones(fields))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x * (self.kernel.mT @ x + self.bias.unsqueeze(-1))], 1)


@network("final")
class Final(Network):
    """FINAL's logits, of one block or two."""

    def __init__(
        self,
        fields: Fields,
        block1: dict[str, Any],
        block2: dict[str, Any] | None = None,
        field_gate: bool = False,
    ) -> None:
        super().__init__()
        self.gate = FieldGate(fields.count) if field_gate else nn.Identity()
        given = [(fields.size * (1 + field_gate), block1), *([] if block2 is None else [(fields.size, block2)])]
        own = {"batch_norm": True, "linear": Factorized}
        self.blocks = nn.ModuleList(Perceptron(size, **{**own, **block}) for size, block in given)
        self.heads = nn.ModuleList(nn.Linear(block.width, 1) for block in self.blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = zip(self.blocks, self.heads, [self.gate(x), x], strict=False)
        logits = torch.stack([head(block(read.flatten(1))).squeeze(-1) for block, head, read in parts])
        return logits if len(logits) > 1 else logits[0]


class Regulation(nn.Module):
    def __init__(self, fields: Fields, temperature: float) -> None:
        super().__init__()
        self.cross_gate, self.deep_gate = (nn.Parameter(torch.ones(fields.count)) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(fields.size) for _ in range(2))
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        gates = (torch.softmax(one / self.temperature, 0).unsqueeze(-1) for one in (self.cross_gate, self.deep_gate))
        return [norm((x * gate).flatten(1)) for norm, gate in zip(self.norms, gates, strict=True)]


@network("edcn")
class Edcn(Headed):
    """EDCN with Hadamard bridges and normalization."""

    def build(self, fields: Fields, layers: int, temperature: float, batch_norm: bool, dropout: float) -> int:
        assert batch_norm
        numbers = range(layers)
        self.regulations = nn.ModuleList(Regulation(fields, temperature) for _ in numbers)
        self.crosses = nn.ModuleList(CrossVector(fields.size, residual=False) for _ in numbers)
        self.deeps = nn.ModuleList(Perceptron(fields.size, [fields.size], dropout=dropout) for _ in numbers)
        return 3 * fields.size

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        bridged, first, found = x, None, []
        for regulation, cross, deep in zip(self.regulations, self.crosses, self.deeps, strict=True):
            crossed, dense = regulation(bridged)
            first = crossed if first is None else first
            crossed, dense = cross(crossed, first), deep(dense)
            found = [crossed, dense, crossed * dense]
            bridged = found[-1].view_as(x)
        return torch.cat(found, -1)


class SelfMask(nn.Module):
    """base * ([g; g * relu(norm(g))] + b) + x, where g is x W, normalized by head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.kernel, self.bias = square(size, size // 2), nn.Parameter(torch.rand(size))
        self.norm, self.batch_norm = nn.LayerNorm(size // 2), nn.BatchNorm1d(1)

    def forward(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        products = self.batch_norm(x @ self.kernel)
        masked = products * torch.relu(self.norm(products))
        return base * (torch.cat([products, masked], -1) + self.bias) + x


@network("ecn")
class Ecn(Headed):
    """ECN or LCN with one head."""

    def build(self, fields: Fields, layers: int, dropout: float, exponential: bool = True) -> int:
        self.layers = nn.ModuleList(SelfMask(fields.size) for _ in range(layers))
        self.drop, self.exponential = nn.Dropout(dropout), exponential
        return fields.size

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        # The first halves of all fields, then the second ones; `[B, heads, F * E]`.
        x = first = torch.cat([half.flatten(1) for half in x.chunk(2, -1)], -1).unsqueeze(1)
        for layer in self.layers:
            x = self.drop(layer(x, x if self.exponential else first))
        return x.mean(1)


@network("fcn")
class Fcn(Network):
    def __init__(self, fields: Fields, exponential: dict[str, Any], linear: dict[str, Any]) -> None:
        super().__init__()
        self.exponential, self.linear = Ecn(fields, **exponential), Ecn(fields, **linear, exponential=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.exponential(x), self.linear(x)])
