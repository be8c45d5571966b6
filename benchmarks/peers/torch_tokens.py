"""Networks in plain PyTorch, written from the papers' equations: those whose layers map fields to fields or tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_parts import Fields, Headed, Perceptron, network, square


def _unit_size(x: torch.Tensor, axes: tuple[int, ...], epsilon: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon)


class TokenMap(nn.Module):
    """Linear combinations of tokens."""

    def __init__(self, tokens: int, out: int, bias: bool = False) -> None:
        super().__init__()
        self.kernel = square(tokens, out)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = self.kernel.mT @ x
        return mapped if self.bias is None else mapped + self.bias.unsqueeze(-1)


class Products(nn.Module):
    """B X^T Y."""

    def __init__(self, tokens: int, rank: int) -> None:
        super().__init__()
        self.projection = square(tokens, rank)

    def forward(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        return base @ x.mT @ self.projection


class DlfBlock(nn.Module):
    def __init__(self, kind: str, tokens: int, fields: Fields, out: int, rank: int) -> None:
        super().__init__()
        self.kind, self.shape = kind, (out, fields.width)
        self.map = TokenMap(fields.count, tokens) if kind == "low" and tokens != fields.count else nn.Identity()
        self.products = None if kind == "implicit" else Products(tokens, rank)
        self.scale = math.sqrt(2 * tokens * fields.width / rank)
        size = tokens * (fields.width if self.products is None else rank)
        self.block = Perceptron(size, [out * fields.width])

    def forward(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        read = x
        if self.products is not None:
            read = self.products(x, x if self.kind == "high" else self.map(base)) / self.scale
        return self.block(read.flatten(1)).unflatten(-1, self.shape)


class Naf(nn.Module):
    """The attention of every block's tokens to those of the others and of its own."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(layers))
        self.crosses = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3 * layers))
        self.fuse = nn.Linear(3 * width, width)

    def forward(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        for i, projection in enumerate(self.projections):
            query, keys, values = zip(*(projection(block).chunk(3, -1) for block in blocks), strict=True)

            def attended(m: int, x: int, query=query, keys=keys, values=values) -> torch.Tensor:
                return torch.softmax(query[m] @ keys[x].mT / query[m].shape[-1] ** 0.5, -1) @ values[x]

            blocks = [
                torch.relu(self.crosses[3 * i + m](torch.cat([attended(m, x) for x in range(3) if x != m], -1)))
                + attended(m, m)
                for m in range(3)
            ]
        return torch.relu(self.fuse(torch.cat(blocks, -1)))


class GatedResidual(nn.Module):
    def __init__(self, tokens: int, out: int, width: int) -> None:
        super().__init__()
        self.kernel = square(width, width)
        self.map = TokenMap(tokens, out) if tokens != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = self.map(x)
        return (mapped @ self.kernel).clamp(min=1e-6) * mapped


class DlfLayer(nn.Module):
    def __init__(self, tokens: int, fields: Fields, out: int, rank: int, attention_layers: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(DlfBlock(k, tokens, fields, out, rank) for k in ("low", "high", "implicit"))
        self.fuse = Naf(attention_layers, fields.width)
        self.residual = GatedResidual(tokens, 4 * out, fields.width)

    def forward(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        blocks = [part(x, base) for part in self.parts]
        return _unit_size(torch.cat([*blocks, self.fuse(blocks)], 1) + self.residual(x), (-1,), 1e-5)


@network("dlf")
class Dlf(Headed):
    def build(self, fields: Fields, layers: int = 2, attention_layers: int = 1, tokens: int = 8, rank: int = 8) -> int:
        counts = [fields.count, *[4 * tokens] * (layers - 1)]
        self.layers = nn.ModuleList(DlfLayer(count, fields, tokens, rank, attention_layers) for count in counts)
        return 4 * tokens * fields.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        x = base = _unit_size(x, (-2, -1), 1e-10)
        for layer in self.layers:
            x = layer(x, base)
        return x.flatten(1)


class FieldAttention(nn.Module):
    def __init__(self, width: int, units: int, heads: int, scale: bool, layer_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(units) if layer_norm else nn.Identity()
        self.query, self.key, self.value = (nn.Linear(width, units, bias=False) for _ in range(3))
        self.residual = nn.Linear(width, units, bias=False) if width != units else nn.Identity()
        self.heads, self.factor = heads, (units // heads) ** -0.5 if scale else 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = [one(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)]
        query, key, value = split
        attended = torch.softmax(query @ key.mT * self.factor, -1) @ value
        return torch.relu(self.norm(attended.transpose(1, 2).flatten(-2) + self.residual(x)))


@network("autoint")
class AutoInt(Headed):
    def build(
        self, fields: Fields, layers: int, units: int, heads: int, scale: bool = False, layer_norm: bool = False
    ) -> int:
        widths = [fields.width, *[units] * (layers - 1)]
        self.layers = nn.Sequential(*(FieldAttention(width, units, heads, scale, layer_norm) for width in widths))
        return fields.count * units

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).flatten(1)


class Sam3A(nn.Module):
    def __init__(self, fields: Fields, dropout: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(fields.count, fields.count, fields.width))
        self.key, self.residual = (nn.Linear(fields.width, fields.width, bias=False) for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        similarities = x @ self.key(x).mT
        return self.drop((similarities.unsqueeze(-1) * self.values).sum(2) + self.residual(x))


@network("sam")
class Sam(Headed):
    """SAM3A with its residual."""

    def build(self, fields: Fields, form: str, layers: int, residual: bool, dropout: float) -> int:
        assert form == "3A"
        assert residual
        self.layers = nn.Sequential(*(Sam3A(fields, dropout) for _ in range(layers)))
        return fields.size

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).flatten(1)


class WukongLayer(nn.Module):
    def __init__(self, tokens: int, width: int, out: tuple[int, int], rank: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.products, self.product_norm = Products(tokens, rank), nn.LayerNorm(tokens * rank)
        self.block = Perceptron(tokens * rank, [*hidden, out[0] * width])
        self.linear = TokenMap(tokens, out[1])
        self.residual = TokenMap(tokens, sum(out), bias=True) if tokens != sum(out) else nn.Identity()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.block(self.product_norm(self.products(x, x).flatten(1))).unflatten(-1, (-1, x.shape[-1]))
        return self.norm(torch.cat([made, self.linear(x)], 1) + self.residual(x))


@network("wukong")
class Wukong(Headed):
    def build(self, fields: Fields) -> int:
        counts = [fields.count, 80, 80]
        self.layers = nn.Sequential(*(WukongLayer(one, fields.width, (40, 40), 8, [512, 256]) for one in counts))
        self.block = Perceptron(80 * fields.width, [512, 256], batch_norm=True)
        return self.block.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.layers(x).flatten(1))


class EulerLayer(nn.Module):
    def __init__(self, rows: int, neurons: int, width: int) -> None:
        super().__init__()
        self.orders = square(rows, neurons)
        self.modulus_bias, self.angle_bias = (nn.Parameter(0.01 * torch.randn(neurons, width)) for _ in range(2))
        self.implicit = nn.Linear(rows * width, neurons * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, parts: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        real, imaginary = parts
        modulus = 0.5 * torch.log(real.square() + imaginary.square() + 1e-8)
        modulus = torch.exp(self.orders.mT @ modulus + self.modulus_bias)
        angle = self.orders.mT @ torch.atan2(imaginary, real) + self.angle_bias
        explicit = (modulus * torch.cos(angle), modulus * torch.sin(angle))
        return tuple(
            norm(torch.relu(self.implicit(one.flatten(1))).view_as(made) + made)
            for one, made, norm in zip(parts, explicit, self.norms, strict=True)
        )


@network("eulernet")
class EulerNet(Headed):
    def build(self, fields: Fields, neurons: Sequence[int]) -> int:
        self.modulus = nn.Parameter(torch.ones(fields.count))
        rows = [fields.count, *neurons]
        pairs = zip(rows, neurons, strict=False)
        self.layers = nn.Sequential(*(EulerLayer(before, after, fields.width) for before, after in pairs))
        return neurons[-1] * fields.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        modulus = self.modulus.unsqueeze(-1)
        real, imaginary = self.layers((modulus * torch.cos(x), modulus * torch.sin(x)))
        return (real + imaginary).flatten(1)


class RotationAttention(nn.Module):
    def __init__(self, fields: int, width: int, units: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (square(fields, width, units) for _ in range(3))
        self.angle_weight = square(units // heads, 1)
        self.residual, self.norm = nn.Linear(width, units, bias=False), nn.LayerNorm(units)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            torch.einsum("bfd,fdw->bfw", x, one).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        )
        differences = query.unsqueeze(-2) - key.unsqueeze(-3)
        attended = torch.sigmoid((torch.cos(differences) @ self.angle_weight).squeeze(-1)) @ value
        return self.norm(attended.transpose(1, 2).flatten(-2) + self.residual(x))


class GroupNorm(nn.Module):
    """Layer normalization of groups of 4 elements, with one scale and shift for all groups."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.unflatten(-1, (-1, 4))).flatten(-2)


@network("rfm")
class Rfm(Headed):
    def build(self, fields: Fields, units: int, hidden: Sequence[int], heads: int = 2, layers: int = 2) -> int:
        widths = [fields.width, *[units] * (layers - 1)]
        self.attentions = nn.Sequential(*(RotationAttention(fields.count, one, units, heads) for one in widths))
        sizes = zip([fields.count * units, *hidden], hidden, strict=False)
        self.dense = nn.ModuleList(nn.Linear(*one) for one in sizes)
        self.real_norms, self.imaginary_norms = (nn.ModuleList(GroupNorm() for _ in hidden) for _ in range(2))
        return hidden[-1]

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        angles = self.attentions(x).flatten(1)
        real, imaginary = torch.cos(angles), torch.sin(angles)
        for dense, norm, other in zip(self.dense, self.real_norms, self.imaginary_norms, strict=True):
            real, imaginary = norm(functional.relu(dense(real))), other(functional.relu(dense(imaginary)))
        return real + imaginary
