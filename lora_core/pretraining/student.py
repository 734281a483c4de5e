"""A base goes on learning, from a teacher's states as well as from the next token.

    python -m lora_core.pretraining.student --states DIR --texts FILE --corpus FILE --out DIR

At every position where both tokenisers cut, the student's state says through matrices that are
thrown away in the end (a) the mean of the teacher's states so far and (b) the teacher's state
there. A causal model's last state is about the next word; the mean is about the text, and a
classifier reads the student's last state. Each component of a target is divided by its deviation
to a power (1: all components count alike); the loss is the mean squared error. Every
`language_every`-th step predicts the next token on windows of the corpus instead, so that the
student stays a language model.

Killed, the same command goes on from the last checkpoint; the texts may have grown meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tiktoken
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_core.base.checkpoint import load_base
from lora_core.base.tokenizer import load_encoding
from lora_core.config import GPTConfig
from lora_core.model import GPT
from lora_core.pretraining import PretrainingError
from lora_core.pretraining.aim_block import append_aim_block, end_residuals
from lora_core.pretraining.corpus import Windows, line_ends, prepare_tokens
from lora_core.pretraining.export import export
from lora_core.pretraining.lessons import Lessons, scales
from lora_core.pretraining.measure import Validation, bits_per_byte, read_validation, summed_loss
from lora_core.pretraining.network import (
    Weights,
    add_gradients,
    hidden_states,
    next_token_loss,
    use_compiler,
    working_weights,
)
from lora_core.pretraining.optimizer import MuonAdamW
from lora_core.pretraining.program import exit_status
from lora_core.pretraining.start import bag_start, fit_aims, token_states
from lora_core.pretraining.teach import States
from lora_core.pretraining.vocabulary import grow_embedding, pieces

CHECKPOINT = "student.safetensors"
DEEPEN_TEXTS = 2000  # from which the sizes of an aim block come
_FREE = ("tokens", "decay", "language_every", "state", "last", "average")  # may change on the way


@dataclass(frozen=True)
class Settings:
    """What a run is made of."""

    tokens: int  # of taught texts, counted with repetitions
    batch_tokens: int = 6144  # a step of the teacher's aims
    window_rows: int = 16  # windows of a step of the next token's
    matrix_lr: float = 0.01
    other_lr: float = 4e-3
    warmup_steps: int = 60
    decay: float = 0.5  # last share of the tokens, in which the learning rate falls to zero
    language_every: int = 5  # steps; 0: never
    state: float = 0.3  # weight of the teacher's state beside its mean
    last: float = 2.0  # how much more a text's last position counts
    power: float = 0.75  # of the deviations by which targets are divided
    fixed: bool = False  # the matrix through which the mean is said stays as it began
    seed: int = 0

    def lr_share(self, step: int, tokens: int) -> float:
        """Of the peak learning rates: up in a line, level, down to zero in a line."""
        falling = max(0.0, (1.0 - tokens / self.tokens) / max(self.decay, 1e-9))
        return min(1.0, (step + 1) / self.warmup_steps, falling)


@dataclass
class Progress:
    """Where a run is; kept in its checkpoint."""

    step: int = 0
    tokens: int = 0  # of taught texts
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)  # smoothed
    log: list[dict[str, float]] = field(default_factory=list)


class Student:
    """A model, the aims' matrices, an optimiser, and how far it is."""

    def __init__(
        self,
        model: GPT,
        lessons: Lessons,
        windows: Windows | None,
        settings: Settings,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.model, self.lessons, self.windows = model, lessons, windows
        self.settings, self.dtype = settings, dtype
        self.scales = scales(lessons.states, settings.power)
        width, k = model.config.emb_dim, self.scales.shape[1]
        noise = torch.Generator().manual_seed(settings.seed)
        self.aims = {
            "aim.matrix": nn.Parameter(0.05 * torch.randn(2, k, width, generator=noise)),
            "aim.bias": nn.Parameter(torch.zeros(2, k)),
        }
        self.named = [*model.named_parameters(), *self.aims.items()]
        self.optimizer = MuonAdamW(
            self.named, matrix_lr=settings.matrix_lr, other_lr=settings.other_lr, dtype=dtype
        )
        self.progress = Progress()

    def train_step(self) -> None:
        """One step of the teacher's aims, or of the next token's."""
        settings, progress = self.settings, self.progress
        mean_matrix = self.aims["aim.matrix"].detach()[0].clone()
        weights = working_weights(self.model, self.dtype)
        for _, parameter in self.named:
            parameter.grad = None
        every = settings.language_every
        language = self.windows is not None and every > 0 and progress.step % every == every - 1
        share = settings.lr_share(progress.step, progress.tokens)
        losses = self._language(weights) if language else self._teacher(weights)
        if not all(map(math.isfinite, losses.values())):
            raise PretrainingError(f"A loss is not finite at step {progress.step + 1}.")
        for _, parameter in self.named:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_([p for _, p in self.named], 1.0)
        self.optimizer.step(share)
        if settings.fixed:
            with torch.no_grad():
                self.aims["aim.matrix"][0].copy_(mean_matrix)
        progress.step += 1
        for name, value in losses.items():
            old = progress.losses.get(name, value)
            progress.losses[name] = 0.98 * old + 0.02 * value

    def begin_aims(self, batches: int = 24) -> None:
        """The aims' first matrices from what the model's states say already."""
        weights = working_weights(self.model, self.dtype)
        states, targets = [], []
        with torch.no_grad():
            for step in range(batches):
                ids, index, _, both = self.lessons.batch(
                    step, self.settings.seed + 1, self.settings.batch_tokens // 4
                )
                hidden = hidden_states(weights, self.model.config, ids)
                states.append(hidden.flatten(0, 1)[index].float())
                targets.append(both * self.scales[:, None])
        fit_aims(
            self.aims["aim.matrix"],
            self.aims["aim.bias"],
            torch.cat(states),
            torch.cat(targets, 1),
        )

    def _teacher(self, weights: Weights) -> dict[str, float]:
        settings = self.settings
        ids, index, last, targets = self.lessons.batch(
            self.progress.step, settings.seed, settings.batch_tokens
        )
        states = hidden_states(weights, self.model.config, ids).flatten(0, 1)[index]
        matrix, bias = self._working_aims()
        said = torch.einsum("nw,akw->ank", states, matrix).float() + bias[:, None]
        errors = (said - targets * self.scales[:, None]).square().mean(-1)  # (2, n)
        weight = 1.0 + settings.last * last.float()
        mean, state = (errors * weight).sum(-1) / weight.sum()
        self._backward(mean + settings.state * state, weights, matrix, bias)
        self.progress.tokens += int(ids.numel())
        ends = errors[0][last].mean()
        return {"mean": mean.item(), "state": state.item(), "at_end": ends.item()}

    def _working_aims(self) -> tuple[Tensor, Tensor]:
        """The aims' matrices and biases in the formats of the products."""
        matrix = self.aims["aim.matrix"].detach().to(self.dtype).requires_grad_()
        return matrix, self.aims["aim.bias"].detach().requires_grad_()

    def _backward(self, loss: Tensor, weights: Weights, matrix: Tensor, bias: Tensor) -> None:
        """The gradients of a loss of the aims; zero where it does not depend on something."""
        inputs = [*weights.values(), matrix, bias]
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
        filled = [
            torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)
        ]
        add_gradients(self.model, weights, tuple(filled[:-2]))
        for parameter, gradient in zip(self.aims.values(), filled[-2:], strict=True):
            parameter.grad = gradient.float()

    def _next_tokens(self) -> tuple[Tensor, Tensor]:
        """Windows of the corpus, and what follows each of their tokens."""
        assert self.windows is not None
        return self.windows.batch(self.progress.step, self.settings.window_rows)

    def _language(self, weights: Weights) -> dict[str, float]:
        tokens, targets = self._next_tokens()
        states = hidden_states(weights, self.model.config, tokens)
        loss = next_token_loss(weights, states, targets, 1.0 / targets.numel())
        add_gradients(self.model, weights, torch.autograd.grad(loss, list(weights.values())))
        return {"next_token": loss.item()}

    def run(self, out: Path, *, save_seconds: float = 120.0, say_every: int = 50) -> None:
        """Train to the end, saving a checkpoint in `out` every so often."""
        progress, saved = self.progress, time.monotonic()
        while progress.tokens < self.settings.tokens:
            begin = time.perf_counter()
            self.train_step()
            progress.seconds += time.perf_counter() - begin
            if say_every and progress.step % say_every == 0:
                losses = "  ".join(f"{k} {v:.4f}" for k, v in progress.losses.items())
                print(
                    f"step {progress.step:,}  {progress.tokens:,} tokens  "
                    f"{progress.seconds:,.0f} s  {losses}",
                    flush=True,
                )
            if time.monotonic() - saved > save_seconds:
                self.save(out)
                saved = time.monotonic()
        self.save(out)

    # Checkpoints ------------------------------------------------------------------------------

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"model.{n}", p.detach()) for n, p in self.model.named_parameters())
        yield from ((n, p.detach()) for n, p in self.aims.items())
        yield from ((f"optimizer.{n}", t) for n, t in self.optimizer.state().items())

    def save(self, out: Path) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        partial = out / (CHECKPOINT + ".part")
        notes = {
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(asdict(self.progress)),
        }
        try:
            save_file({n: t.contiguous() for n, t in self._tensors()}, partial, metadata=notes)
            partial.replace(out / CHECKPOINT)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise PretrainingError(f"The checkpoint cannot be written: {error}.") from error

    def resume(self, out: Path) -> None:
        """Go on from the checkpoint in `out`."""
        path = out / CHECKPOINT
        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata() or {}
                settings = json.loads(notes["settings"])
                now = asdict(self.settings)
                changed = [k for k in now if k not in _FREE and settings.get(k) != now[k]]
                if changed:
                    raise PretrainingError(
                        f"{path} belongs to another run: {', '.join(changed)} differ. Choose "
                        "another --out, or give the settings that it was started with."
                    )
                for name, tensor in self._tensors():
                    tensor.copy_(file.get_tensor(name))
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, PretrainingError):
                raise
            raise PretrainingError(f"{path} is no checkpoint of this run: {error}.") from error
        self.progress = Progress(**json.loads(notes["progress"]))
        self.optimizer.steps = self.progress.step


