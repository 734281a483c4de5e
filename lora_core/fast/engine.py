"""What does the arithmetic of a run: the fast path where it applies, the plain model elsewhere.

An engine owns the optimiser and the trained weights while a run lasts. `training.py` decides when
to step, to evaluate, to keep and to stop; it need not know which engine it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_core.batches import Batch
from lora_core.config import TrainConfig
from lora_core.cores import Cores
from lora_core.devices import Device
from lora_core.fast.gpt import FastGPT, why_not
from lora_core.fast.linear import frozen_cast
from lora_core.fast.weights import is_head
from lora_core.lora import lora_layers
from lora_core.model import GPT

_FEATURES = 50_000  # at most so many texts' features are kept when the head alone is trained


class Engine(Protocol):
    """One run's arithmetic."""

    device: Device  # with the format that is really used, and why

    def step(self, batch: Batch, rate: float) -> tuple[float, bool]:
        """One optimiser step -> the loss before it, and whether it was taken (all was finite)."""

    def logits(self, batches: Sequence[Batch]) -> Tensor:
        """(texts, classes) float32 on the CPU, without dropout, batch after batch."""

    def snapshot(self) -> list[Tensor]:
        """A copy of the trained weights."""

    def restore(self, weights: list[Tensor]) -> None:
        """Put a snapshot back."""

    def release(self) -> None:
        """Leave the model as an ordinary module, on the CPU, with tensors of its own."""


@dataclass(frozen=True)
class EngineSetup:
    """What an engine works with."""

    model: GPT
    config: TrainConfig
    device: Device  # as chosen
    between: Callable[[], None]  # called every now and then; may raise
    head_factor: float = 1.0  # times the rate, for a head trained in full beside other weights
    cores: Cores | None = None  # for the fast engine; None: the threads of whoever calls


def make_engine(setup: EngineSetup) -> Engine:
    """The fastest engine that applies."""
    device = setup.device
    reason = why_not(setup.model) if device.device.type == "cpu" else "this is no CPU"
    if reason is None:
        return FastEngine(setup)
    if device.device.type == "cpu" and device.dtype != torch.float32:
        text = f"The fast path does not apply here: {reason}; so float32."
        setup = replace(setup, device=Device(device.device, torch.float32, text))
    return PlainEngine(setup)


