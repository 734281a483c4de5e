"""`python -m lora_core.pretraining --corpus FILE... --out DIR`: train a base, or go on training it.

Started again with the same `--out` it goes on from the last checkpoint, exactly. On several GPUs:
`torchrun --nproc-per-node 4 -m lora_core.pretraining ...`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from lora_core.base.tokenizer import load_encoding
from lora_core.config import GPTConfig
from lora_core.devices import Device, choose_device
from lora_core.model import GPT
from lora_core.pretraining import PretrainingError
from lora_core.pretraining.corpus import Windows, line_ends, prepare_tokens
from lora_core.pretraining.export import export
from lora_core.pretraining.measure import Validation, read_validation
from lora_core.pretraining.network import use_compiler
from lora_core.pretraining.program import exit_status
from lora_core.pretraining.trainer import CHECKPOINT, Group, Settings, Trainer

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "base"


def build_parser() -> argparse.ArgumentParser:
    """All flags; the card of the bundled base says with which it was made."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining", description=__doc__.split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--corpus", nargs="+", type=Path, required=True, metavar="FILE", help="text; .xz, .gz too")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoints, log, exported model")
    add("--validation", type=Path, metavar="FILE", help="text to measure bits per byte on")
    add("--tokenizer", type=Path, default=BUNDLED, metavar="DIR", help="has tokenizer.tiktoken")
    add("--tokens", type=float, default=52.3e6, help="to train on, repetitions counted (52.3e6)")
    add("--context", type=int, default=256, help="tokens the model sees at once (256)")
    add("--width", type=int, default=256, help="of the residual stream (256)")
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=4)
    recipe = {f.name: f.default for f in fields(Settings)}
    add("--batch-tokens", type=int, default=recipe["batch_tokens"], help="a step (%(default)s)")
    add("--micro-rows", type=int, default=recipe["micro_rows"], help="at once (%(default)s)")
    add("--matrix-lr", type=float, default=recipe["matrix_lr"], help="Muon's peak (%(default)s)")
    add("--other-lr", type=float, default=recipe["other_lr"], help="AdamW's peak (%(default)s)")
    add("--matrix-rule", choices=("muon", "adamw"), default="muon", help="for the matrices")
    add("--weight-decay", type=float, default=recipe["weight_decay"], help="of the matrices")
    add("--decay", type=float, default=recipe["decay"], help="share of the run with falling rate")
    add("--summary", type=float, default=recipe["summary"], help="second aim's share (%(default)s)")
    add("--ahead", type=float, default=recipe["ahead"], help="the same for what follows (0)")
    add("--at-line-ends", action="store_true", help="where the second aim asks first")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    add("--no-compile", action="store_true", help="do not fuse elementwise steps with a compiler")
    add("--save-seconds", type=float, default=180.0, help="between checkpoints (180)")
    add("--evaluate-every", type=int, default=500, help="steps (500)")
    add("--stop-at", type=int, metavar="STEP", help="pause there; started again, it goes on")
    add("--export-mean", action="store_true", help="only export the checkpoint's mean weights")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status. What a person can mend ends in a sentence, not a traceback."""
    options = build_parser().parse_args(arguments)
    return exit_status(
        lambda: with_group(options), "The same command goes on from the last checkpoint."
    )


def with_group(options: argparse.Namespace) -> None:
    """Join the other processes, if `torchrun` started several, and leave them in the end."""
    group = Group(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    device = pick_device(int(os.environ.get("LOCAL_RANK", "0")))
    if options.threads:
        torch.set_num_threads(options.threads)
    if group.world > 1:
        backend = "nccl" if device.device.type == "cuda" else "gloo"
        # The others wait while the first one encodes: a large corpus takes longer than NCCL's own
        # patience of ten minutes.
        dist.init_process_group(backend, timeout=timedelta(hours=6))
    try:
        pretrain(options, device, group)
    finally:
        if group.world > 1:
            dist.destroy_process_group()


def pick_device(local_rank: int) -> Device:
    """The machine's device and number format; on CUDA this process's own GPU."""
    device = choose_device()
    if device.device.type != "cuda":
        return device
    torch.cuda.set_device(local_rank)
    torch.backends.cuda.matmul.allow_tf32 = True
    return Device(torch.device("cuda", local_rank), device.dtype, device.reason)


def pretrain(options: argparse.Namespace, device: Device, group: Group) -> None:
    """Encode, train or go on training, measure, export."""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PretrainingError(f"{options.out} cannot be made: {error.strerror}.") from error
    encoding = load_encoding(options.tokenizer / "tokenizer.tiktoken")
    settings = make_settings(options, encoding.n_vocab)
    validation = read_validation(options.validation, encoding) if options.validation else None
    quiet = options.quiet or not group.first
    if not group.first:
        dist.barrier()  # the first process encodes, the others find it done
    path = prepare_tokens(options.corpus, encoding, options.out, quiet=quiet)
    if group.first and group.world > 1:
        dist.barrier()
    windows = Windows(path, options.context, options.seed, line_ends(encoding))
    compiled = use_compiler(not options.no_compile)
    trainer = Trainer(settings, windows, device, group)
    checkpoint = options.out / CHECKPOINT
    if checkpoint.is_file():
        trainer.resume(checkpoint)
    say: Callable[[str], None] = (lambda _: None) if quiet else print
    say(f"{device.device}, {device.format}: {device.reason}")
    say(f"{'fused' if compiled else 'plain'} elementwise kernels, {group.world} process(es)")
    parameters = sum(p.numel() for p in trainer.model.parameters())
    say(f"{parameters:,} parameters; {len(windows.tokens):,} tokens of text")
    say(f"{settings.steps:,} steps of {settings.tokens_a_step:,} tokens")
    model = trainer.model
    if options.export_mean:
        model = trainer.averaged()
    else:
        trainer.run(
            options.out,
            validation,
            save_seconds=options.save_seconds,
            evaluate_every=options.evaluate_every,
            stop_at=options.stop_at,
            quiet=quiet,
        )
    if group.first:
        report(trainer, model, validation, options, say)


def report(
    trainer: Trainer,
    model: GPT,
    validation: Validation | None,
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> None:
    """Export the model, and write what can be said about the run into `run.json`."""
    files = export(model, options.tokenizer, options.out / "model")
    facts: dict[str, object] = {
        "tokens": trainer.progress.step * trainer.settings.tokens_a_step,
        "steps": trainer.progress.step,
        "training_seconds": round(trainer.progress.seconds, 1),
        "train_loss": trainer.progress.loss,
        "summary_loss": trainer.progress.summary_loss,
        "ahead_loss": trainer.progress.ahead_loss,
        "device": str(trainer.device.device),
        "format": trainer.device.format,
        "log": trainer.progress.log,
    }
    if validation:
        stride = trainer.settings.model.context_length // 2
        facts["bits_per_byte"] = value = trainer.measure(model, validation, stride)
        say(f"{value:.4f} bits per byte on {options.validation}")
    try:
        (options.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PretrainingError(f"{options.out / 'run.json'} cannot be written: {error}.") from error
    say(f"{len(files)} files in {options.out / 'model'}")


def make_settings(options: argparse.Namespace, vocabulary: int) -> Settings:
    """Flags to settings, checked."""
    if options.tokens < 1 or options.batch_tokens < options.context:
        raise PretrainingError(
            "--tokens must be positive, and --batch-tokens at least one window (--context)."
        )
    return Settings(
        GPTConfig(vocabulary, options.context, options.width, options.layers, options.heads),
        tokens=int(options.tokens),
        batch_tokens=options.batch_tokens,
        micro_rows=max(1, options.micro_rows),
        matrix_lr=options.matrix_lr,
        other_lr=options.other_lr,
        matrix_rule=options.matrix_rule,
        weight_decay=options.weight_decay,
        decay=options.decay,
        summary=options.summary,
        ahead=options.ahead,
        at_line_ends=options.at_line_ends,
        seed=options.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
