"""The pretraining loop: batches, gradients, steps, progress, checkpoints, several processes.

A run is a function of its settings and of how many steps it has done: there is no dropout, batch
`n` depends on the seed and on `n` alone, and initialisation on the seed. So a checkpoint needs
weights, optimiser moments and the step, and a killed run goes on bit for bit (on a CPU).

Several processes (`torchrun`) share each batch and add up their gradients; each then takes the
same optimiser step. At this size that costs less than sharding Muon would.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lora_core.config import GPTConfig
from lora_core.devices import Device
from lora_core.model import GPT
from lora_core.pretraining import PretrainingError
from lora_core.pretraining.corpus import Windows
from lora_core.pretraining.measure import Validation, bits_per_byte, summed_loss
from lora_core.pretraining.network import (
    Weights,
    add_gradients,
    hidden_states,
    language_model,
    next_token_loss,
    working_weights,
)
from lora_core.pretraining.optimizer import MuonAdamW
from lora_core.pretraining.summary import Summary

CHECKPOINT = "checkpoint.safetensors"
CHANGEABLE = ("tokens", "decay", "summary", "ahead", "at_line_ends", "micro_rows")
_SECOND_AIM = ("summary", "ahead")  # names of its matrices
_QUICK_TOKENS = 65_536  # of the validation file, looked at along the run


@dataclass(frozen=True)
class Settings:
    """What a run is made of. A resumed run may change the ones in `CHANGEABLE`, nothing else."""

    model: GPTConfig
    tokens: int  # to train on, counted with repetitions
    batch_tokens: int = 4096  # a step, over all processes
    micro_rows: int = 8  # windows at once in memory
    matrix_lr: float = 0.02
    other_lr: float = 1e-2
    weight_decay: float = 0.0
    matrix_rule: str = "muon"  # or "adamw"
    warmup_tokens: int = 100_000
    decay: float = 0.6  # the last share of the run, in which the learning rate falls to zero
    average: float = 0.995  # of the running mean of the weights, a step
    clip: float = 1.0  # largest norm of the gradient
    summary: float = 1.0  # weight of the second aim (`summary.py`); 0: the next token alone
    ahead: float = 0.0  # weight of its other half, what comes after
    at_line_ends: bool = False  # the second aim asks at the ends of lines first
    seed: int = 0

    @property
    def rows(self) -> int:
        """Windows a step."""
        return max(1, self.batch_tokens // self.model.context_length)

    @property
    def tokens_a_step(self) -> int:
        """The batch size, in whole windows."""
        return self.rows * self.model.context_length

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, math.ceil(self.tokens / self.tokens_a_step))

    def lr_share(self, step: int) -> float:
        """Of the peak learning rate at `step` (from 0): up, level, and down to zero in a line."""
        rising = max(1, self.warmup_tokens // self.tokens_a_step)
        falling = max(1, round(self.steps * self.decay))
        return min(1.0, (step + 1) / rising, max(0.0, (self.steps - step) / falling))


@dataclass
class Progress:
    """Where a run is; kept in its checkpoint."""

    step: int = 0
    seconds: float = 0.0  # of training, without preparation and evaluation
    loss: float = 0.0  # of the next token; smoothed, nats a token
    summary_loss: float = 0.0  # smoothed, nats
    ahead_loss: float = 0.0  # smoothed, nats
    log: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """The processes that share a run; one, unless `torchrun` started it."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange."""
        if self.world == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


