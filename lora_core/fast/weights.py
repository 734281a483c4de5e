"""All that a run trains, in one flat tensor: one norm, one call of the optimiser.

Each trained parameter becomes a view of it until `release`; beside it lie the gradient and a copy
in the number format of the products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_core.config import HEAD
from lora_core.lora import LoRALayer
from lora_core.model import GPT

# Query last: the plain model's dropout draws in this order, and the last block splits it off.
KVQ = ("attention.key", "attention.value", "attention.query")


def is_head(name: str) -> bool:
    """Whether a parameter of a GPT is the head's own, not LoRA's."""
    return name.startswith(HEAD + ".") and ".lora." not in name


class TrainedWeights:
    """The storage of what `model` trains, taken over until `release`; `low` copies in `dtype`."""

    def __init__(self, model: GPT, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.copies: list[tuple[Tensor, Tensor]] = []  # to, from: parts that a product joins
        self._flatten({n: p for n, p in model.named_parameters() if p.requires_grad})

    def _flatten(self, trained: dict[str, nn.Parameter]) -> None:
        """Lay out every A, every B, the rest, the head; key, value and query side by side."""
        inside = [n for n in trained if not n.startswith(HEAD + ".")]
        A = [n for n in inside if n.endswith(".lora.A")]
        B = [n for n in inside if n.endswith(".lora.B")]
        blocks = range(self.model.config.n_layers)
        kvq = [f"blocks.{i}.{n}.{k}" for k in ("weight", "bias") for i in blocks for n in KVQ]
        fused = [name for name in kvq if name in trained]
        rest = sorted(trained, key=is_head)  # the head last
        order = list(dict.fromkeys([*A, *B, *fused, *rest]))
        sizes = [trained[name].numel() for name in order]
        self.scaled = slice(sum(sizes[: len(A)]), sum(sizes[: len(A) + len(B)]))
        self.trained = trained
        self.flat = nn.Parameter(torch.empty(sum(sizes)))
        self.gradient = torch.zeros(sum(sizes))
        self.flat.grad = self.gradient
        same = self.dtype == torch.float32 and not B
        self._low = self.flat.detach() if same else torch.empty(sum(sizes), dtype=self.dtype)
        self.lows: dict[str, Tensor] = {}
        self.grads: dict[str, Tensor] = {}
        start = 0
        self._head_start = sum(
            size for name, size in zip(order, sizes, strict=True) if not is_head(name)
        )
        for name, size in zip(order, sizes, strict=True):
            shape = trained[name].shape
            view, low, grad = (
                t[start : start + size].view(shape)
                for t in (self.flat.detach(), self._low, self.gradient)
            )
            view.copy_(trained[name].detach())
            trained[name].data = view
            self.lows[name], self.grads[name] = low, grad
            start += size
        layers = (self.model.get_submodule(name.removesuffix(".B")) for name in B)
        self.scale = next((m.scale for m in layers if isinstance(m, LoRALayer)), 1.0)

    def rest_and_head(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """`flat` in two parts for an optimiser: the rest, and the head if it is trained in full."""
        parts = []
        for part in (slice(self._head_start), slice(self._head_start, None)):
            view = nn.Parameter(self.flat.detach()[part])
            view.grad = self.gradient[part]
            parts.append([view] if len(view) else [])
        return parts[0], parts[1]

    def release(self) -> None:
        """Give every trained parameter storage of its own again."""
        self.flat.grad = None
        for parameter in self.trained.values():
            parameter.data = parameter.data.clone()

    def refresh(self) -> None:
        """Cast what the optimiser changed."""
        if self._low.data_ptr() == self.flat.data_ptr():
            return
        flat, scaled = self.flat.detach(), self.scaled
        self._low.copy_(flat)
        self._low[scaled].copy_(flat[scaled] * self.scale)
        if self.copies:
            torch._foreach_copy_([p[0] for p in self.copies], [p[1] for p in self.copies])

    def scale_gradient(self) -> None:
        """B was multiplied by the scale as it was cast, so its gradient is too."""
        if self.scale != 1.0:
            self.gradient[self.scaled] *= self.scale


def joined(store: dict[str, Tensor], names: list[str], kind: str) -> Tensor:
    """Tensors that `TrainedWeights` laid next to each other, as one, stacked along the rows."""
    parts = [store[f"{name}.{kind}"] for name in names]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return parts[0].as_strided(shape, parts[0].stride(), parts[0].storage_offset())