def begin(base: Path | str, tokenizer: Path | None) -> tuple[GPT, tiktoken.Encoding]:
    """A trainable copy of a base, its vocabulary grown to `tokenizer`'s if one is given."""
    start = load_base(base)
    config, state = start.config, start.model.state_dict()
    encoding = start.tokenizer
    if tokenizer is not None:
        encoding = load_encoding(tokenizer / "tokenizer.tiktoken")
        name = "token_embedding.weight"
        state[name] = grow_embedding(state[name], pieces(start.tokenizer, encoding))
        config = GPTConfig(
            encoding.n_vocab,
            config.context_length,
            config.emb_dim,
            config.n_layers,
            config.n_heads,
        )
    model = GPT(config, num_classes=None)
    model.load_state_dict({n: t.clone() for n, t in state.items()})
    return model, encoding


def deepened(folder: Path, config: GPTConfig, texts: list[str], encoding: tiktoken.Encoding) -> GPT:
    """The student whose checkpoint lies in `folder`, one aim block deeper (`aim_block.py`)."""
    path = folder / CHECKPOINT
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PretrainingError(f"{path} is no student's checkpoint: {error}.") from error
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    layers = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    model = GPT(dataclasses.replace(config, n_layers=layers), num_classes=None)
    model.load_state_dict(weights)
    residuals = end_residuals(model, texts, encoding)
    return append_aim_block(model, tensors["aim.matrix"][0], tensors["aim.bias"][0], residuals)


