"""The classification head on its way into PEFT's format and out of it.

It travels as PEFT's `modules_to_save`. `transformers`' head has no bias: ours goes into the bias of
the final LayerNorm, whose output the head reads (W (h + d) = W h + b for W d = b).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_core.adapters.files import AdapterError, OtherBaseError, is_rounded, pack, unpack
from lora_core.adapters.size import PREFIX
from lora_core.base.checkpoint import Base
from lora_core.base.gpt2_names import CLASSIFIER_NAME, FINAL_NORM_NAME, TRUNK
from lora_core.config import MAX_CLASSES, ConfigError, LoRAConfig
from lora_core.lora import LinearWithLoRA
from lora_core.model import GPT

# Of scale * |A| * |B| of a layer, and of a number of the head: trained ones stay below a thousand,
# and beyond this the squares inside a LayerNorm leave the range of float32.
LARGEST = 1e6


def head_of(model: GPT) -> tuple[Tensor, Tensor]:
    """(classes, emb) weight and (classes,) bias as they act, LoRA on the head folded in; copies."""
    head: nn.Module = model.head
    if isinstance(head, LinearWithLoRA):
        weight = head.linear.weight if head.merged else head.linear.weight + head.lora.delta()
        bias = head.linear.bias
    else:
        assert isinstance(head, nn.Linear)
        weight, bias = head.weight, head.bias
    return weight.detach().clone().contiguous(), bias.detach().clone()


def norm_bias_for(model: GPT, weight: Tensor, bias: Tensor) -> Tensor:
    """The final LayerNorm's bias (emb,) with which a head without bias answers as one with it.

    The smallest shift d with W d = b. Raises `AdapterError` where there is none: rows of the head
    that are the same, or nearly, cannot have different biases.
    """
    shift = torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution
    norm_bias = (model.final_norm.bias.double() + shift[:, 0]).float().detach()
    reached = weight.double() @ (norm_bias.double() - model.final_norm.bias.double())
    if not (reached - bias.double()).abs().max() <= 1e-6 * max(1.0, float(bias.abs().max())):
        raise AdapterError(
            "The head has a bias, and PEFT's format has no place for it: `transformers` gives the "
            "head none, and for these weights no other tensor can hold it."
        )
    return norm_bias


def head_facts(model: GPT) -> dict[str, str]:
    """The head as it was trained, exactly: what `to_peft` folds away."""
    head: nn.Module = model.head
    if isinstance(head, LinearWithLoRA):
        tensors = {
            "weight": head.frozen_weight,
            "bias": head.linear.bias,
            "A": head.lora.A,
            "B": head.lora.B,
        }
    else:
        tensors = {"bias": head.bias}  # type: ignore[dict-item]
    return {name: pack(tensor) for name, tensor in tensors.items()}


def head_classes(tensors: Mapping[str, Tensor], base: Base, task: object = None) -> int:
    """How many classes the head of a file has. Raises `AdapterError` if there is none.

    `task`: what PEFT's configuration says that it was trained for.
    """
    weight = tensors.get(f"{PREFIX}{CLASSIFIER_NAME}.weight")
    if weight is None and task not in (None, "SEQ_CLS"):
        raise AdapterError(
            f"This adapter was trained for another task ({str(task)[:30]}), not to classify texts "
            "(SEQ_CLS): it has no head with classes."
        )
    if weight is None:
        raise AdapterError(
            "The classification head (score.weight) is missing: without it there are no classes. "
            "Save it with modules_to_save=['score']."
        )
    width = base.config.emb_dim
    if weight.ndim == 2 and weight.shape[1] != width:
        raise OtherBaseError(
            f"The head's weight is {tuple(weight.shape)}; the base '{base.name}' has a width of "
            f"{width}."
        )
    if weight.ndim != 2 or not 2 <= weight.shape[0] <= MAX_CLASSES:
        raise AdapterError(
            f"The head's weight is {tuple(weight.shape)}; two to {MAX_CLASSES} classes by {width} "
            "are needed."
        )
    return int(weight.shape[0])


def set_head(model: GPT, left: dict[str, Tensor], facts: Mapping[str, Any], base: Base) -> None:
    """Take the head and what stands for its bias out of `left`, and put it into the model."""
    width, norm = base.config.emb_dim, base.model.final_norm
    weight = left.pop(f"{PREFIX}{CLASSIFIER_NAME}.weight")
    classes = weight.shape[0]
    bias = torch.zeros(classes)
    if (own_bias := left.pop(f"{PREFIX}{CLASSIFIER_NAME}.bias", None)) is not None:
        bias = _shaped("score.bias", own_bias, (classes,))
    norm_weight = left.pop(f"{PREFIX}{TRUNK}{FINAL_NORM_NAME}.weight", None)
    norm_bias = left.pop(f"{PREFIX}{TRUNK}{FINAL_NORM_NAME}.bias", None)
    if norm_weight is not None and not is_rounded(norm_weight, norm.weight):
        raise AdapterError("The final LayerNorm (ln_f) was trained as well; that is not LoRA.")
    if norm_bias is not None:
        shift = _shaped("ln_f.bias", norm_bias, (width,)) - norm.bias
        bias = bias + weight @ shift
    if not max(float(weight.abs().max()), float(bias.abs().max())) <= LARGEST:
        raise AdapterError("The head's numbers are so large that answers would overflow.")
    head_facts = facts.get("head")
    head_facts = head_facts if isinstance(head_facts, dict) else {}
    exact = unpack(head_facts.get("bias"), (classes,))
    if exact is not None and torch.allclose(exact, bias, atol=1e-5, rtol=1e-5):
        bias = exact
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    lora = facts.get("lora")
    if isinstance(lora, dict) and lora.get("head") == "lora":
        _unfold(model, weight, head_facts, lora)


def _unfold(
    model: GPT, weight: Tensor, head_facts: Mapping[str, Any], lora: Mapping[str, Any]
) -> None:
    """Put the frozen random head with LoRA on it back, if the facts give the head that is there."""
    frozen = unpack(head_facts.get("weight"), tuple(weight.shape))
    try:
        config = LoRAConfig(rank=lora["rank"], alpha=lora["alpha"], scaling=lora["scaling"])
    except (ConfigError, KeyError, TypeError, OverflowError):
        return
    a = unpack(head_facts.get("A"), (weight.shape[1], config.rank))
    b = unpack(head_facts.get("B"), (config.rank, weight.shape[0]))
    if frozen is None or a is None or b is None:
        return
    head = model.head
    assert isinstance(head, nn.Linear)
    wrapped = LinearWithLoRA(head, config.rank, config.alpha, scaling=config.scaling)
    with torch.no_grad():
        wrapped.lora.A.copy_(a)
        wrapped.lora.B.copy_(b)
        if torch.allclose(frozen + wrapped.lora.delta(), weight, atol=1e-5, rtol=1e-5):
            head.weight.copy_(frozen)
            model.head = wrapped.eval()  # type: ignore[assignment]


def _shaped(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise AdapterError(f"The tensor {name} is {tuple(tensor.shape)} instead of {shape}.")
    return tensor
