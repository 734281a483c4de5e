"""A larger model's states for a list of short texts, written down for a student to learn from.

    python -m lora_core.pretraining.teach --model DIR|FILE.gguf --texts reading.txt --out states

Reads a Llama-form model with `transformers` (an extra of pretraining, never of the app), cut off
after `--layers` layers: what later ones add serves the next token. Each text is read by itself,
behind one `<|endoftext|>`: the first position of a Llama collects attention whatever stands there
(its state is a hundred times as long as the others), so the text must not begin on it, and that
position is left out of every mean. Of each token's state the first `--components` principal
components of the texts' mean states are kept, in fp16; a mean of kept states is then the kept part
of the mean. Files, all appended to in the order of the list:

    basis.safetensors  mean (width,), components (width, k), deviations (k,) of the means and
                       state_deviations (k,)
    states.f16         (tokens, k): (state - mean) @ components
    ends.u16           (tokens,): where in its text each token ends, in UTF-8 bytes
    counts.u16         (texts,): tokens of each text, written last

Killed, the same command goes on after the last text in `counts.u16`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_core.pretraining import PretrainingError
from lora_core.pretraining.program import exit_status

LONGEST = 160  # tokens of a text
_TOKENS_AT_ONCE = 2048
_TEXTS_AT_ONCE = 1024  # sorted by length among themselves, then written in the list's order
_FOR_BASIS = 8192  # texts whose means give the components
_BASIS = "basis.safetensors"
_NOTES = "teacher.json"
EMPHASIS = "emphasis.safetensors"  # what `kinds` adds: matrix (k, k)


class Teacher:
    """A Llama-form model that reads texts; `transformers` does the arithmetic."""

    def __init__(self, path: Path, layers: int, dtype: torch.dtype) -> None:
        try:
            import transformers  # an extra of pretraining, never of the app
        except ImportError as error:
            raise PretrainingError(
                "A teacher is read with `transformers`: pip install transformers gguf."
            ) from error
        logging: Any = transformers.utils.logging  # its functions have no types
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        extra: dict[str, Any] = {}
        folder = path
        if path.suffix == ".gguf":
            folder = path.parent
            extra = {"gguf_file": path.name}
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **extra)
            if extra:
                extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
            model: Any = transformers.AutoModel.from_pretrained(folder, dtype=dtype, **extra)
        except (OSError, ValueError, ImportError) as error:
            raise PretrainingError(f"{path} cannot be read as a teacher: {error}") from error
        if model.config.model_type != "llama":
            raise PretrainingError(
                f"{path} is a model of type '{model.config.model_type}', not of Llama's form."
            )
        if not 0 < layers <= model.config.num_hidden_layers:
            raise PretrainingError(
                f"{path} has {model.config.num_hidden_layers} layers; --layers {layers} is not "
                "one of them."
            )
        model.layers = model.layers[:layers]
        model.config.num_hidden_layers = layers
        model.norm = torch.nn.Identity()  # its weights are for the last layer
        self.model = model.eval()
        self.width: int = model.config.hidden_size
        first = self.tokenizer.get_vocab().get("<|endoftext|>", model.config.bos_token_id)
        if not isinstance(first, int):
            raise PretrainingError(f"{path} has no token that begins a text.")
        self.first = first

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """(ids, byte at which each ends) of each text, at most `LONGEST` tokens."""
        pieces = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        out = []
        for text, ids, places in zip(
            texts, pieces["input_ids"], pieces["offset_mapping"], strict=True
        ):
            ends = [end for _, end in places[:LONGEST]]
            if not text.isascii():  # offsets count characters
                ends = [len(text[:end].encode()) for end in ends]
            out.append((list(ids[:LONGEST]), ends))
        return out

    @torch.inference_mode()
    def states(self, batch: Sequence[list[int]]) -> list[Tensor]:
        """(tokens, width) float32 of each text's ids; padding on the right is never seen."""
        length = 1 + max(map(len, batch))
        tokens = torch.full((len(batch), length), self.first)
        for row, ids in enumerate(batch):
            tokens[row, 1 : 1 + len(ids)] = torch.tensor(ids)
        states = self.model(tokens, use_cache=False).last_hidden_state
        return [states[row, 1 : 1 + len(ids)].float() for row, ids in enumerate(batch)]

    def read(self, texts: Sequence[str]) -> list[tuple[list[int], Tensor]]:
        """(ends, states) of each text; batches are of texts of about one length."""
        encoded = self.encode(texts)
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i][0]))
        out: dict[int, tuple[list[int], Tensor]] = {}
        start = 0
        while start < len(order):
            size = max(1, _TOKENS_AT_ONCE // (1 + len(encoded[order[start]][0])))
            group = order[start : start + size]
            longest = 1 + len(encoded[group[-1]][0])
            group = group[: max(1, _TOKENS_AT_ONCE // longest)]
            rows = self.states([encoded[i][0] for i in group])
            out |= {i: (encoded[i][1], row) for i, row in zip(group, rows, strict=True)}
            start += len(group)
        return [out[i] for i in range(len(texts))]


def find_basis(states: Sequence[Tensor], components: int) -> dict[str, Tensor]:
    """Centre, principal directions and deviations of the means of texts (tokens, width); and the
    deviations of their single states in these directions.
    """
    means = torch.stack([s.mean(0) for s in states])
    centre = means.mean(0)
    _, values, directions = torch.linalg.svd(means - centre, full_matrices=False)
    single = (torch.cat(list(states)) - centre) @ directions[:components].t()
    return {
        "mean": centre,
        "components": directions[:components].t().contiguous(),
        "deviations": values[:components] / len(means) ** 0.5,
        "state_deviations": single.std(0),
    }


def write_states(
    teacher: Teacher, texts: Sequence[str], out: Path, components: int, *, quiet: bool = False
) -> None:
    """Read `texts` and append to the files in `out`, from where they stop."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / _BASIS
    if not path.is_file():
        some = [s for _, s in teacher.read(texts[:_FOR_BASIS]) if len(s)]
        save_file(find_basis(some, components), path)
    basis = load_file(path)
    k = basis["components"].shape[1]
    counts = out / "counts.u16"
    done = np.fromfile(counts, np.uint16) if counts.is_file() else np.empty(0, np.uint16)
    tokens, begin = int(done.sum()), time.perf_counter()
    first = tokens
    with (
        (out / "states.f16").open("ab") as states,
        (out / "ends.u16").open("ab") as ends,
        counts.open("ab") as count,
    ):
        states.truncate(tokens * k * 2)  # what a killed run had begun
        ends.truncate(tokens * 2)
        for start in range(len(done), len(texts), _TEXTS_AT_ONCE):
            read = teacher.read(texts[start : start + _TEXTS_AT_ONCE])
            rows = torch.cat([s for _, s in read]) - basis["mean"]
            states.write((rows @ basis["components"]).half().numpy().tobytes())
            ends.write(np.array([e for line, _ in read for e in line], np.uint16).tobytes())
            states.flush()
            ends.flush()
            count.write(np.array([len(line) for line, _ in read], np.uint16).tobytes())
            count.flush()
            tokens += len(rows)
            if not quiet:
                speed = (tokens - first) / (time.perf_counter() - begin)
                print(f"{start + len(read):,} texts, {tokens:,} tokens, {speed:,.0f} a second")


class States:
    """What `write_states` has written so far, read through memory maps."""

    def __init__(self, folder: Path) -> None:
        try:
            self.basis = load_file(folder / _BASIS)
            self.counts: NDArray[np.int64] = np.fromfile(folder / "counts.u16", np.uint16).astype(
                np.int64
            )
            self.starts = np.concatenate([[0], np.cumsum(self.counts)])
            emphasis = folder / EMPHASIS
            self.emphasis = load_file(emphasis)["matrix"] if emphasis.is_file() else None
            k, tokens = self.basis["components"].shape[1], int(self.starts[-1])
            self.states: NDArray[np.float16] = np.memmap(
                folder / "states.f16", np.float16, "r", shape=(tokens, k)
            )
            self.ends: NDArray[np.uint16] = np.memmap(
                folder / "ends.u16", np.uint16, "r", shape=(tokens,)
            )
        except (OSError, ValueError, KeyError) as error:
            raise PretrainingError(f"{folder} holds no teacher's states: {error}.") from error

    def __len__(self) -> int:
        return len(self.counts)

    def ends_of(self, index: int) -> NDArray[np.uint16]:
        """(tokens,): the byte of text `index` at which each of the teacher's tokens ends."""
        return self.ends[int(self.starts[index]) : int(self.starts[index + 1])]

    def states_of(self, index: int) -> NDArray[np.float32]:
        """(tokens, k) of text `index`."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.states[part].astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining.teach", description=__doc__.split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR|GGUF", help="a Llama-form model")
    add("--texts", type=Path, required=True, metavar="FILE", help="one text a line")
    add("--out", type=Path, required=True, metavar="DIR", help="where the states go")
    add("--layers", type=int, default=18, help="of the teacher (18)")
    add("--components", type=int, default=256, help="kept of each state (256)")
    add("--limit", type=int, help="texts at most")
    add("--float32", action="store_true", help="where bfloat16 is slow")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)

    def read() -> None:
        texts = options.texts.read_text(encoding="utf-8").splitlines()[: options.limit]
        dtype = torch.float32 if options.float32 else torch.bfloat16
        teacher = Teacher(options.model, options.layers, dtype)
        options.out.mkdir(parents=True, exist_ok=True)
        notes = {"model": options.model.name, "layers": options.layers, "width": teacher.width}
        (options.out / _NOTES).write_text(json.dumps(notes) + "\n", encoding="utf-8")
        write_states(teacher, texts, options.out, options.components)

    return exit_status(read, "The same command goes on after the last text.")


if __name__ == "__main__":
    sys.exit(main())
