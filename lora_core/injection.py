"""Which layers of a model get LoRA: by the ends of their names, or every `nn.Linear` as in the
book's appendix E. Needs torch and works on any `nn.Module`; knows no GPT."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Generator, nn

from lora_core.config import HEAD, LoRAConfig, Scaling, is_target
from lora_core.errors import LabError
from lora_core.lora import AdaptedLayer, EmbeddingWithLoRA, LinearWithLoRA, lora_layers


class LoRAError(LabError, ValueError):
    """A model that cannot be adapted as asked; the message says why."""


def inject_lora(model: nn.Module, config: LoRAConfig, generator: Generator | None = None) -> None:
    """Freeze `model`, adapt the layers that `config.targets` names, and open the head, in place.

    A target is the end of a module's dotted name ("query", "mlp.up", "token_embedding"): of an
    `nn.Linear` or an `nn.Embedding`. The module called `head`, if there is one, is trained in full
    (`config.head == "train"`, as PEFT does) or stays frozen with LoRA on it ("lora", as appendix E
    does). `generator` draws what starts random, and later the dropout masks. Raises `LoRAError`,
    before anything is changed, when the model has LoRA already or a target names no such layer.
    """
    _refuse_injected(model)
    layers: dict[str, nn.Linear | nn.Embedding] = dict(_linears(model))
    layers.update(_embeddings(model))
    adapted: set[str] = set()
    for target in config.targets:
        names = {name for name in layers if is_target(name, target)}
        if not names:
            known = ", ".join(sorted({n.rsplit(".", 1)[-1] for n in layers})) or "none"
            raise LoRAError(f"No layer to adapt is called '{target}'. Layers here: {known}.")
        adapted |= names
    head = getattr(model, HEAD, None)
    if config.head == "lora" and not isinstance(head, nn.Linear):
        raise LoRAError("This model has no linear head to put LoRA on; choose head='train'.")
    adapted -= {HEAD}
    if config.head == "lora":
        adapted.add(HEAD)
    model.requires_grad_(False)
    for name, layer in layers.items():  # a fixed order, so that a seed gives one adapter
        if name in adapted:
            _put(model, name, _wrapped(layer, config, generator).train(layer.training))
    if config.head == "train" and isinstance(head, nn.Module):
        head.requires_grad_(True)


def remove_lora(model: nn.Module) -> None:
    """Put the plain layers back, in place; nothing happens where there is no LoRA."""
    for name, layer in list(lora_layers(model)):
        layer.unmerge()
        _put(model, name, layer.inner)


def reinject_lora(model: nn.Module, config: LoRAConfig, generator: Generator | None = None) -> None:
    """Replace the adapter that is there, if any, by a new one: how the rank is changed."""
    remove_lora(model)
    inject_lora(model, config, generator)


def replace_linear_with_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    *,
    scaling: Scaling = "alpha/rank",
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> None:
    """Replace every `nn.Linear` below `model` by a `LinearWithLoRA`, in place, recursively.

    Freezes nothing by itself, as in the source: freeze the model before. Raises `LoRAError` when
    the model has LoRA already.
    """
    _refuse_injected(model)
    config = LoRAConfig(rank=rank, alpha=alpha, scaling=scaling, dropout=dropout)  # validates
    for name, linear in list(_linears(model)):
        _put(model, name, _wrapped(linear, config, generator))


def _refuse_injected(model: nn.Module) -> None:
    if next(lora_layers(model), None) is not None:
        raise LoRAError(
            "This model has LoRA already; adapters do not nest. Call remove_lora(model) first, "
            "or reinject_lora(model, config) to change the rank."
        )


def _wrapped(
    layer: nn.Linear | nn.Embedding, config: LoRAConfig, generator: Generator | None
) -> AdaptedLayer:
    rank, alpha, scaling = config.rank, config.alpha, config.scaling
    if isinstance(layer, nn.Embedding):
        return EmbeddingWithLoRA(layer, rank, alpha, scaling=scaling, generator=generator)
    return LinearWithLoRA(
        layer, rank, alpha, scaling=scaling, dropout=config.dropout, generator=generator
    )


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    if isinstance(model, nn.Linear):
        raise LoRAError("This is a single nn.Linear: wrap it with LinearWithLoRA(linear, ...).")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def _embeddings(model: nn.Module) -> Iterator[tuple[str, nn.Embedding]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            yield name, module


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
