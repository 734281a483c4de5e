"""A stranger's session: `transformers` and `peft` over a base folder, and a random small base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2ForSequenceClassification

import lora_core as lc
from lora_core.base.checkpoint import BUNDLED
from lora_core.base.gpt2_names import to_gpt2
from lora_core.base.tokenizer import load_encoding
from lora_core.batches import encode_text
from lora_core.classifier import batched_logits
from lora_core.lora import lora_layers

VOCAB = load_encoding(BUNDLED / "tokenizer.tiktoken").n_vocab  # with <|endoftext|>
TEXTS = [
    "Free entry in 2 a weekly comp, text WIN to 80082",
    "ok",
    "see you at the station at six, and bring the umbrella; it will rain all evening, they say",
    "naïve café 🙂",
]


def random_base(folder: Path, layers: int = 2, width: int = 24) -> lc.Base:
    """A small base of random weights, and the folder in which `transformers` finds it."""
    torch.manual_seed(5)
    config = lc.GPTConfig(VOCAB, 64, width, layers, 3)
    model = lc.GPT(config, num_classes=None).requires_grad_(False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # LayerNorms and biases, too
    folder.mkdir(parents=True, exist_ok=True)
    save_file(to_gpt2(model), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "gpt2",
                "architectures": ["GPT2LMHeadModel"],
                "vocab_size": config.vocab_size,
                "n_positions": config.context_length,
                "n_embd": config.emb_dim,
                "n_layer": config.n_layers,
                "n_head": config.n_heads,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "pad_token_id": VOCAB - 2,
                "eos_token_id": VOCAB - 1,
            }
        )
    )
    tokenizer = load_encoding(BUNDLED / "tokenizer.tiktoken")
    return lc.Base("random", model, tokenizer, str(folder))


def adapted(
    base: lc.Base, config: lc.LoRAConfig, *, classes: int = 3, bias: bool = False, seed: int = 0
) -> lc.Classifier:
    """A classifier as training leaves it, without the wait: every B, and the head, have values.

    The head's are smaller where the base's states are large: rounding grows with the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    model = base.classifier_model(classes, generator)
    initial = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("head.")}
    lc.inject_lora(model, config, generator)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            zeros = layer.lora.A if isinstance(layer, lc.EmbeddingWithLoRA) else layer.lora.B
            zeros.normal_(std=0.3 / max(1.0, config.scale), generator=generator)
        if config.head == "train":
            size = min(0.1, 1.0 / float(model.final_norm.weight.norm()))
            model.head.weight.add_(size * torch.randn(model.head.weight.shape, generator=generator))
            if bias:
                model.head.bias.copy_(torch.randn(classes, generator=generator))
    return lc.Classifier(
        model,
        base.tokenizer,
        [f"class {i}" for i in range(classes)],
        initial=initial if config.head == "train" else {},
        lora_config=config,
        train_config=lc.TrainConfig(steps=7, seed=3),
        base_name=base.name,
        base_source=base.source,
        task_name="a task",
        scores={"validation_accuracy": 0.875},
    )


def our_logits(classifier: lc.Classifier, texts: list[str] | None = None) -> Tensor:
    """(texts, classes), in one padded batch."""
    ids = [classifier.encode(text) for text in texts or TEXTS]
    return batched_logits(classifier.model, ids)


def padded(base: lc.Base, texts: list[str] | None = None) -> tuple[Tensor, Tensor]:
    """Right-padded ids (texts, longest) and the attention mask."""
    rows = [encode_text(base.tokenizer, text, 256) for text in texts or TEXTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [VOCAB - 2] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def plain_model(base_folder: str | Path, classes: int = 3) -> GPT2ForSequenceClassification:
    """What a stranger loads before the adapter; its head is random."""
    return GPT2ForSequenceClassification.from_pretrained(
        base_folder, num_labels=classes, dtype=torch.float32
    )


def opened(
    adapter: Path, base_folder: str | Path, classes: int = 3
) -> Callable[[Tensor, Tensor], Tensor]:
    """Open an adapter folder with `peft`; a function from ids and mask to logits."""
    model = peft.PeftModel.from_pretrained(plain_model(base_folder, classes), adapter).eval()

    @torch.no_grad()
    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask).logits

    return logits
