"""What a text was about is said at its end, at one token of its own.

    python -m lora_core.pretraining.ending --states DIR --texts FILE --corpus FILE --out DIR

A student that says its teacher's mean at every token (`student.py`) uses the same state for two
things: the next token lives on its large directions, what the text is about on what is left, and a
classifier of a few hundred steps finds large directions. Here the two part. Behind each text stands
one `<|endoftext|>`, as behind the padded texts of the book's chapter 6; the state *there* says the
teacher's mean, through no matrix but a fixed factor, so that each of its directions is one of the
teacher's and all count alike. At the other tokens the model is a language model; there the
teacher's state is a light aim (through a matrix that is thrown away), since the end reads them.

Killed, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from lora_core.base.checkpoint import BUNDLED, load_model
from lora_core.base.tokenizer import RANKS_FILE, load_encoding
from lora_core.model import GPT
from lora_core.pretraining.corpus import Windows, line_ends, prepare_tokens
from lora_core.pretraining.export import export
from lora_core.pretraining.framing import frame_tokenizer
from lora_core.pretraining.lessons import Lessons
from lora_core.pretraining.measure import read_validation
from lora_core.pretraining.network import Weights, hidden_states, use_compiler
from lora_core.pretraining.program import exit_status
from lora_core.pretraining.student import CHECKPOINT, Settings, Student, measure
from lora_core.pretraining.teach import States

CUT_SHARE = 0.25  # of the texts end earlier, where both tokenisers cut
SAID = 0.8  # root mean square of what the end says, of targets whose own is 1: as far as it knows


class EndingStudent(Student):
    """A student that says the teacher's mean at `<|endoftext|>`. Lessons with a reserve of one."""

    def __init__(self, *arguments: object, **named: object) -> None:
        """As `Student`."""
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        gain = self.model.final_norm.weight.detach().square().mean().sqrt()
        self.factor = SAID / float(gain)

    def _teacher(self, weights: Weights) -> dict[str, float]:
        settings = self.settings
        k = min(self.model.config.emb_dim, self.scales.shape[1])
        ids, ends, means, index, states = self.lessons.endings(
            self.progress.step, settings.seed, settings.batch_tokens, CUT_SHARE
        )
        hidden = hidden_states(weights, self.model.config, ids).flatten(0, 1)
        matrix, bias = self._working_aims()
        said = hidden[ends][:, :k].float() * self.factor + bias[0][:k]
        mean = (said - self._stressed(means * self.scales[0])[:, :k]).square().mean()
        light = hidden[index] @ matrix[1].t()
        targets = self._stressed(states * self.scales[1])
        state = (light.float() + bias[1] - targets).square().mean()
        self._backward(mean + settings.state * state, weights, matrix, bias)
        self.progress.tokens += int(ids.numel())
        return {"mean": mean.item(), "state": state.item()}

    def _stressed(self, targets: Tensor) -> Tensor:
        """Scaled targets (n, k), longer where `kinds` says so."""
        matrix = self.lessons.states.emphasis
        return targets if matrix is None else targets @ matrix

    def _next_tokens(self) -> tuple[Tensor, Tensor]:
        """Half of the windows begin with `<|endoftext|>`, where a text is begun from nothing."""
        tokens, targets = super()._next_tokens()
        tokens[::2, 0] = self.lessons.end
        return tokens, targets


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining.ending", description=__doc__.split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--states", type=Path, required=True, metavar="DIR", help="what `teach` wrote")
    add("--texts", type=Path, required=True, metavar="FILE", help="what it read")
    add("--corpus", nargs="+", type=Path, required=True, metavar="FILE", help="for the next token")
    add("--validation", type=Path, metavar="FILE", help="text to measure bits per byte on")
    add("--base", type=Path, default=BUNDLED, metavar="DIR", help="where the weights begin")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint and exported model")
    add("--tokens", type=float, required=True, help="of taught texts, repetitions counted")
    add("--decay", type=float, default=0.6, help="share with falling rate")
    add("--language-every", type=int, default=2, help="steps")
    add("--matrix-lr", type=float, default=0.006, help="Muon's peak")
    add("--other-lr", type=float, default=1.5e-3, help="AdamW's peak")
    add("--state", type=float, default=0.1, help="weight of the teacher's state within a text")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: learn(options), "The same command goes on from the last checkpoint.")


def learn(options: argparse.Namespace) -> None:
    """Read, train or go on training, export, measure."""
    folder = options.out / "tokenizer"
    frame_tokenizer(options.base, folder)
    encoding = load_encoding(folder / RANKS_FILE)
    start = load_model(options.base)
    model = GPT(start.config, num_classes=None)
    model.load_state_dict(start.state_dict())
    texts = options.texts.read_text(encoding="utf-8").split("\n")
    lessons = Lessons(States(options.states), texts, encoding, reserve=1)
    path = prepare_tokens(options.corpus, encoding, options.out, quiet=True)
    windows = Windows(path, model.config.context_length, options.seed, line_ends(encoding))
    settings = Settings(
        tokens=int(options.tokens),
        decay=options.decay,
        language_every=options.language_every,
        matrix_lr=options.matrix_lr,
        other_lr=options.other_lr,
        state=options.state,
        power=1.0,
        seed=options.seed,
    )
    use_compiler(True)
    student = EndingStudent(model, lessons, windows, settings)
    if (options.out / CHECKPOINT).is_file():
        student.resume(options.out)
    print(f"{len(lessons.ids):,} texts, {lessons.tokens:,} tokens", flush=True)
    student.run(options.out)
    export(student.model, folder, options.out / "model")
    if options.validation:
        value = measure(student.model, read_validation(options.validation, encoding))
        print(f"{value:.4f} bits per byte on {options.validation.name}")


if __name__ == "__main__":
    sys.exit(main())