def measure(model: GPT, validation: Validation, stride: int = 128, limit: int = 0) -> float:
    """Bits per byte, see `measure.summed_loss`."""
    ids, size = validation
    weights = working_weights(model, torch.float32)
    nats, tokens = summed_loss(weights, model.config, ids, stride, limit)
    return bits_per_byte(nats, tokens, len(ids) - 1, size)


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining.student", description=__doc__.split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--states", type=Path, required=True, metavar="DIR", help="what `teach` wrote")
    add("--texts", type=Path, required=True, metavar="FILE", help="what it read")
    add("--corpus", nargs="*", type=Path, default=[], metavar="FILE", help="for the next token")
    add("--validation", type=Path, metavar="FILE", help="text to measure bits per byte on")
    add("--base", default="bundled", help="where the weights begin")
    add("--tokenizer", type=Path, metavar="DIR", help="a vocabulary grown from the base's")
    add("--fresh", action="store_true", help="begin as the teacher's bag of words, not as --base")
    add("--layers", type=int, default=4, help="of a fresh model")
    add("--deepen", type=Path, metavar="DIR", help="begin as the student there, with an aim block")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint and exported model")
    add("--tokens", type=float, required=True, help="of taught texts, repetitions counted")
    add("--decay", type=float, default=Settings.decay, help="share with falling rate")
    add("--language-every", type=int, default=Settings.language_every, help="steps")
    add("--matrix-lr", type=float, default=Settings.matrix_lr, help="Muon's peak")
    add("--other-lr", type=float, default=Settings.other_lr, help="AdamW's peak")
    add("--state", type=float, default=Settings.state, help="weight of the state")
    add("--last", type=float, default=Settings.last, help="extra weight of last positions")
    add("--power", type=float, default=Settings.power, help="of the targets' deviations")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: learn(options), "The same command goes on from the last checkpoint.")


