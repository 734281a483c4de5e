"""A classifier as one whole model in `transformers`' layout: no adapter beside it any more.

Merging folds each A·B into its W, so that the result costs nothing extra to run; but it is as large
as the base, and belongs to one task. Full fine-tuning can be saved in no other way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lora_core.adapters.archive import pack_folder
from lora_core.adapters.card import merged_card
from lora_core.adapters.head import head_of, norm_bias_for
from lora_core.base.checkpoint import base_folder
from lora_core.base.frame import frame_of
from lora_core.base.gpt2_names import CLASSIFIER_NAME, FINAL_NORM_NAME, TRUNK, gpt2_config, to_gpt2
from lora_core.base.tokenizer_files import JSON_FILE, TOKENIZER_FILES, VOCABULARY_FILE
from lora_core.classifier import Classifier
from lora_core.config import HEAD
from lora_core.lora import lora_layers
from lora_core.model import GPT


def save_merged(classifier: Classifier, folder: str | Path) -> Path:
    """Write the classifier as a folder for `GPT2ForSequenceClassification`. Returns `folder`.

    float32; the labels are in `config.json`, the tokenizer beside it where the base has it as a
    file. Works for LoRA, full fine-tuning and a head alone. Raises `AdapterError` where the head's
    bias cannot be expressed.
    """
    with classifier.at_strength(1.0) as model:
        tensors = merged_tensors(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(tensors, folder / "model.safetensors")
    config = json.dumps(_config(classifier), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    source = base_folder(classifier.base_source)
    for name in TOKENIZER_FILES:
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    has_tokenizer = any((folder / name).is_file() for name in (JSON_FILE, VOCABULARY_FILE))
    (folder / "README.md").write_text(merged_card(classifier, has_tokenizer), encoding="utf-8")
    return folder


def zip_merged(classifier: Classifier, path: str | Path) -> Path:
    """`save_merged` as one zip file. Returns `path`."""
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        return pack_folder(save_merged(classifier, folder), Path(path))


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises `OSError`, of a full disk, say: the library hides it in an error of its own."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


@torch.no_grad()
def merged_tensors(model: GPT) -> dict[str, Tensor]:
    """All weights under `transformers`' names, adapters folded in; `model` stays as it is."""
    state = {n: p.detach() for n, p in model.named_parameters()}
    for name, layer in lora_layers(model):
        if name != HEAD:
            state[f"{name}.weight"] = (layer.frozen_weight + layer.lora.delta()).detach()
            if layer.frozen_bias is not None:
                state[f"{name}.bias"] = layer.frozen_bias.detach()
    plain = GPT.without_weights(model.config)
    wanted = plain.state_dict()
    plain.load_state_dict({name: state[name] for name in wanted}, assign=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in to_gpt2(plain).items()}
    weight, bias = head_of(model)
    if bias.abs().max() > 0:
        tensors[f"{TRUNK}{FINAL_NORM_NAME}.bias"] = norm_bias_for(model, weight, bias)
    tensors[f"{CLASSIFIER_NAME}.weight"] = weight
    return tensors


def _config(classifier: Classifier) -> dict[str, Any]:
    labels = classifier.labels
    end = classifier.tokenizer.eot_token
    padding = frame_of(classifier.tokenizer).padding_beside(end)
    return gpt2_config(classifier.model.config, end, padding=padding) | {
        "architectures": ["GPT2ForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
