"""What the speed benchmark compares: the same texts, the same adapter, one step of each.

A contender is a function from a batch to nothing that takes one optimiser step; it reports what
its forward pass, backward pass and optimiser took through `Phases`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lora_core as lc
from lora_core.base.checkpoint import BUNDLED
from lora_core.batches import Batch
from lora_core.devices import Device, choose_device
from lora_core.fast.engine import EngineSetup, FastEngine
from lora_core.lora import LoRALayer
from lora_core.preparation import build_model

PADDED = 120  # tokens: what the book and many notebooks pad every text to
RATE = 1e-3


class Phases:
    """Seconds of one step, by phase; `clock` is wall time or this process's processor time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds = {"forward": 0.0, "backward": 0.0, "optimiser": 0.0}
        self._last = 0.0

    def start(self) -> None:
        """A step begins."""
        self._last = self.clock()

    def end(self, phase: str) -> None:
        """A phase ends here."""
        now = self.clock()
        self.seconds[phase] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(self.seconds.values())


Contender = Callable[[Batch, Phases], None]


def ours(
    base: lc.Base,
    method: str,
    rank: int,
    classes: int,
    device: Device,
    targets: tuple[str, ...] = lc.LINEAR_TARGETS,
) -> Contender:
    """The app's own step, as `fine_tune` takes it; on every linear layer, as the others have it."""
    config = lc.TrainConfig(method=method)  # type: ignore[arg-type]
    lora = lc.LoRAConfig(rank=rank, targets=targets)
    generator = torch.Generator().manual_seed(0)
    model = build_model(base, classes, lora, config.method, generator)
    engine = FastEngine(EngineSetup(model, config, device, lambda: None))
    fast, forward, update = engine.fast, engine.fast._forward, engine.optimizer.step
    now: list[Phases] = []

    def timed_forward(*arguments):  # type: ignore[no-untyped-def]
        result = forward(*arguments)
        now[0].end("forward")
        return result

    def timed_update(*arguments):  # type: ignore[no-untyped-def]
        now[0].end("backward")
        update(*arguments)

    fast._forward = timed_forward  # type: ignore[method-assign]
    engine.optimizer.step = timed_update  # type: ignore[method-assign]

    def step(batch: Batch, phases: Phases) -> None:
        now[:] = [phases]
        phases.start()
        engine.step(batch, RATE)
        phases.end("optimiser")

    return step


def autograd_step(
    model: nn.Module,
    logits: Callable[[Batch], Tensor],
    cast: torch.dtype | None = None,
) -> Contender:
    """The usual loop: forward, loss, backward, clip, AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    model.train()

    def step(batch: Batch, phases: Phases) -> None:
        phases.start()
        with torch.autocast("cpu", cast or torch.bfloat16, enabled=cast is not None):
            result = logits(batch)
        loss = F.cross_entropy(result.float(), batch.labels)
        loss.item()
        phases.end("forward")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        phases.end("backward")
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        phases.end("optimiser")

    return step


def plain(base: lc.Base, rank: int, classes: int) -> Contender:
    """`lora.py` and `model.py` as they are read, under autograd, float32."""
    lora = lc.LoRAConfig(rank=rank, targets=lc.LINEAR_TARGETS)
    model = build_model(base, classes, lora, "lora", torch.Generator().manual_seed(0))
    return autograd_step(model, lambda batch: model(batch.tokens, batch.lengths))


def widened(batch: Batch, width: int) -> tuple[Tensor, Tensor]:
    """Ids and lengths, padded on the right to `width`; longer texts cut."""
    tokens = batch.tokens[:, :width]
    return F.pad(tokens, (0, width - tokens.shape[1])), batch.lengths.clamp(max=width)


# --- peft + transformers --------------------------------------------------------------------------


def peft_model(rank: int, classes: int, attention: str, dtype: torch.dtype) -> nn.Module:
    """GPT2ForSequenceClassification from the bundled base's own folder, LoRA on every product."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(
        BUNDLED, num_labels=classes, attn_implementation=attention, dtype=dtype
    )
    model.config.pad_token_id = 0
    model.config.use_cache = False
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=rank,
        lora_alpha=16,
        target_modules=["c_attn", "c_proj", "c_fc"],
        fan_in_fan_out=True,
    )
    return get_peft_model(model, config)


def peft(
    rank: int,
    classes: int,
    width: int | None,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    cast: torch.dtype | None = None,
) -> Contender:
    """A training step of `peft`; `width` None pads to the batch's longest text."""
    model = peft_model(rank, classes, attention, dtype)

    def logits(batch: Batch) -> Tensor:
        tokens, lengths = widened(batch, width or batch.tokens.shape[1])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        # Token 0 stands for padding: the mask tells it apart from a text's own.
        tokens = tokens.masked_fill((tokens == 0) & (mask == 1), 1).masked_fill(mask == 0, 0)
        return model(input_ids=tokens, attention_mask=mask).logits

    return autograd_step(model, logits, cast)


