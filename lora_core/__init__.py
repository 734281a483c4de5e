"""LoRA on a small GPT: inject, count, fine-tune, classify, look inside, take along.

Reading order: `lora` and `injection` (the method), `config` (every setting), `model` (the GPT),
`parameters` (counting), `base` (what is frozen), `tasks` and `batches` (text), `training` (the
loop), `events` (what it says) and `preparation` (what it needs), `classifier` (the answer),
`adapters` (in and out), `explain` (what an adapter did), `serving` (many visitors), `fast` (the
same arithmetic, faster). Nothing of that knows the page; the page is `lora_core.ui`.
"""

from lora_core.adapters.adapter import AdapterError, load_adapter, save_adapter
from lora_core.base.checkpoint import Base, BaseError, load_base
from lora_core.classifier import Classifier, ClassifyError, Prediction
from lora_core.config import (
    GPT2_CONFIGS,
    LINEAR_TARGETS,
    TARGETS,
    ConfigError,
    GPTConfig,
    LoRAConfig,
    TrainConfig,
)
from lora_core.errors import LabError
from lora_core.events import Diverged, Evaluated, Event, Finished, Started, Step, Watched
from lora_core.injection import (
    LoRAError,
    inject_lora,
    reinject_lora,
    remove_lora,
    replace_linear_with_lora,
)
from lora_core.lora import (
    EmbeddingWithLoRA,
    LinearWithLoRA,
    LoRAEmbedding,
    LoRALayer,
    merge_lora,
    unmerge_lora,
)
from lora_core.model import GPT
from lora_core.parameters import ParameterCount, count_parameters, predict_parameters
from lora_core.progress import progress
from lora_core.tasks.bundled import load_task
from lora_core.tasks.own_table import read_task
from lora_core.tasks.task import Task, TaskError
from lora_core.training import fine_tune

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "GPT2_CONFIGS",
    "LINEAR_TARGETS",
    "TARGETS",
    "AdapterError",
    "Base",
    "BaseError",
    "Classifier",
    "ClassifyError",
    "ConfigError",
    "Diverged",
    "EmbeddingWithLoRA",
    "Evaluated",
    "Event",
    "Finished",
    "GPTConfig",
    "LabError",
    "LinearWithLoRA",
    "LoRAConfig",
    "LoRAEmbedding",
    "LoRAError",
    "LoRALayer",
    "ParameterCount",
    "Prediction",
    "Started",
    "Step",
    "Task",
    "TaskError",
    "TrainConfig",
    "Watched",
    "count_parameters",
    "fine_tune",
    "inject_lora",
    "load_adapter",
    "load_base",
    "load_task",
    "merge_lora",
    "predict_parameters",
    "progress",
    "read_task",
    "reinject_lora",
    "remove_lora",
    "replace_linear_with_lora",
    "save_adapter",
    "unmerge_lora",
]
