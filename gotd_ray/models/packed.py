"""Linear layers with their weights laid out for the CPU's matrix instructions."""

from __future__ import annotations

import torch
from torch import nn


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's blocked layout, and GELU computed while the product is in cache.

    These are the operators that torch.compile emits; called directly they need no compiler.
    """

    def __init__(self, linear: nn.Linear, activation: str) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias.detach() if linear.bias is not None else None
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], "none")


def pack(model: nn.Module) -> None:
    """Replace every linear layer by a packed one, and in BERT's relatives the GELU that follows by nothing."""
    for parent in list(model.modules()):
        # BertIntermediate and its copies (RoBERTa, MPNet, ELECTRA, ...): dense, then intermediate_act_fn.
        gelu = hasattr(parent, "intermediate_act_fn") and getattr(model.config, "hidden_act", None) == "gelu"
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child, "gelu" if gelu and name == "dense" else "none"))
        if gelu:
            parent.intermediate_act_fn = nn.Identity()
