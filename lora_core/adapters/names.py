"""The names in an adapter's file, whoever wrote it, as PEFT's `save_pretrained` would have them.

People also save `model.state_dict()` themselves. Then the adapter's own name is in every key
(`lora_A.default.weight`), the frozen base may be in the file as well, and so may a prefix that
`torch.compile` or `DataParallel` has left.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from lora_core.adapters.files import AdapterError, OtherBaseError, is_rounded, quoted
from lora_core.adapters.size import EMBEDDING_PAIR, LINEAR_PAIR, PREFIX
from lora_core.base.checkpoint import Base
from lora_core.base.gpt2_names import CLASSIFIER_NAME, FINAL_NORM_NAME, TRUNK, to_gpt2, trunk_name

_WRAPPERS = ("module.", "base_model.", "model.")  # of DataParallel, of PEFT, of others around it
_BARE = tuple(PREFIX + part for part in ("h.", "wte.", "wpe.", f"{FINAL_NORM_NAME}."))
_WITHIN = re.compile(
    r"^(?!transformer\.|h\.|score\.)(?:\w+\.)+?(transformer\.(?:h|wte|wpe|ln_f)\.|score\.)"
)
_NAMED = re.compile(r"\.(lora_A|lora_B)\.([^.]+)\.weight$")
_NAMED_EMBEDDING = re.compile(r"\.(lora_embedding_[AB])\.([^.]+)$")
_SAVED = re.compile(r"\.modules_to_save\.([^.]+)\.")


def plain_names(tensors: dict[str, Tensor], base: Base) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's own names; the base's, if they lie beside, are left out.

    Raises `AdapterError` for a file with several adapters, and `OtherBaseError` where the base's
    tensors in it are not those of `base`.
    """
    adapters: set[str] = set()
    plain: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".original_module." in name:  # the head before training
            continue
        bare = _plain_name(name, adapters)
        if len(adapters) > 1:
            named = " and ".join(quoted(adapter) for adapter in sorted(adapters))
            raise AdapterError(f"The file holds several adapters, {named}. Save one by itself.")
        theirs = bare.removeprefix(PREFIX).replace(".base_layer.", ".")
        ours = bare.endswith(_LORA_ENDS) or theirs.startswith(
            (f"{CLASSIFIER_NAME}.", f"{TRUNK}{FINAL_NORM_NAME}.")
        )
        target, key = (plain, bare) if ours else (frozen, theirs)
        if key in target:
            raise AdapterError(f"The file holds {quoted(key)} twice, under different names.")
        target[key] = tensor
    return plain | _not_the_bases(frozen, base) if frozen else plain


_LORA_ENDS = (*LINEAR_PAIR, *EMBEDDING_PAIR)


def _plain_name(name: str, adapters: set[str]) -> str:
    """One key; the adapter's name that stood in it is added to `adapters`."""
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module."):  # of the whole or of a part
        name = name.replace(wrapper, "")
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    if match := _WITHIN.search(name):  # of a class around the model
        name = name[match.start(1) :]
    name = PREFIX + name
    if name.startswith(_BARE):  # GPT2Model's own names, without a head around it
        name = PREFIX + TRUNK + name.removeprefix(PREFIX)
    for pattern, plain in ((_NAMED, r".\1.weight"), (_NAMED_EMBEDDING, r".\1")):
        if match := pattern.search(name):
            adapters.add(match[2])
            return pattern.sub(plain, name)
    if match := _SAVED.search(name):
        adapters.add(match[1])
        return _SAVED.sub(".", name)
    return name


def _not_the_bases(frozen: dict[str, Tensor], base: Base) -> dict[str, Tensor]:
    """Of tensors that are no LoRA, those which the base does not have, under PEFT's names."""
    own = to_gpt2(base.model)
    left: dict[str, Tensor] = {}
    for name, tensor in frozen.items():
        mine = own.get(name)
        if trunk_name(name) is None:
            continue  # a causal mask, or another head
        if mine is None:
            left[PREFIX + name] = tensor
            continue
        rows = tensor
        if name == f"{TRUNK}wte.weight" and tensor.ndim == 2:
            rows = tensor[: mine.shape[0]]  # a vocabulary that has grown: those tokens are not ours
        same = rows.shape == mine.shape and (
            torch.allclose(rows, mine, atol=1e-6, rtol=1e-3) or is_rounded(rows, mine)
        )
        if same:
            continue
        if name in (f"{TRUNK}wte.weight", f"{TRUNK}wpe.weight") and rows.shape == mine.shape:
            raise AdapterError(
                f"The file holds embeddings ({name}) that differ from those of '{base.name}': they "
                "were trained as well, or belong to another base. That is not LoRA alone."
            )
        raise OtherBaseError(
            f"The file holds {name}, which differs from that of '{base.name}': it was trained as "
            "well (modules_to_save), which is not LoRA alone, or belongs to another base."
        )
    return left
