"""The README that travels with an adapter: what it is, how good it is, and code that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lora_core.classifier import Classifier

_SNIPPET = """import torch
from peft import PeftModel
from transformers import AutoTokenizer, GPT2ForSequenceClassification

labels = {labels!r}
base = {source!r}  # the folder or repository of the base model
tokenizer = AutoTokenizer.from_pretrained(base)
model = GPT2ForSequenceClassification.from_pretrained(base, num_labels=len(labels))
model = PeftModel.from_pretrained(model, ".").eval()  # "." is this folder

ids = tokenizer("Type a text here", return_tensors="pt").input_ids
with torch.no_grad():
    probabilities = model(input_ids=ids).logits.softmax(-1)[0]
for label, probability in zip(labels, probabilities.tolist()):
    print(f"{{label:20}} {{probability:.1%}}")
"""


def peft_snippet(labels: tuple[str, ...], source: str) -> str:
    """A short program that uses the adapter in the present folder with `peft`."""
    return _SNIPPET.format(labels=list(labels), source=source)


def adapter_card(
    classifier: Classifier, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str:
    """Markdown with front matter as the Hub expects it of a PEFT adapter."""
    lora, train = classifier.lora_config, classifier.train_config
    assert lora is not None
    size = sum(t.numel() for t in tensors.values())
    rows = [
        ("Base", f"`{classifier.base_source}`"),
        ("Task", classifier.task_name or "not told"),
        ("Labels", ", ".join(classifier.labels)),
        ("Rank, alpha", f"{lora.rank}, {lora.alpha:g} (scale {lora.scale:g} by {lora.scaling})"),
        ("Layers adapted", ", ".join(lora.targets)),
        ("Numbers in the file", f"{size:,} float32"),
    ]
    if train is not None:
        rows.append(("Training", f"{train.steps} steps of {train.batch_size}, seed {train.seed}"))
    rows += [(name.replace("_", " "), f"{value:.4f}") for name, value in classifier.scores.items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
library_name: peft
base_model: {config["base_model_name_or_path"]}
tags: [lora, text-classification]
---
# LoRA adapter: {classifier.task_name or "text classification"}

Trained with LoRA Lab. The file holds only what training changed: the two thin matrices of each
adapted layer, and the classification head. It needs the base named below, unchanged.

| | |
|---|---|
{table}

Query, key and value were adapted separately; they stand in one `c_attn` adapter whose rank is the
sum of theirs, because GPT-2 keeps the three in one layer. The result is the same.

```python
{peft_snippet(classifier.labels, str(config["base_model_name_or_path"]))}```
"""