class Trainer:
    """A run: a model, its optimiser, its mean weights and its progress."""

    def __init__(
        self, settings: Settings, windows: Windows, device: Device, group: Group | None = None
    ) -> None:
        self.settings, self.windows, self.device = settings, windows, device
        self.group = group or Group()
        if settings.rows % self.group.world:
            raise PretrainingError(
                f"A batch of {settings.rows} windows cannot be shared by {self.group.world} "
                "processes: choose another --batch-tokens."
            )
        self.model: GPT = language_model(settings.model, settings.seed).to(device.device)
        self.summary: Summary | None = None
        named = list(self.model.named_parameters())
        if settings.summary or settings.ahead:
            ends = windows.line_ends if settings.at_line_ends else None
            self.summary = Summary(
                windows.tokens,
                settings.model.vocab_size,
                settings.model.emb_dim,
                ahead=settings.ahead > 0,
                line_ends=ends,
            ).to(device.device)
            named.extend(self.summary.matrices.items())
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = MuonAdamW(
            named,
            matrix_lr=settings.matrix_lr,
            other_lr=settings.other_lr,
            weight_decay=settings.weight_decay,
            matrix_rule=settings.matrix_rule,
            dtype=device.dtype,
        )
        self.mean = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.progress = Progress()

    def train_step(self) -> float:
        """One optimiser step; the mean loss of its batch, nats a token."""
        settings, step = self.settings, self.progress.step
        inputs, targets = self.windows.batch(step, settings.rows, self.group.rank, self.group.world)
        weights = working_weights(self.model, self.device.dtype)
        for parameter in self.parameters:
            parameter.grad = None
        losses = torch.zeros(3, device=self.device.device)  # next token, summary, ahead
        for start in range(0, inputs.shape[0], settings.micro_rows):
            part = slice(start, start + settings.micro_rows)
            x, y = inputs[part].to(self.device.device), targets[part].to(self.device.device)
            losses += self._add_gradients(weights, x, y)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.group.add_up([*gradients, losses])
        value, *about = losses.tolist()
        if not math.isfinite(value):
            raise PretrainingError(
                f"The loss became {value} at step {step + 1}: the learning rate is too high. "
                "Start again with a lower one; the last checkpoint is from before."
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step(settings.lr_share(step))
        with torch.no_grad():
            # A young run's mean would still hold the random start: let it forget faster.
            keep = min(settings.average, (step + 1) / (step + 10))
            own = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(list(self.mean.values()), own, 1.0 - keep)
        progress = self.progress
        progress.step += 1
        progress.loss = value if step == 0 else 0.97 * progress.loss + 0.03 * value
        progress.summary_loss = _smoothed(progress.summary_loss, about[0])
        progress.ahead_loss = _smoothed(progress.ahead_loss, about[1])
        return float(value)

    def _add_gradients(self, weights: Weights, tokens: Tensor, targets: Tensor) -> Tensor:
        """Add the gradients of a part of the batch; (3,) its shares of the losses."""
        settings, size = self.settings, self.settings.tokens_a_step
        states = hidden_states(weights, settings.model, tokens)
        total = language = next_token_loss(weights, states, targets, 1.0 / size)
        about: dict[str, Tensor] = {}
        matrices: dict[str, Tensor] = {}
        if self.summary is not None:
            for name, own in self.summary.matrices.items():
                matrices[name] = own.detach().to(self.device.dtype).requires_grad_()
            share = tokens.numel() / size
            about = self.summary.losses(matrices, states, tokens, self.progress.step, share)
            total = language + sum(getattr(settings, name) * about[name] for name in about)
        inputs = [*weights.values(), *matrices.values()]
        gradients = torch.autograd.grad(total, inputs)
        add_gradients(self.model, weights, gradients[: len(weights)])
        if self.summary is not None:
            for own, new in zip(
                self.summary.matrices.values(), gradients[len(weights) :], strict=True
            ):
                own.grad = new.float() if own.grad is None else own.grad + new
        zero = torch.zeros_like(language)
        return torch.stack([language, *(about.get(n, zero) for n in _SECOND_AIM)]).detach()

    def run(
        self,
        out: Path,
        validation: Validation | None = None,
        *,
        save_seconds: float = 180.0,
        evaluate_every: int = 500,
        stop_at: int | None = None,
        quiet: bool = False,
    ) -> None:
        """Train to the end (or step `stop_at`), saving a checkpoint in `out` every so often."""
        settings, progress = self.settings, self.progress
        end = min(settings.steps, stop_at or settings.steps)
        size = settings.tokens_a_step
        saved = time.monotonic()
        with tqdm(
            total=settings.steps * size,
            initial=progress.step * size,
            unit=" tokens",
            unit_scale=True,
            disable=quiet or not self.group.first,
            mininterval=2.0,
        ) as bar:
            while progress.step < end:
                begin = time.perf_counter()
                self.train_step()
                progress.seconds += time.perf_counter() - begin
                bar.update(size)
                share = settings.lr_share(progress.step)
                bar.set_postfix(
                    loss=f"{progress.loss:.3f}",
                    summary=f"{progress.summary_loss:.3f}",
                    ahead=f"{progress.ahead_loss:.3f}",
                    lr=f"{share:.2f}",
                    refresh=False,
                )
                last = progress.step == end
                due = last or progress.step % evaluate_every == 0
                if validation and due and self.group.first:
                    self._evaluate(validation, bar)
                if self.group.first and (last or time.monotonic() - saved > save_seconds):
                    self.save(out)
                    saved = time.monotonic()

    def _evaluate(self, validation: Validation, bar: Any) -> None:
        """Bits per byte on the start of the validation file: of the weights, and of their mean."""
        entry: dict[str, float] = {
            "step": self.progress.step,
            "tokens": self.progress.step * self.settings.tokens_a_step,
            "seconds": round(self.progress.seconds, 1),
            "train_loss": round(self.progress.loss, 4),
            "summary_loss": round(self.progress.summary_loss, 4),
            "ahead_loss": round(self.progress.ahead_loss, 4),
        }
        for name, model in (("bits_per_byte", self.model), ("mean_bits_per_byte", self.averaged())):
            entry[name] = round(self.measure(model, validation, limit=_QUICK_TOKENS), 4)
        self.progress.log.append(entry)
        bar.write("  ".join(f"{key} {value:g}" for key, value in entry.items()))

    def measure(self, model: GPT, validation: Validation, stride: int = 0, limit: int = 0) -> float:
        """Bits per byte of `model`; see `measure.summed_loss`. `stride` 0: windows side by side."""
        ids, size = validation
        weights = working_weights(model, self.device.dtype)
        stride = stride or self.settings.model.context_length
        nats, tokens = summed_loss(weights, self.settings.model, ids, stride, limit)
        return bits_per_byte(nats, tokens, len(ids) - 1, size)

    def averaged(self) -> GPT:
        """A model with the running mean of the weights: what an early export should use."""
        model = GPT.without_weights(self.settings.model)
        model.load_state_dict({n: t.clone() for n, t in self.mean.items()}, assign=True)
        return model

    # Checkpoints ------------------------------------------------------------------------------

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"model.{n}", p.detach()) for n, p in self.model.named_parameters())
        if self.summary is not None:
            yield from ((name, matrix.detach()) for name, matrix in self.summary.matrices.items())
        yield from ((f"mean.{n}", t) for n, t in self.mean.items())
        yield from ((f"optimizer.{n}", t) for n, t in self.optimizer.state().items())

    def save(self, out: Path) -> Path:
        """Write the checkpoint; the old one stays until the new one is complete."""
        path = out / CHECKPOINT
        partial = path.with_suffix(".part")
        notes = {
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(asdict(self.progress)),
        }
        try:
            tensors = {n: t.cpu().contiguous() for n, t in self._tensors()}
            save_file(tensors, partial, metadata=notes)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise PretrainingError(
                f"The checkpoint cannot be written to {out}: {error}. Make room, then start the "
                "same command again: it goes on from the last complete checkpoint."
            ) from error
        return path

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same run."""
        try:
            with safe_open(path, "pt", device=str(self.device.device)) as file:
                notes = file.metadata() or {}
                earlier, progress = json.loads(notes["settings"]), json.loads(notes["progress"])
                self._check(path, earlier)
                there = set(file.keys())
                for name, tensor in self._tensors():
                    # The second aim may be taken up on the way.
                    if name in there or name.rpartition(".")[2] not in _SECOND_AIM:
                        tensor.copy_(file.get_tensor(name))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise PretrainingError(
                f"{path} is not a complete checkpoint of this program ({error}): delete it, or "
                "choose another --out."
            ) from error
        self.progress = Progress(**progress)
        self.optimizer.steps = self.progress.step

    def _check(self, path: Path, earlier: dict[str, Any]) -> None:
        now = asdict(self.settings)
        changed = [
            f"{key} was {earlier.get(key)!r} and is now {now[key]!r}"
            for key in now
            if key not in CHANGEABLE and earlier.get(key) != now[key]
        ]
        if changed:
            raise PretrainingError(
                f"{path} belongs to another run: {'; '.join(changed)}. Choose another --out, or "
                "give the settings that it was started with."
            )


def _smoothed(before: float, value: float) -> float:
    """A running mean that starts with the first value; 0 while a loss is not asked for."""
    return 0.97 * before + 0.03 * value if before and value else value