def learn(options: argparse.Namespace) -> None:
    """Read, train or go on training, export, measure."""
    options.out.mkdir(parents=True, exist_ok=True)
    model, encoding = begin(options.base, options.tokenizer)
    texts = options.texts.read_text(encoding="utf-8").split("\n")
    states = States(options.states)
    if options.fresh:
        config = dataclasses.replace(model.config, n_layers=options.layers)
        means = token_states(states, texts, encoding)
        model = bag_start(config, means, scales(states, options.power)[0], options.seed)
    if options.deepen:
        model = deepened(options.deepen, model.config, texts[-DEEPEN_TEXTS:], encoding)
    lessons = Lessons(states, texts, encoding)
    windows = None
    if options.corpus:
        path = prepare_tokens(options.corpus, encoding, options.out, quiet=True)
        windows = Windows(path, model.config.context_length, options.seed, line_ends(encoding))
    settings = Settings(
        tokens=int(options.tokens),
        decay=options.decay,
        language_every=options.language_every,
        matrix_lr=options.matrix_lr,
        other_lr=options.other_lr,
        state=options.state,
        last=options.last,
        power=options.power,
        fixed=options.deepen is not None,
        seed=options.seed,
    )
    use_compiler(True)
    student = Student(model, lessons, windows, settings)
    if (options.out / CHECKPOINT).is_file():
        student.resume(options.out)
    elif options.fresh or options.deepen:
        student.begin_aims()
    print(f"{len(lessons.ids):,} texts, {lessons.tokens:,} tokens", flush=True)
    student.run(options.out)
    folder = options.tokenizer or Path(__file__).resolve().parents[2] / "assets" / "base"
    export(student.model, folder, options.out / "model")
    if options.validation:
        value = measure(student.model, read_validation(options.validation, encoding))
        print(f"{value:.4f} bits per byte on {options.validation.name}")


if __name__ == "__main__":
    sys.exit(main())
