"""The README that travels with an adapter or a merged model: what it is, how good, how to use it.

Names of labels and tasks may come from a stranger's table: they go into Markdown and code only in
a form in which they cannot become either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lora_core.classifier import Classifier
from lora_core.config import literal

_ADAPTER = """import torch
from peft import PeftModel
from transformers import AutoTokenizer, GPT2ForSequenceClassification

labels = {labels!r}
base = {source!r}  # the folder or the Hub name of the base model
tokenizer = AutoTokenizer.from_pretrained(base)
model = GPT2ForSequenceClassification.from_pretrained(
    base, num_labels=len(labels), dtype=torch.float32
)
model = PeftModel.from_pretrained(model, ".").eval()  # "." is this adapter's folder

ids = tokenizer("Type a text here", return_tensors="pt").input_ids
with torch.no_grad():
    probabilities = model(input_ids=ids).logits.softmax(-1)[0]
for label, probability in zip(labels, probabilities.tolist()):
    print(f"{{label:20}} {{probability:.1%}}")
"""

_MERGED = """import torch
from transformers import AutoTokenizer, GPT2ForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained({tokenizer!r})
model = GPT2ForSequenceClassification.from_pretrained(".").eval()  # "." is this folder

ids = tokenizer("Type a text here", return_tensors="pt").input_ids
with torch.no_grad():
    probabilities = model(input_ids=ids).logits.softmax(-1)[0]
for i, probability in enumerate(probabilities.tolist()):
    print(f"{{model.config.id2label[i]:20}} {{probability:.1%}}")
"""


def peft_snippet(labels: Sequence[str], source: str) -> str:
    """A short program that uses the adapter in the present folder with `peft`."""
    return _ADAPTER.format(labels=list(labels), source=source)


def merged_snippet(tokenizer: str) -> str:
    """A short program that uses the merged model in the present folder with `transformers`."""
    return _MERGED.format(tokenizer=tokenizer)


def adapter_card(
    classifier: Classifier, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str:
    """Markdown with front matter as the Hub expects it of a PEFT adapter."""
    lora = classifier.lora_config
    assert lora is not None
    size = sum(t.numel() for t in tensors.values())
    source = str(config["base_model_name_or_path"])
    scale = f"scale {lora.scale:g} by {lora.scaling}"
    rows = [
        *_rows(classifier),
        ("Rank, alpha", f"{lora.rank}, {literal(lora.alpha)} ({scale})"),
        ("Layers adapted", ", ".join(lora.targets)),
        ("Numbers in the file", f"{size:,} float32"),
        *_scores(classifier),
    ]
    # The Hub takes only names of its own here; a folder on somebody's disk is none.
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith("assets/")
    base = f"base_model: {source}\n" if hub else ""
    return f"""---
library_name: peft
{base}tags: [lora, text-classification]
---
# LoRA adapter: {_plain(classifier.task_name) or "text classification"}

Trained with LoRA Lab. The file holds only what training changed: the two thin matrices of each
adapted layer, and the classification head. It needs the base named below, unchanged.

{_table(rows)}

Query, key and value were adapted separately; here they are one `c_attn` adapter whose rank is the
sum of theirs, because GPT-2 keeps the three in one layer. The result is the same. A bias of the
head, which `transformers` has no place for, is kept in that of the final LayerNorm (`ln_f`).

```python
{peft_snippet(classifier.labels, source)}```
"""


def merged_card(classifier: Classifier, has_tokenizer: bool) -> str:
    """Markdown for a merged or fully fine-tuned model."""
    method = classifier.train_config.method if classifier.train_config else "lora"
    how = {
        "lora": "LoRA, folded into the weights",
        "full": "full fine-tuning",
        "head": "the classification head alone",
    }[method]
    rows = [*_rows(classifier), ("Trained", how), *_scores(classifier)]
    snippet = merged_snippet("." if has_tokenizer else classifier.base_source)
    return f"""---
library_name: transformers
tags: [text-classification]
---
# Text classifier: {_plain(classifier.task_name) or "own texts"}

Made with LoRA Lab: a whole model, ready for `transformers`.

{_table(rows)}

```python
{snippet}```
"""


def _rows(classifier: Classifier) -> list[tuple[str, str]]:
    rows = [
        ("Base", f"`{_plain(classifier.base_source)}`"),
        ("Task", _plain(classifier.task_name) or "unknown"),
        ("Labels", ", ".join(_plain(label) for label in classifier.labels)),
    ]
    train = classifier.train_config
    if train is not None:
        rows.append(("Training", f"{train.steps} steps of {train.batch_size}, seed {train.seed}"))
    return rows


def _scores(classifier: Classifier) -> list[tuple[str, str]]:
    return [
        (_plain(name.replace("_", " ")).capitalize(), f"{value:.4f}")
        for name, value in classifier.scores.items()
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _plain(text: str) -> str:
    """A stranger's word without what Markdown, HTML or a table would read as theirs."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line)
