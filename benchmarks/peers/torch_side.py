"""A training step of a PyTorch network: forward, backward, clipped gradients, Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import torch_branches, torch_networks, torch_tokens  # noqa: F401  they fill the table of networks
from benchmarks.peers.torch_parts import Fields, part, weights_in_order
from benchmarks.peers.turns import PRODUCT, Side, serve, status


class Model(nn.Module):
    """A table for each field, and a network over the embeddings.

    Args:
        tables: name and rows of each table.
        facts: name and side of each field, in the order of the network's input.
        passes: how often the network runs on the same embeddings in training.
    """

    def __init__(
        self,
        tables: list[tuple[str, int]],
        facts: list[tuple[str, str]],
        width: int,
        interaction: dict[str, Any],
        passes: int,
    ) -> None:
        super().__init__()
        self.names, self.order, self.passes = [name for name, _ in tables], [name for name, _ in facts], passes
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _, rows in tables)
        network = part(Fields(facts, width), interaction)
        self.first_order = nn.ModuleList(nn.Embedding(rows, 1) for _, rows in tables if network.wide)
        self.network = network
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.01)
        for table in self.first_order:
            nn.init.zeros_(table.weight)

    def forward(self, ids: dict[str, torch.Tensor]) -> torch.Tensor:
        embedded = {name: table(ids[name]) for name, table in zip(self.names, self.tables, strict=True)}
        fields = torch.stack([embedded[name] for name in self.order], 1)
        wide = {}
        if self.first_order:
            terms = (table(ids[name]) for name, table in zip(self.names, self.first_order, strict=True))
            wide["linear"] = sum(terms).squeeze(-1)
        if self.passes > 1:
            return torch.stack([self.network(fields, **wide) for _ in range(self.passes)])
        return self.network(fields, **wide)


def binary_crossentropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def self_ensemble(logits: torch.Tensor, labels: torch.Tensor, mean: str = "probability") -> torch.Tensor:
    """BCE(m, y) + sum_k BCE(p_k, sg(m))."""
    each = torch.sigmoid(logits)
    together = each.mean(0) if mean == "probability" else torch.sigmoid(logits.mean(0))
    target = together.detach()
    soft = sum(functional.binary_cross_entropy(one, target) for one in each)
    return functional.binary_cross_entropy(together, labels.to(each.dtype)) + soft


def tri_bce(logits: torch.Tensor, labels: torch.Tensor, mean: str = "logit") -> torch.Tensor:
    """FCN's loss: L + sum_k max(0, L_k - L) L_k."""
    assert mean == "logit"
    fused = binary_crossentropy(logits.mean(0), labels)
    each = torch.stack([binary_crossentropy(one, labels) for one in logits])
    return fused + (torch.relu(each - fused) * each).sum()


LOSSES = {"binary_crossentropy": binary_crossentropy, "self_ensemble": self_ensemble, "tri_bce": tri_bce}


def prepare(task: dict[str, Any]) -> Side:
    torch.set_num_threads(task["threads"])
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    imported = status("VmRSS")
    loss, options = LOSSES[task["loss"]["type"]], {"mean": task["loss"]["mean"]} if "mean" in task["loss"] else {}
    facts = [tuple(fact) for fact in task["facts"]]
    model = Model(task["tables"], facts, task["width"], task["interaction"], task["passes"])
    built = status("VmRSS")
    given = {name: torch.from_numpy(values) for name, values in np.load(task["batch"]).items()}
    labels = given.pop("labels")
    ids = {name: values.long() for name, values in given.items()}
    order = itertools.cycle(range(len(labels)))
    found: dict[str, Any] = {}

    def of_batch(number: int) -> torch.Tensor:
        return loss(model({name: values[number] for name, values in ids.items()}), labels[number], **options)

    if "weights" in task:
        found = _checked(model, lambda: of_batch(0), task["weights"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=task["fused"])

    def learn() -> torch.Tensor:
        optimizer.zero_grad()
        value = of_batch(next(order))
        value.backward()
        return value

    def step() -> float:
        value = learn()
        nn.utils.clip_grad_norm_(model.parameters(), task["clip_norm"])
        optimizer.step()
        return value.item()

    with FlopCounterMode(display=False) as counter:
        learn()
    factors = torch.randn(2, PRODUCT, PRODUCT)
    found |= {
        "library": f"PyTorch {torch.__version__.partition('+')[0]}",
        "parameters": sum(one.numel() for one in model.parameters()),
        "flops": counter.get_total_flops(),
        "imported_mb": imported,
        "model_mb": built,
    }
    return Side(step, lambda: factors[0] @ factors[1], found)


def _checked(model: Model, learn: Callable[[], torch.Tensor], path: str) -> dict[str, Any]:
    """How far loss and gradients of tfctr are from those of this network in float64, with the same weights.

    There is no dropout. Gradients are compared by the norm of the difference, relative to their norm, so that a single
    ReLU that rounding turns on counts little; those that are rounding altogether, as that of a bias before a
    normalization is, are left out. Those of this network in float32 are compared likewise.
    """
    given = dict(np.load(path))
    weights = list(weights_in_order(model))
    count = sum(name.startswith("weight") for name in given)
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights, and tfctr has {count}")
    for one in model.modules():
        if isinstance(one, nn.Dropout):
            one.p = 0.0

    def of_tfctr(key: str) -> list[torch.Tensor]:
        found = []
        for i, (name, weight, transposed) in enumerate(weights):
            value = given[f"{key}{i}"]
            if value.size != weight.numel():
                raise ValueError(f"{name} of shape {tuple(weight.shape)}, and tfctr's has {value.shape}")
            found.append(torch.tensor(value.T if transposed else value).reshape(weight.shape).double())
        return found

    def gradients() -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        loss = learn()
        loss.backward()
        return loss.item(), [weight.grad.double() for _, weight, _ in weights]

    with torch.no_grad():
        for (_, weight, _), value in zip(weights, of_tfctr("weight"), strict=True):
            weight.copy_(value)
    _, rounded = gradients()
    model.double()
    loss, exact = gradients()
    model.float()
    greatest = max(one.abs().max() for one in exact)
    kept = [i for i, one in enumerate(exact) if one.abs().max() > 1e-6 * greatest]

    def differs(found: list[torch.Tensor]) -> float:
        return max(((found[i] - exact[i]).norm() / exact[i].norm()).item() for i in kept)

    return {
        "loss_differs": abs(float(given["loss"]) / loss - 1),
        "gradients_differ": differs(of_tfctr("gradient")),
        "rounding": differs(rounded),
        "compared": len(kept),
        "weights": count,
    }


if __name__ == "__main__":
    serve(prepare)