@dataclass(frozen=True)
class Variant:
    """One way to run `peft` fast."""

    name: str
    attention: str
    dtype: torch.dtype
    cast: torch.dtype | None


VARIANTS: Sequence[Variant] = (
    Variant("float32, sdpa", "sdpa", torch.float32, None),
    Variant("float32, eager", "eager", torch.float32, None),
    Variant("bfloat16 autocast, sdpa", "sdpa", torch.float32, torch.bfloat16),
    Variant("bfloat16 autocast, eager", "eager", torch.float32, torch.bfloat16),
    Variant("bfloat16 weights, eager", "eager", torch.bfloat16, None),
)


# --- the book's modules ---------------------------------------------------------------------------


class BookNorm(nn.Module):
    """LayerNorm spelled out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same."""
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class BookGELU(nn.Module):
    """GELU spelled out."""

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same."""
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1 + torch.tanh(inner))


class BookAttention(nn.Module):
    """Multi-head attention with a stored mask."""

    def __init__(self, config: lc.GPTConfig) -> None:
        super().__init__()
        width, self.heads = config.emb_dim, config.n_heads
        self.W_query, self.W_key, self.W_value, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        ones = torch.ones(config.context_length, config.context_length)
        self.register_buffer("mask", torch.triu(ones, diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width) -> the same."""
        b, t, width = x.shape
        query, key, value = (
            layer(x).view(b, t, self.heads, -1).transpose(1, 2)
            for layer in (self.W_query, self.W_key, self.W_value)
        )
        scores = query @ key.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:t, :t], -torch.inf)
        weights = torch.softmax(scores / key.shape[-1] ** 0.5, dim=-1)
        return self.out_proj((weights @ value).transpose(1, 2).contiguous().view(b, t, width))


class BookBlock(nn.Module):
    """Transformer block."""

    def __init__(self, config: lc.GPTConfig) -> None:
        super().__init__()
        width = config.emb_dim
        self.att = BookAttention(config)
        self.ff = nn.Sequential(
            nn.Linear(width, 4 * width), BookGELU(), nn.Linear(4 * width, width)
        )
        self.norm1, self.norm2 = BookNorm(width), BookNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width) -> the same."""
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class BookGPT(nn.Module):
    """The model of *Build a Large Language Model (From Scratch)*, with a classification head."""

    def __init__(self, config: lc.GPTConfig, classes: int) -> None:
        super().__init__()
        width = config.emb_dim
        self.tok_emb = nn.Embedding(config.vocab_size, width)
        self.pos_emb = nn.Embedding(config.context_length, width)
        self.trf_blocks = nn.Sequential(*(BookBlock(config) for _ in range(config.n_layers)))
        self.final_norm = BookNorm(width)
        self.out_head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t) -> (b, t, classes)."""
        x = self.tok_emb(tokens) + self.pos_emb(torch.arange(tokens.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class BookLinear(nn.Module):
    """The book's `LinearWithLoRA`."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.linear(x) + self.lora(x)


def _replace(model: nn.Module, rank: int, alpha: float) -> None:
    for name, module in model.named_children():
        if isinstance(module, nn.Linear):
            setattr(model, name, BookLinear(module, rank, alpha))
        else:
            _replace(module, rank, alpha)


def book(config: lc.GPTConfig, rank: int, classes: int) -> Contender:
    """Appendix E as it is printed: 120 tokens, every linear layer, the logits of the last place."""
    model = BookGPT(config, classes).requires_grad_(False)
    _replace(model, rank, 16)
    return autograd_step(model, lambda batch: model(widened(batch, PADDED)[0])[:, -1, :])


def everyone(
    base: lc.Base, rank: int, classes: int, best: Variant
) -> dict[str, Callable[[], Contender]]:
    """Every contender by its name in the table, made when called."""
    device = choose_device()
    single = Device(device.device, torch.float32, "for comparison")
    return {
        "LoRA Lab": lambda: ours(base, "lora", rank, classes, device),
        "LoRA Lab, embedding too (the default)": lambda: ours(
            base, "lora", rank, classes, device, lc.TARGETS
        ),
        "LoRA Lab, float32": lambda: ours(base, "lora", rank, classes, single),
        "LoRA Lab, full fine-tuning": lambda: ours(base, "full", rank, classes, device),
        "lora.py and model.py as read": lambda: plain(base, rank, classes),
        f"peft at its best ({best.name})": lambda: peft(
            rank, classes, None, best.attention, best.dtype, best.cast
        ),
        "peft padded to 120": lambda: peft(rank, classes, PADDED),
        "the book's modules, 120": lambda: book(base.config, rank, classes),
    }
