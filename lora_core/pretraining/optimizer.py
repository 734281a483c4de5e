"""Muon for the matrices of the blocks, AdamW for embeddings, norms and biases.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest matrix whose singular values
are all about one, found with five Newton-Schulz steps. All matrices of a shape are stepped in one
batched product.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic: fast, singular values in 0.7..1.2


def orthogonalise(matrices: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """(n, rows, cols) with rows <= cols -> about the nearest semi-orthogonal matrices, in `dtype`.

    bfloat16 is exact enough, where the machine multiplies it quickly; elsewhere it would cost more
    than the whole rest of a step.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(dtype)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(dtype)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class MuonAdamW:
    """One optimiser over a model's named parameters; step by `step(lr_share)`.

    A matrix (rows, cols) moves by `matrix_lr * sqrt(max(1, rows / cols))` times its orthogonalised
    momentum; `matrix_rule="adamw"` treats it like the rest, for the comparison in the model card.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        matrix_lr: float = 0.02,
        other_lr: float = 3e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        matrix_rule: str = "muon",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """`dtype` is the format of the products within Muon; moments are in the parameters' own."""
        self.parameters = dict(parameters)
        self.matrix_lr, self.other_lr, self.weight_decay = matrix_lr, other_lr, weight_decay
        self.momentum, self.betas, self.dtype = momentum, betas, dtype
        self.steps = 0
        named = self.parameters.items()
        matrices = [n for n, p in named if p.ndim == 2 and n.startswith("blocks.")]
        if matrix_rule == "adamw":
            matrices = []
        self.groups: dict[tuple[int, int], list[str]] = {}
        for name in matrices:
            rows, cols = self.parameters[name].shape
            self.groups.setdefault((min(rows, cols), max(rows, cols)), []).append(name)
        self.first = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.second = {
            n: torch.zeros_like(p) for n, p in self.parameters.items() if n not in matrices
        }

    @torch.no_grad()
    def step(self, lr_share: float) -> None:
        """Move every parameter by its `.grad`, at `lr_share` of the peak learning rates."""
        self.steps += 1
        self._adamw(lr_share)
        for names in self.groups.values():
            self._muon(names, lr_share)

    def _muon(self, names: list[str], lr_share: float) -> None:
        rate = self.matrix_lr * lr_share
        updates = []
        for name in names:
            gradient = self.parameters[name].grad
            assert gradient is not None
            self.first[name].lerp_(gradient, 1.0 - self.momentum)
            update = gradient.lerp(self.first[name], self.momentum)  # Nesterov
            updates.append(update if update.shape[0] <= update.shape[1] else update.t())
        stepped = orthogonalise(torch.stack(updates), self.dtype)
        for name, update in zip(names, stepped, strict=True):
            parameter = self.parameters[name]
            rows, cols = parameter.shape
            turned = update if rows <= cols else update.t()
            parameter.mul_(1.0 - rate * self.weight_decay)
            parameter.add_(turned, alpha=-rate * max(1.0, rows / cols) ** 0.5)

    def _adamw(self, lr_share: float) -> None:
        b1, b2 = self.betas
        names = list(self.second)
        gradients = [g for n in names if (g := self.parameters[n].grad) is not None]
        parameters = [self.parameters[n].data for n in names]
        first, second = [self.first[n] for n in names], [self.second[n] for n in names]
        torch._foreach_lerp_(first, gradients, 1.0 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, gradients, gradients, 1.0 - b2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, (1.0 - b2**self.steps) ** 0.5)
        torch._foreach_add_(denominators, 1e-10)
        rate = self.other_lr * lr_share / (1.0 - b1**self.steps)
        torch._foreach_addcdiv_(parameters, first, denominators, -rate)

    def state(self) -> dict[str, Tensor]:
        """Everything that has to be kept to go on exactly: moments; `steps` is the trainer's."""
        moments = {f"first.{n}": t for n, t in self.first.items()}
        return moments | {f"second.{n}": t for n, t in self.second.items()}

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take over what `state` gave."""
        for own, tensor in self.state().items():
            tensor.copy_(state[own])
        self.steps = steps
