"""Networks in plain PyTorch, written from the papers' equations: products, cross networks and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.peers.torch_parts import CrossVector, Fields, Headed, Network, Perceptron, network, part, square


@network("mlp")
class Mlp(Headed):
    def build(self, fields: Fields, hidden: Sequence[int] = (256, 128, 64), **options: Any) -> int:
        self.block = Perceptron(fields.size, hidden, **options)
        return self.block.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x.flatten(1))


class KhatriRao(nn.Module):
    """x * sum_r dropout(relu(norm(W_r x + b_r))) + x, with one head."""

    def __init__(self, size: int, rows: int, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.rows = rows
        self.linear = nn.Linear(size, rows * size)
        self.norm = nn.BatchNorm1d(rows * size) if batch_norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.drop(torch.relu(self.norm(self.linear(x))))
        return self.drop(x * activated.view(len(x), self.rows, -1).sum(1) + x)


@network("qnn_alpha")
@network("qnn_alpha_released")
class QnnAlpha(Headed):
    def build(
        self, fields: Fields, layers: int = 2, rows: int = 4, batch_norm: bool = True, dropout: float = 0.1
    ) -> int:
        made = (KhatriRao(fields.size, rows, batch_norm, dropout) for _ in range(layers))
        self.layers = nn.Sequential(*made)
        return fields.size

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(1))


class Quadratic(nn.Module):
    """dropout(prelu(norm(x * sum_r dropout(W_r x + b_r)))) + x."""

    def __init__(self, size: int, rows: int, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.rows = rows
        self.linear = nn.Linear(size, rows * size)
        self.norm = nn.BatchNorm1d(size) if batch_norm else nn.Identity()
        self.activation, self.drop = nn.PReLU(), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factors = self.drop(self.linear(x)).view(len(x), self.rows, -1).sum(1)
        return self.drop(self.activation(self.norm(x * factors))) + x


@network("qin")
class Qin(Headed):
    def build(
        self, fields: Fields, layers: int = 4, rows: int = 4, batch_norm: bool = True, dropout: float = 0.1
    ) -> int:
        made = (Quadratic(fields.size, rows, batch_norm, dropout) for _ in range(layers))
        self.layers = nn.Sequential(*made)
        return fields.size

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(1))


class CrossMatrix(nn.Linear):
    """DCN V2's cross layer."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)

    def forward(self, x: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return x + first * super().forward(x)


class CrossGated(nn.Module):
    """GDCN's cross layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.rand(size))
        self.product, self.gate = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)

    def forward(self, x: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return x + first * (self.product(x) + self.bias) * torch.sigmoid(self.gate(x))


@network("dcnv2")
class DcnV2(Headed):
    layer: type[nn.Module] = CrossMatrix

    def build(self, fields: Fields, deep: dict[str, Any], cross: dict[str, Any]) -> int:
        self.crosses = nn.ModuleList(self.layer(fields.size) for _ in range(cross["layers"]))
        self.deep = part(fields, deep, headless=True)
        return fields.size + self.deep.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        first = crossed = x.flatten(1)
        for cross in self.crosses:
            crossed = cross(crossed, first)
        return torch.cat([crossed, self.deep.hidden(x)], -1)


@network("dcn")
class Dcn(DcnV2):
    layer = CrossVector


@network("gdcn")
class Gdcn(DcnV2):
    layer = CrossGated


class Cin(Headed):
    def build(self, fields: Fields, maps: Sequence[int]) -> int:
        before = [fields.count, *maps]
        pairs = zip(before, maps, strict=False)
        self.layers = nn.ModuleList(nn.Conv1d(fields.count * m, units, 1) for m, units in pairs)
        return sum(maps)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        maps, pooled = x, []
        for layer in self.layers:
            maps = layer(torch.einsum("bhe,bme->bhme", x, maps).flatten(1, 2))
            pooled.append(maps.sum(-1))
        return torch.cat(pooled, -1)


@network("xdeepfm")
class XDeepFm(Network):
    wide = True

    def __init__(self, fields: Fields, deep: dict[str, Any], maps: Sequence[int]) -> None:
        super().__init__()
        self.cin, self.deep = Cin(fields, maps=maps), part(fields, deep)

    def forward(self, x: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        return linear + self.cin(x) + self.deep(x)


def pairs_of_fm(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x.sum(1).square() - x.square().sum(1)).sum(-1)


@network("fm")
class Fm(Network):
    wide = True

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        return linear + pairs_of_fm(x) + self.bias


@network("deepfm")
class DeepFm(Network):
    wide = True

    def __init__(self, fields: Fields, deep: dict[str, Any]) -> None:
        super().__init__()
        self.deep = part(fields, deep)

    def forward(self, x: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        return linear + pairs_of_fm(x) + self.deep(x)


@network("pnn")
class Pnn(Headed):
    def build(self, fields: Fields, hidden: Sequence[int], products: str = "inner", **options: Any) -> int:
        self.first, self.second = torch.triu_indices(fields.count, fields.count, 1)
        self.inner = products == "inner"
        count = len(self.first) if self.inner else fields.width**2
        self.block = Perceptron(fields.size + count, hidden, **options)
        return self.block.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        if self.inner:
            products = (x @ x.mT)[:, self.first, self.second]
        else:
            total = x.sum(1)
            products = (total.unsqueeze(-1) * total.unsqueeze(-2)).flatten(1)
        return self.block(torch.cat([x.flatten(1), products], -1))


@network("dlrm")
class Dlrm(Headed):
    """DLRM without numbers, so without its bottom part."""

    def build(self, fields: Fields, hidden: Sequence[int] = (512, 256), dropout: float = 0.0) -> int:
        self.first, self.second = torch.triu_indices(fields.count, fields.count, 1)
        self.top = Perceptron(len(self.first), hidden, dropout=dropout)
        return self.top.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.top((x @ x.mT)[:, self.first, self.second])


@network("afm")
class Afm(Headed):
    wide = True

    def build(self, fields: Fields, attention_units: int, attention_dropout: float, dropout: float) -> int:
        self.first, self.second = torch.triu_indices(fields.count, fields.count, 1)
        self.attention = nn.Linear(fields.width, attention_units)
        self.score = nn.Linear(attention_units, 1, bias=False)
        self.attention_drop, self.drop = nn.Dropout(attention_dropout), nn.Dropout(dropout)
        return fields.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        pairs = x[:, self.first] * x[:, self.second]
        shares = torch.softmax(self.score(torch.relu(self.attention(pairs))), 1)
        return self.drop((self.attention_drop(shares) * pairs).sum(1))

    def forward(self, x: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        return linear + super().forward(x)


class LogarithmicNeurons(nn.Module):
    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        self.kernel = square(fields, neurons)
        self.log_norm, self.exp_norm = nn.BatchNorm1d(fields), nn.BatchNorm1d(neurons)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logarithms = self.log_norm(x.abs().clamp(min=1e-5).log())
        return self.exp_norm((logarithms.mT @ self.kernel).mT.exp())


@network("afn")
class Afn(Headed):
    def build(self, fields: Fields, neurons: int, hidden: Sequence[int], dropout: float = 0.0) -> int:
        self.logarithmic = LogarithmicNeurons(fields.count, neurons)
        self.block = Perceptron(neurons * fields.width, hidden, dropout=dropout)
        return self.block.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.logarithmic(x).flatten(1))


class MaskBlock(nn.Module):
    def __init__(self, size: int, units: int, embeddings: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.mask = Perceptron(embeddings, [int(size * ratio)], output=size)
        self.dense, self.norm = nn.Linear(size, units, bias=False), nn.LayerNorm(units)
        self.drop = nn.Dropout(dropout)

    def forward(self, v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.relu(self.norm(self.dense(self.mask(x) * v))))


@network("masknet")
class MaskNet(Headed):
    """MaskNet without normalization of the fields, as its presets have it."""

    def build(
        self,
        fields: Fields,
        structure: str,
        hidden: Sequence[int],
        ratio: float,
        dropout: float,
        embedding_norm: bool,
        blocks: int = 3,
        block_units: int = 64,
    ) -> int:
        assert not embedding_norm
        self.serial = structure == "serial"
        units = list(hidden) if self.serial else [block_units] * blocks
        sizes = [fields.size, *units] if self.serial else [fields.size] * blocks
        made = zip(sizes, units, strict=False)
        self.blocks = nn.ModuleList(MaskBlock(size, one, fields.size, ratio, dropout) for size, one in made)
        if self.serial:
            return units[-1]
        self.perceptron = Perceptron(sum(units), hidden, dropout=dropout)
        return self.perceptron.width

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        v = x = x.flatten(1)
        if not self.serial:
            return self.perceptron(torch.cat([block(x, x) for block in self.blocks], -1))
        for block in self.blocks:
            v = block(v, x)
        return v