class PlainEngine:
    """`model.GPT` as it is, under autograd; on a GPU its products in bfloat16 by autocast."""

    def __init__(self, setup: EngineSetup) -> None:
        model, config, device = setup.model, setup.config, setup.device
        self.model, self.config, self.device, self.between = model, config, device, setup.between
        self._left = move(model, device.device)
        if device.device.type != "cpu":  # dropout's masks are drawn where the model is
            generator = torch.Generator(device.device).manual_seed(config.seed)
            for _, layer in lora_layers(model):
                layer.lora.generator = generator
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.trained = list(trained.values())
        head = [p for n, p in trained.items() if is_head(n)]
        rest = [p for n, p in trained.items() if not is_head(n)]
        self.optimizer = _optimizer(rest, head, config, setup.head_factor)

    def _forward(self, batch: Batch) -> Tensor:
        self.between()
        place, dtype = self.device.device, self.device.dtype
        with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
            logits = self.model(batch.tokens.to(place), batch.lengths.to(place))
        return logits.float()

    def step(self, batch: Batch, rate: float) -> tuple[float, bool]:
        """See `Engine`."""
        self.model.train()
        loss = F.cross_entropy(self._forward(batch), batch.labels.to(self.device.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        self.model.eval()
        value, size = torch.stack([loss.detach(), norm]).tolist()
        return value, _update(self.optimizer, rate, value, size)

    @torch.no_grad()
    def logits(self, batches: Sequence[Batch]) -> Tensor:
        """See `Engine`."""
        return torch.cat([self._forward(batch).cpu() for batch in batches])

    def snapshot(self) -> list[Tensor]:
        """See `Engine`."""
        return [p.detach().clone() for p in self.trained]

    @torch.no_grad()
    def restore(self, weights: list[Tensor]) -> None:
        """See `Engine`."""
        for parameter, value in zip(self.trained, weights, strict=True):
            parameter.copy_(value)

    def release(self) -> None:
        """See `Engine`."""
        self.optimizer.zero_grad(set_to_none=True)
        for module, name, parameter in self._left:
            setattr(module, name, parameter)
        self.model.cpu()
        if self.device.device.type != "cpu":
            generator = torch.Generator().manual_seed(self.config.seed)
            for _, layer in lora_layers(self.model):
                layer.lora.generator = generator


def move(model: nn.Module, device: torch.device) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Bring `model` to `device` -> what was left behind: (module, name, parameter) to put back.

    Frozen parameters are those of the base, which other runs use at the same time: they stay where
    they are, and the model gets copies, one for all runs.
    """
    left = []
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type == device.type:
                continue
            if parameter.requires_grad:
                setattr(module, name, nn.Parameter(parameter.detach().to(device)))
                continue
            left.append((module, name, parameter))
            copy = frozen_cast((parameter,), parameter.dtype, device)
            setattr(module, name, nn.Parameter(copy, requires_grad=False))
    return left


class FastEngine:
    """`fast.FastGPT`: the same mathematics by hand. With a head alone, each text is read once."""

    def __init__(self, setup: EngineSetup) -> None:
        self.device, self.config, self.cores = setup.device, setup.config, setup.cores

        def between_blocks() -> None:
            setup.between()
            if setup.cores is not None:
                setup.cores.between()

        self.fast = FastGPT(setup.model, setup.device.dtype, between_blocks)
        rest, head = self.fast.weights.rest_and_head()
        self.optimizer = _optimizer(rest, head, setup.config, setup.head_factor)
        self._features: dict[tuple[int, ...], Tensor] = {}  # of texts, when the base never changes

    def step(self, batch: Batch, rate: float) -> tuple[float, bool]:
        """See `Engine`."""
        if self.cores is None:
            return self._step(batch, rate)
        work, dtype = batch.real_tokens, self.fast.dtype
        with self.cores.step(work, lambda: self._gradient_alone(batch), dtype):
            return self._step(batch, rate)

    def _step(self, batch: Batch, rate: float) -> tuple[float, bool]:
        loss = self._gradients(batch)
        gradient = self.fast.weights.gradient
        norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        value, size = torch.stack([loss, norm]).tolist()
        return value, _update(self.optimizer, rate, value, size)

    def _gradients(self, batch: Batch) -> Tensor:
        """The loss; its gradient is then in `fast.weights.gradient`."""
        if self.config.method == "head":
            return self.fast.head_gradients(self._hidden(batch), batch.labels)
        return self.fast.loss_and_gradients(batch.tokens, batch.lengths, batch.labels)

    def _gradient_alone(self, batch: Batch) -> Tensor:
        """The gradient, with the masks of dropout drawn as if for the first time."""
        generators = {layer.lora.generator for _, layer in lora_layers(self.fast.model)} - {None}
        states = [(generator, generator.get_state()) for generator in generators if generator]
        self._features.clear()
        self._gradients(batch)
        self._features.clear()  # more cores may have computed them, with other bits
        for generator, state in states:
            generator.set_state(state)
        return self.fast.weights.gradient

    def logits(self, batches: Sequence[Batch]) -> Tensor:
        """See `Engine`."""
        self.fast.refresh()

        def logits_of(batch: Batch) -> Tensor:
            return self.fast.classify(self._hidden(batch))

        if self.cores is None:
            return torch.cat([logits_of(batch) for batch in batches])
        return torch.cat(self.cores.map(logits_of, batches))

    def _hidden(self, batch: Batch) -> Tensor:
        """(n, emb) at each text's last token."""
        if self.config.method != "head":
            return self.fast.hidden(batch.tokens, batch.lengths)
        lengths = batch.lengths.tolist()
        keys = [tuple(t[:n]) for t, n in zip(batch.tokens.tolist(), lengths, strict=True)]
        if any(key not in self._features for key in keys):
            hidden = self.fast.hidden(batch.tokens, batch.lengths)
            if len(self._features) > _FEATURES:
                return hidden
            self._features.update(zip(keys, hidden.clone().unbind(), strict=True))
        return torch.stack([self._features[key] for key in keys])

    def snapshot(self) -> list[Tensor]:
        """See `Engine`."""
        return [self.fast.weights.flat.detach().clone()]

    @torch.no_grad()
    def restore(self, weights: list[Tensor]) -> None:
        """See `Engine`."""
        self.fast.weights.flat.copy_(weights[0])

    def release(self) -> None:
        """See `Engine`."""
        self.fast.weights.release()


def _optimizer(
    rest: list[nn.Parameter], head: list[nn.Parameter], config: TrainConfig, head_factor: float
) -> torch.optim.AdamW:
    """AdamW whose groups say with `factor` how their rates stand to the one of a step."""
    groups = [
        {"params": parameters, "factor": factor}
        for parameters, factor in ((rest, 1.0), (head, head_factor if rest else 1.0))
        if parameters
    ]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)


def _update(optimizer: torch.optim.Optimizer, rate: float, loss: float, norm: float) -> bool:
    """Take the optimiser's step unless something is infinite or not a number."""
    if not (abs(loss) < float("inf") and abs(norm) < float("inf")):
        return False
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    return True
