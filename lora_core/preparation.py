"""What a run needs before its first step: the model, the texts as numbers, the rates, the engine.

`training.py` is the loop; this file is what it loops over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lora_core.base.checkpoint import Base
from lora_core.batches import Batch, encode_text, sorted_batches, training_batches
from lora_core.classifier import Classifier, batched_logits
from lora_core.config import HEAD, ConfigError, LoRAConfig, Method, TrainConfig
from lora_core.cores import Cores
from lora_core.devices import Device, choose_device
from lora_core.events import Started
from lora_core.fast.engine import EngineSetup, make_engine
from lora_core.injection import inject_lora
from lora_core.lora import lora_layers
from lora_core.model import GPT
from lora_core.parameters import count_parameters
from lora_core.scores import Score
from lora_core.tasks.task import Example, Task

# Peak learning rates, from the recorded sweep (tests/benchmarks/defaults.md); LoRA's at most.
DEFAULT_LEARNING_RATES: dict[Method, float] = {"lora": 2e-3, "full": 5e-4, "head": 3e-2}
MOST_FOR_A_FASTER_HEAD = 2e-3  # how far many classes raise a head's rate
_STEADY = 24.0  # scale x rank up to which LoRA's rate holds; a guess, a little above 16


class Preparation:
    """The model over the frozen base, the batches, and the engine that computes.

    Every random number of a run comes from one generator, in this order: the head, every A, then,
    while the run goes on, the order of the batches and the dropout.
    """

    def __init__(
        self,
        base: Base,
        task: Task,
        lora_config: LoRAConfig,
        config: TrainConfig,
        watch_texts: Sequence[str],
        device: Device | None,
        between: Callable[[], None],
        cores: Cores | None = None,
    ) -> None:
        """`between` is called every now and then within a step and may raise.

        Raises `ConfigError` when the settings do not fit the base or the task.
        """
        if not task.train or not task.validation:
            raise ConfigError(f"The task '{task.name}' has no rows to train or to validate on.")
        self.base, self.task, self.lora_config, self.config = base, task, lora_config, config
        generator = torch.Generator().manual_seed(config.seed)
        self.model = build_model(base, len(task.labels), lora_config, config.method, generator)
        self._initial = {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and not name.endswith((".lora.A", ".lora.B"))
        }
        ids, labels = self._encode(task.train)
        sample = _train_sample(len(ids), config)
        self.train_sample = _in_batches([ids[i] for i in sample], [labels[i] for i in sample])
        self.validation = _in_batches(*self._encode(task.validation[: config.evaluation_rows]))
        self.batches = training_batches(ids, labels, config.batch_size, generator)
        self._watched = [self._token_ids(text) for text in watch_texts]
        self._parameters = count_parameters(self.model)
        self.peak = config.learning_rate or default_learning_rate(config.method, lora_config)
        head_peak = config.head_learning_rate or default_head_rate(
            self.peak, len(task.labels), base.config.emb_dim
        )
        device = device or choose_device()
        self.engine = make_engine(
            EngineSetup(self.model, config, device, between, head_peak / self.peak, cores)
        )

    def _token_ids(self, text: str) -> list[int]:
        return encode_text(self.base.tokenizer, text, self.base.config.context_length)

    def _encode(self, examples: Sequence[Example]) -> tuple[list[list[int]], list[int]]:
        ids = [self._token_ids(example.text) for example in examples]
        return ids, [example.label for example in examples]

    def resume(self, step: int, weights: Mapping[str, Tensor]) -> int:
        """Go on from the trained weights after `step` steps: the number of the next step, from 0.

        Raises `ConfigError` when they are not those of a run with these settings.
        """
        load_trained(self.model, weights)
        step = min(step, self.config.steps)
        for _ in range(step):
            next(self.batches)  # these texts were learnt from already
        return step

    def started(self) -> Started:
        """The first event."""
        return Started(
            steps=self.config.steps,
            batch_size=self.config.batch_size,
            learning_rate=self.peak,
            method=self.config.method,
            parameters=self._parameters,
            device=self.engine.device,
            train_rows=len(self.task.train),
            validation_rows=len(self.task.validation),
            epochs=self.config.steps * self.config.batch_size / len(self.task.train),
        )

    def watched_probabilities(self) -> tuple[tuple[float, ...], ...]:
        """One tuple (classes) a watched text; empty when there are none."""
        if not self._watched:
            return ()
        probabilities = F.softmax(batched_logits(self.model, self._watched), -1)
        return tuple(tuple(row) for row in probabilities.tolist())

    @torch.no_grad()
    def cool(self, temperature: float) -> float:
        """Divide the head by a temperature, if it was trained in full: the logits follow.

        A head with LoRA cannot be divided, it shares its frozen part with the untrained model.
        Returns what it was divided by.
        """
        if f"{HEAD}.weight" not in self._initial:
            return 1.0
        self.model.head.weight.div_(temperature)
        self.model.head.bias.div_(temperature)
        return temperature

    def classifier(self, score: Score, temperature: float = 1.0) -> Classifier:
        """The model as it is now, with its validation score, to be classified with."""
        return Classifier(
            self.model,
            self.base.tokenizer,
            self.task.labels,
            initial=self._initial,
            lora_config=self.lora_config if self.config.method == "lora" else None,
            train_config=self.config,
            base_name=self.base.name,
            base_source=self.base.source,
            task_name=self.task.name,
            scores={
                "validation_accuracy": score.accuracy,
                "validation_loss": score.loss,
                "temperature": temperature,
            },
        )


def build_model(
    base: Base, num_classes: int, lora_config: LoRAConfig, method: Method, generator: Generator
) -> GPT:
    """The model that a method trains; over the base's own tensors unless it trains them all."""
    model = base.classifier_model(num_classes, generator, share=method != "full")
    if method == "lora":
        inject_lora(model, lora_config, generator)
        for _, layer in lora_layers(model):
            layer.lora.generator = generator
    elif method == "head":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model.eval()


