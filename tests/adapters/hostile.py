"""Adapters from strangers with bad intentions or bad luck: made by hand, and by mutation."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path

import torch

import lora_core as lc
from lora_core.adapters.adapter import CONFIG_FILE, WEIGHTS_FILE, zip_adapter
from lora_core.base.tokenizer import load_encoding
from lora_core.lora import lora_layers


def small_base() -> lc.Base:
    """A base of random weights, small enough to load an adapter over it in milliseconds."""
    from lora_core.base.checkpoint import BUNDLED

    torch.manual_seed(0)
    encoding = load_encoding(BUNDLED / "tokenizer.tiktoken")
    model = lc.GPT(lc.GPTConfig(encoding.n_vocab, 32, 12, 1, 2), num_classes=None)
    model.requires_grad_(False).eval()
    return lc.Base("small", model, encoding, "small")


def small_adapter(base: lc.Base, path: Path, rank: int = 2) -> bytes:
    """A valid adapter's zip, written to `path`, as bytes."""
    generator = torch.Generator().manual_seed(0)
    model = base.classifier_model(2, generator)
    config = lc.LoRAConfig(rank)
    lc.inject_lora(model, config, generator)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            zeros = layer.lora.A if isinstance(layer, lc.EmbeddingWithLoRA) else layer.lora.B
            zeros.normal_(generator=generator)
        model.head.bias.normal_(generator=generator)
    classifier = lc.Classifier(
        model, base.tokenizer, ["no", "yes"], lora_config=config, train_config=lc.TrainConfig(),
        base_name=base.name, base_source=base.source, scores={"validation_accuracy": 0.5},
    )  # fmt: skip
    return zip_adapter(classifier, path).read_bytes()


def members(archive: bytes) -> dict[str, bytes]:
    """The files of a zip."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files, under exactly these names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return out.getvalue()


def safetensors(header: dict[str, object] | bytes, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


_VALUES: tuple[object, ...] = (
    None, True, -1, 0, 1e400, -1e-320, 10**60, "", "x" * 5000, [], [[]], {}, {"a": {"a": {}}},
    "NaN", float("nan"), [1, 2], {"c_attn": 3}, {"(.*)*$": 2}, "pissa", "../../etc/passwd",
)  # fmt: skip


def mutated(archive: bytes, chance: random.Random) -> bytes:
    """The archive with one to four random changes: to its bytes, to a member, or to what a member
    says."""
    kind = chance.randrange(4)
    if kind == 0:
        return _bytes(archive, chance)
    files = members(archive)
    if kind == 1:
        name = chance.choice(list(files))
        files[name] = _bytes(files[name], chance)
    elif kind == 2:
        config = json.loads(files[CONFIG_FILE])
        for _ in range(chance.randint(1, 4)):
            config[chance.choice([*config, "use_dora", "layer_replication"])] = chance.choice(
                _VALUES
            )
        files[CONFIG_FILE] = json.dumps(config).encode()
    else:
        files[WEIGHTS_FILE] = _header(files[WEIGHTS_FILE], chance)
    return zipped(files)


def _bytes(data: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made)) if made else 0
        match chance.randrange(5):
            case 0 if made:
                made[at] ^= 1 << chance.randrange(8)
            case 1 if made:
                made[at] = chance.choice((0, 0x7F, 0x80, 0xFF))
            case 2:
                made[at:at] = chance.randbytes(chance.randint(1, 40))
            case 3:
                del made[at : at + chance.randint(1, 200)]
            case _:
                del made[at:]
    return bytes(made)


def _header(data: bytes, chance: random.Random) -> bytes:
    """Change what the safetensors header says: names, kinds, shapes, offsets, facts."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(header))
        if name == "__metadata__":
            facts = json.loads(header[name].get("lora_lab", "{}"))
            if isinstance(facts, dict) and facts:
                key = chance.choice(list(facts))
                if isinstance(facts[key], dict) and facts[key] and chance.random() < 0.7:
                    facts[key][chance.choice(list(facts[key]))] = chance.choice(_VALUES)
                else:
                    facts[key] = chance.choice(_VALUES)
                header[name]["lora_lab"] = json.dumps(facts)
            continue
        entry = header[name]
        match chance.randrange(5):
            case 0:
                entry["shape"] = [chance.choice((0, 1, 7, 2**40)) for _ in range(2)]
            case 1:
                entry["dtype"] = chance.choice(("F16", "BF16", "F64", "I8", "BOOL", "F8_E4M3", "X"))
            case 2:
                entry["data_offsets"] = [chance.randrange(-9, 9000), chance.randrange(2**33)]
            case 3:
                header[chance.choice((name + "x", "\ud83d" * 3, "../a"))] = header.pop(name)
            case _:
                del header[name]
        if not header:
            break
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + size :]


def memory() -> int:
    """Bytes of the process that are in memory at most so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
