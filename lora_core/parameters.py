"""Counting parameters: of a model that exists, and of one that is only being thought about.

`predict_parameters` is arithmetic on the configuration, so that the page can follow a slider; a
property test holds it to `count_parameters` of the model really built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from lora_core.config import HEAD, ConfigError, GPTConfig, LoRAConfig, Method, is_target

BYTES_FP32 = 4


@dataclass(frozen=True)
class LayerCount:
    """Parameters of one layer."""

    trainable: int
    frozen: int


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model; `by_module` is keyed by the dotted name of the original layer."""

    trainable: int
    total: int
    by_module: dict[str, LayerCount] = field(repr=False)

    @property
    def percent(self) -> float:
        """Trainable share of the total, in percent."""
        return 100.0 * self.trainable / self.total if self.total else 0.0

    @property
    def frozen(self) -> int:
        """Parameters that training does not touch."""
        return self.total - self.trainable

    @property
    def trainable_bytes(self) -> int:
        """What is saved of a run, as float32."""
        return BYTES_FP32 * self.trainable

    @property
    def optimizer_bytes(self) -> int:
        """Gradient and AdamW's two moments, float32, of what is trained."""
        return 3 * BYTES_FP32 * self.trainable


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters of `model` as it is; shared tensors count once. Works on `meta`."""
    trainable: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        layer = _layer_of(name)
        trainable.setdefault(layer, 0)
        frozen.setdefault(layer, 0)
        (trainable if parameter.requires_grad else frozen)[layer] += parameter.numel()
    return _total({name: LayerCount(trainable[name], frozen[name]) for name in trainable})


def predict_parameters(
    gpt_config: GPTConfig,
    lora_config: LoRAConfig | None,
    num_classes: int,
    method: Method = "lora",
) -> ParameterCount:
    """What `count_parameters` will say once the model is built and injected, without building it.

    With `method` "full" or "head" nothing is injected and `lora_config` is not looked at. Raises
    `ConfigError` for a target that no layer of the model has.
    """
    layers = list(_layers(gpt_config, num_classes))
    if method == "full":
        return _total({name: LayerCount(sum(shape), 0) for name, _, shape in layers})
    if method == "head":
        lora_config = None
    elif lora_config is None:
        raise ConfigError("LoRA needs a LoRAConfig to be counted.")
    targets = lora_config.targets if lora_config else ()
    names = [name for name, dims, _ in layers if dims]
    for target in targets:
        if not any(is_target(name, target) for name in names):
            raise ConfigError(f"No layer of this model that can be adapted is called '{target}'.")
    counts: dict[str, LayerCount] = {}
    for name, dims, shape in layers:
        size = sum(shape)
        if name == HEAD:
            adapted = lora_config is not None and lora_config.head == "lora"
        else:
            adapted = bool(dims) and any(is_target(name, t) for t in targets)
        if adapted and lora_config is not None:
            counts[name] = LayerCount(lora_config.rank * sum(dims), size)
        elif name == HEAD:
            counts[name] = LayerCount(size, 0)
        else:
            counts[name] = LayerCount(0, size)
    return _total(counts)


def _layers(
    config: GPTConfig, num_classes: int
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(name, (in, out) if it can be adapted else (), sizes of its tensors) of every layer of a GPT.

    An embedding's input is its vocabulary: it is a linear layer that is given a one and zeros.
    """
    width, hidden = config.emb_dim, config.hidden_dim

    def linear(
        name: str, n_in: int, n_out: int, bias: bool = True
    ) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return name, (n_in, n_out), (n_in * n_out, n_out if bias else 0)

    def embedding(name: str, rows: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return name, (rows, width), (rows * width,)

    yield embedding("token_embedding", config.vocab_size)
    yield embedding("position_embedding", config.context_length)
    for i in range(config.n_layers):
        block = f"blocks.{i}."
        yield block + "norm1", (), (width, width)
        for name in ("query", "key", "value"):
            yield linear(block + "attention." + name, width, width, config.qkv_bias)
        yield linear(block + "attention.output", width, width)
        yield block + "norm2", (), (width, width)
        yield linear(block + "mlp.up", width, hidden)
        yield linear(block + "mlp.down", hidden, width)
    yield "final_norm", (), (width, width)
    yield linear(HEAD, width, num_classes)


def _layer_of(parameter_name: str) -> str:
    layer = parameter_name.rpartition(".")[0]
    for wrapper in (".lora", ".linear", ".embedding"):  # an adapted layer's halves are one layer
        layer = layer.removesuffix(wrapper)
    return layer


def _total(by_module: dict[str, LayerCount]) -> ParameterCount:
    trainable = sum(count.trainable for count in by_module.values())
    frozen = sum(count.frozen for count in by_module.values())
    return ParameterCount(trainable, trainable + frozen, by_module)