def trained_weights(model: GPT) -> dict[str, Tensor]:
    """Copies of the parameters that training changes, by their names."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trained(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Put `trained_weights` into a model of the same settings. Raises `ConfigError`."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    fits = trained.keys() == weights.keys()
    if not fits or any(trained[n].shape != tensor.shape for n, tensor in weights.items()):
        raise ConfigError("These weights are not those of a run with these settings.")
    for name, tensor in weights.items():
        trained[name].copy_(tensor)


def default_learning_rate(method: Method, lora_config: LoRAConfig) -> float:
    """The peak learning rate of a run that asks for none.

    A step of Adam moves every entry of B by about the rate, whatever the gradient's size, and the
    layer's output by about rate x scale x rank. With `alpha/rank` that does not contain the rank,
    so one rate serves them all (Schulman et al. 2025, *LoRA Without Regret*, find the same); with
    the other rules, or a large alpha, the rate falls so that the product stays within bounds: that
    part follows from the argument and was not swept.
    """
    rate = DEFAULT_LEARNING_RATES[method]
    if method != "lora":
        return rate
    return rate * min(1.0, _STEADY / (lora_config.scale * lora_config.rank))


def default_head_rate(rate: float, classes: int, emb_dim: int) -> float:
    """The peak learning rate of a head that is trained beside the rest, which learns at `rate`.

    The same up to ten classes; with more of them, of which a batch shows but a few, the head learns
    faster in proportion, at most five times as fast and never above LoRA's own rate, beyond which
    77 classes lost four points (measured with 2, 8, 10 and 77 classes on the bundled base;
    `tests/benchmarks/defaults.md`). A step of Adam moves a logit by up to rate x sum |features|, so
    with the width the factor falls again, to one at the least (Yang et al. 2022, *Tensor Programs
    V*, table 3): that part was not measured.
    """
    faster = rate * min(5.0, max(1.0, classes / 10 * 256 / emb_dim))
    return max(rate, min(faster, MOST_FOR_A_FASTER_HEAD))


def _in_batches(ids: Sequence[Sequence[int]], labels: Sequence[int]) -> list[Batch]:
    return list(sorted_batches(ids, labels, 64, max_tokens=1024))


def train_sample_rows(rows: int, config: TrainConfig) -> int:
    """How many of `rows` training texts are evaluated: an eighth as many as for validation."""
    return min(rows, max(1, config.evaluation_rows // 8))


def _train_sample(rows: int, config: TrainConfig) -> list[int]:
    """Which training rows are evaluated: a fixed sample."""
    size = train_sample_rows(rows, config)
    generator = torch.Generator().manual_seed(config.seed)
    return torch.randperm(rows, generator=generator)[:size].tolist()
