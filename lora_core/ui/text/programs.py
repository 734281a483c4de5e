"""The present settings as short Python programs: with `lora_core`, and with `peft` alone.

Both run as they stand from the folder of this project; a test runs them. Values go in as Python
literals (`repr`), so a name from an address cannot become code.
"""

from __future__ import annotations

from lora_core.base.checkpoint import HUB_NAMES
from lora_core.config import TARGETS, LoRAConfig, TrainConfig, literal
from lora_core.preparation import MOST_FOR_A_FASTER_HEAD, default_learning_rate
from lora_core.tasks.bundled import task_names
from lora_core.ui.settings import Settings

_FUSED = ("query", "key", "value")
_THEIRS = {
    "attention.output": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "token_embedding": "wte",
}


def lora_core_program(settings: Settings) -> str:
    """Train with these settings, classify a text and save the adapter, with this library.

    Here and below the settings know their steps (`Settings.for_labels`).
    """
    lora, train = settings.lora_config(), settings.train_config()
    adapted = settings.method == "lora"
    own = settings.task not in task_names()
    task = (
        f"lc.read_task({settings.task + '.csv'!r})  # your own table: columns text, label"
        if own
        else f"lc.load_task({settings.task!r})"
    )
    save = (
        'lc.save_adapter(classifier, "my-adapter")  # a folder that peft opens'
        if adapted
        else 'save_merged(classifier, "my-model")  # a folder that transformers opens'
    )
    extra = "" if adapted else "from lora_core.adapters.merged import save_merged\n"
    return f"""import lora_core as lc
{extra}
base = lc.load_base({settings.base!r})
task = {task}
lora = {_lora(lora) if adapted else "None"}
train = {_train(train)}
for event in lc.fine_tune(base, task, lora, train):
    if isinstance(event, lc.Evaluated):
        print(f"step {{event.step}}: validation accuracy {{event.validation_accuracy:.1%}}")

classifier = event.classifier  # of the last event, Finished
print(classifier.classify("Type a text here"))
{save}
"""


def peft_program(settings: Settings) -> str:
    """Train the same with `transformers` and `peft`, without this library."""
    lora, train = settings.lora_config(), settings.train_config()
    own = settings.task not in task_names()
    table = f"{settings.task}.csv" if own else f"assets/tasks/{settings.task}.csv"
    base = "assets/base" if settings.base == "bundled" else HUB_NAMES.get(settings.base)
    rate = train.learning_rate or default_learning_rate(train.method, lora)
    adapted = settings.method == "lora"
    imports = "from peft import LoraConfig, get_peft_model\n" if adapted else ""
    return f"""import csv
import random

import torch
{imports}from transformers import (
    AutoTokenizer,
    GPT2ForSequenceClassification,
    get_cosine_schedule_with_warmup,
)

torch.manual_seed({train.seed})
base = {base or settings.base!r}
with open({table!r}, encoding="utf-8", newline="") as file:
    rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
random.Random({train.seed}).shuffle(rows)
labels = sorted({{label for _, label in rows}})
train, test = rows[len(rows) // 5 :], rows[: len(rows) // 5]

tokenizer = AutoTokenizer.from_pretrained(base)
tokenizer.pad_token = tokenizer.eos_token
model = GPT2ForSequenceClassification.from_pretrained(
    base, num_labels=len(labels), dtype=torch.float32
)
model.config.pad_token_id = tokenizer.pad_token_id
{_peft_model(settings, lora)}

def batch(part):
    tokens = tokenizer(
        [text for text, _ in part],
        padding=True,
        truncation=True,
        max_length=model.config.n_positions,
        return_tensors="pt",
    )
    return tokens, torch.tensor([labels.index(label) for _, label in part])


trained = [p for p in model.parameters() if p.requires_grad]
print(f"{{sum(p.numel() for p in trained):,}} parameters are trained")
{_optimizer(rate, train.weight_decay, own and settings.method != "head")}
schedule = get_cosine_schedule_with_warmup(
    optimizer, {max(1, round(train.warmup * train.steps))}, {train.steps}
)
model.train()
for step in range({train.steps}):
    tokens, truth = batch(random.sample(train, min({train.batch_size}, len(train))))
    loss = torch.nn.functional.cross_entropy(model(**tokens).logits, truth)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, {literal(train.max_grad_norm)})
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {{step}}: loss {{loss.item():.3f}}")

model.eval()
right = 0
with torch.no_grad():
    for start in range(0, len(test), 32):
        tokens, truth = batch(test[start : start + 32])
        right += (model(**tokens).logits.argmax(-1) == truth).sum().item()
print(f"test accuracy {{right / len(test):.1%}}")
model.save_pretrained({"my-adapter" if adapted else "my-model"!r})
"""


def _optimizer(rate: float, weight_decay: float, head_apart: bool) -> str:
    """The lines that make the optimiser; with many classes the head has a rate of its own."""
    lr, decay = literal(rate), literal(weight_decay)
    if not head_apart:
        return f"optimizer = torch.optim.AdamW(trained, lr={lr}, weight_decay={decay})"
    return f"""times = min(5, max(1, len(labels) / 10 * 256 / model.config.n_embd))
head_lr = max({lr}, min({lr} * times, {literal(MOST_FOR_A_FASTER_HEAD)}))
named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(
    [
        {{"params": [p for n, p in named if "score" not in n], "lr": {lr}}},
        {{"params": [p for n, p in named if "score" in n], "lr": head_lr}},
    ],
    weight_decay={decay},
)"""


def _lora(lora: LoRAConfig) -> str:
    default = LoRAConfig(head=lora.head)  # what "every layer" means depends on it
    arguments = [f"rank={lora.rank}", f"alpha={literal(lora.alpha)}"]
    arguments += [
        f"{name}={getattr(lora, name)!r}"
        for name in ("targets", "scaling", "dropout")
        if getattr(lora, name) != getattr(default, name)
    ]
    if lora.head != "train":
        arguments.append(f"head={lora.head!r}")
    return _call("lc.LoRAConfig", arguments)


def _train(train: TrainConfig) -> str:
    arguments = [f"steps={train.steps}", f"batch_size={train.batch_size}", f"seed={train.seed}"]
    if train.learning_rate is not None:
        arguments.append(f"learning_rate={literal(train.learning_rate)}")
    if train.method != "lora":
        arguments.append(f"method={train.method!r}")
    return _call("lc.TrainConfig", arguments)


def _call(name: str, arguments: list[str]) -> str:
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 84:
        return line
    return f"{name}(\n    " + ",\n    ".join(arguments) + ",\n)"


def _peft_model(settings: Settings, lora: LoRAConfig) -> str:
    """The lines that open what is trained and freeze what is not."""
    if settings.method == "full":
        return "# Full fine-tuning: every weight is trained, so there is nothing for peft to do.\n"
    if settings.method == "head":
        return "model.transformer.requires_grad_(False)  # the head alone is trained\n"
    lines = []
    fused = [t for t in lora.targets if t in _FUSED]
    modules = [theirs for ours, theirs in _THEIRS.items() if ours in lora.targets]
    if fused:
        modules.insert(0, "attn.c_attn")
        lines.append(
            "# GPT-2 keeps query, key and value in one layer, c_attn: one adapter for them."
        )
        if len(fused) < len(_FUSED):
            lines.append(f"# peft cannot adapt {' and '.join(fused)} alone.")
    if lora.head == "lora":
        lines.append("# peft trains the new head in full; it has no frozen one with LoRA on it.")
    alpha, rslora = lora.alpha, lora.scaling == "alpha/sqrt(rank)"
    if lora.scaling == "alpha":
        alpha = lora.alpha * lora.rank
        lines.append(
            "# peft divides alpha by the rank: multiplied here, so that the scale is alpha."
        )
    lines += [
        "config = LoraConfig(",
        '    task_type="SEQ_CLS",',
        f"    r={lora.rank},",
        f"    lora_alpha={literal(alpha)},",
        f"    lora_dropout={literal(lora.dropout)},",
        f"    use_rslora={rslora},",
        f"    target_modules={modules!r},".replace("'", '"'),
        "    fan_in_fan_out=True,",
        ")",
        "model = get_peft_model(model, config)",
        "",
    ]
    return "\n".join(lines)


assert set(_FUSED) | set(_THEIRS) == set(TARGETS)
