"""Bases as strangers have them: other programs, other years, other folders."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, GPT2ForSequenceClassification, GPT2LMHeadModel

import lora_core as lc
from lora_core.adapters.adapter import zip_adapter
from lora_core.adapters.merged import save_merged
from lora_core.base.checkpoint import base_bytes, canonical_name
from lora_core.parameters import BYTES_FP32
from tests.cases.folders import VOCAB, tiny_folder

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], Tensors]


def states(folder: Path) -> Tensor:
    """What `transformers` computes with this folder: the last hidden states of a few ids."""
    ids = torch.arange(12)[None] * 31
    with torch.no_grad():
        return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(ids).last_hidden_state


def same_as_transformers(folder: Path, base: lc.Base) -> bool:
    theirs = states(folder) @ base.model.token_embedding.weight.T
    ids = torch.arange(12)[None] * 31
    return torch.allclose(base.model.language_logits(ids), theirs, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": None},
        {"model_type": None, "architectures": None},
        {"n_positions": None},
        {"n_positions": None, "n_ctx": None, "max_position_embeddings": 64},
        {"activation_function": "gelu_pytorch_tanh"},
        {"activation_function": "gelu_fast"},
        {"activation_function": None},
        {"n_inner": 96},
        {"layer_norm_epsilon": None},
        {"layer_norm_epsilon": "1e-5"},
        {"reorder_and_upcast_attn": True},
        {"architectures": ["GPT2DoubleHeadsModel"]},
        {"scale_attn_weights": None, "torch_dtype": None, "dtype": None},
        {"n_embd": None, "hidden_size": 24, "n_layer": None, "num_hidden_layers": 2},
        {"eos_token_id": 50256, "pad_token_id": -1},
    ],
)
def test_configurations_of_other_years_load(config, tmp_path) -> None:
    plain, _ = tiny_folder(tmp_path / "plain")
    other, _ = tiny_folder(tmp_path / "other", config=config)
    assert lc.load_base(other).digest() == lc.load_base(plain).digest()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": None, "architectures": ["BertModel"]}, "BertModel"),
        ({"model_type": None, "architectures": None, "n_embd": None}, "None"),
        ({"activation_function": "relu"}, "relu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"n_inner": 50}, "MLP"),
        ({"n_layer": 10**6}, "layers"),
        ({"n_layer": "two"}, "usable"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
    ],
)
def test_configurations_that_mean_something_else_are_a_sentence(config, words, tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x", config=config)
    with pytest.raises(lc.BaseError, match=words):
        lc.load_base(folder)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_configuration_that_an_editor_of_windows_wrote(mark, tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x")
    text = (folder / "config.json").read_text().replace("\n", "\r\n")
    coding = {3: "utf-8", 2: "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"}[len(mark)]
    (folder / "config.json").write_bytes(mark + text.encode(coding))
    lc.load_base(folder)


def _masks(kind: torch.dtype) -> Change:
    mask = torch.tril(torch.ones(64, 64)).to(kind)[None, None]
    more = {
        "transformer.h.0.attn.bias": mask,
        "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
    }
    return lambda tensors: tensors | more


def _renamed(change: Callable[[str], str]) -> Change:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


SAME_WEIGHTS: dict[str, Change] = {
    "uint8 masks": _masks(torch.uint8),
    "bool masks": _masks(torch.bool),
    "float masks": _masks(torch.float32),
    "no prefix": _renamed(lambda name: name.removeprefix("transformer.")),
    "compiled": _renamed(lambda name: "_orig_mod." + name),
    "compiled by layers": _renamed(lambda name: name.replace(".attn.", "._orig_mod.attn.")),
    "inside another model": _renamed(lambda name: "model." + name),
    "ddp": _renamed(lambda name: "module." + name),
    "both": _renamed(lambda name: "module._orig_mod." + name),
    "sharded data": _renamed(
        lambda name: "_fsdp_wrapped_module." + name.replace(".attn.", "._fsdp_wrapped_module.attn.")
    ),
    "a class of one's own": _renamed(lambda name: "net." + name),
    "one around another": _renamed(lambda name: "actor.gpt." + name.removeprefix("transformer.")),
    "a state inside a dictionary": _renamed(lambda name: "state_dict." + name),
    "a head of one's own class": lambda t: (
        {"net." + name: tensor for name, tensor in t.items()}
        | {"net.lm_head.weight": torch.ones(VOCAB, 24)}
    ),
    "a reward model": _renamed(lambda name: "pretrained_model." + name),
    "part of a network": _renamed(lambda name: name.replace("transformer.", "backbone.")),
    "tied head": lambda t: t | {"lm_head.weight": t["transformer.wte.weight"].clone()},
    "a head with its own weights": lambda t: t | {"lm_head.weight": torch.ones(VOCAB, 24)},
    "a classifier's head": lambda t: t | {"score.weight": torch.ones(3, 24)},
    "a reward head": lambda t: t | {"v_head.summary.weight": torch.ones(1, 24)},
    "float64": lambda t: {name: tensor.double() for name, tensor in t.items()},
}


@pytest.mark.parametrize("name", SAME_WEIGHTS)
def test_other_programs_files_are_the_same_base(name, tmp_path) -> None:
    folder, tensors = tiny_folder(tmp_path / "x")
    digest = lc.load_base(folder).digest()
    changed = SAME_WEIGHTS[name]({key: tensor.clone() for key, tensor in tensors.items()})
    save_file(changed, folder / "model.safetensors")
    assert lc.load_base(folder).digest() == digest


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_halves_load_as_transformers_loads_them(kind, tmp_path) -> None:
    folder, tensors = tiny_folder(tmp_path / "x")
    save_file(
        {n: t.to(kind) for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    assert same_as_transformers(folder, lc.load_base(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t | {"transformer.wte.weight": torch.ones(VOCAB, 24).to(torch.int8)}, "I8"),
        (lambda t: t | {"transformer.ln_f.bias": torch.full((24,), float("inf"))}, "infinite"),
        (lambda t: t | {"wte.weight": t["transformer.wte.weight"].clone()}, "twice"),
        (
            lambda t: t | {f"ref.{name}": tensor.clone() for name, tensor in t.items()},
            "twice, under different prefixes",
        ),
        (
            lambda t: (
                {n.replace("c_attn.", "c_attn.base_layer."): x for n, x in t.items()}
                | {"transformer.h.0.attn.c_attn.lora_A.default.weight": torch.ones(2, 24)}
            ),
            "merge_and_unload",
        ),
        (lambda t: t | {"transformer.h.0.crossattention.c_attn.weight": torch.ones(2)}, "cross"),
        (
            lambda t: {
                n: x.T.contiguous() if "c_" in n and x.ndim == 2 else x for n, x in t.items()
            },
            "nanoGPT",
        ),
    ],
)
def test_weights_that_cannot_be_right_are_a_sentence(change, words, tmp_path) -> None:
    folder, tensors = tiny_folder(tmp_path / "x")
    save_file(change({n: t.clone() for n, t in tensors.items()}), folder / "model.safetensors")
    with pytest.raises(lc.BaseError, match=words):
        lc.load_base(folder)


def test_a_classifier_s_checkpoint_is_a_base_without_its_head(tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x")
    model = GPT2ForSequenceClassification.from_pretrained(folder, num_labels=3)
    model.save_pretrained(tmp_path / "classifier")
    (tmp_path / "classifier" / "tokenizer.tiktoken").write_bytes(
        (folder / "tokenizer.tiktoken").read_bytes()
    )
    assert lc.load_base(tmp_path / "classifier").digest() == lc.load_base(folder).digest()


def test_shards_without_an_index_are_read_together(tmp_path) -> None:
    folder, tensors = tiny_folder(tmp_path / "x")
    digest = lc.load_base(folder).digest()
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for i, some in enumerate((names[:9], names[9:]), 1):
        save_file({n: tensors[n] for n in some}, folder / f"model-0000{i}-of-00002.safetensors")
    assert lc.load_base(folder).digest() == digest


def test_a_part_of_the_weights_that_is_missing_is_named(tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x")
    model = GPT2LMHeadModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(lc.BaseError, match=r"model-00001-of-00002.safetensors is missing"):
        lc.load_base(folder)


def test_a_folder_of_checkpoints_names_them(tmp_path) -> None:
    tiny_folder(tmp_path / "run" / "checkpoint-500")
    with pytest.raises(lc.BaseError, match=r"no model's folder.*checkpoint-500"):
        lc.load_base(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pytorch_model.bin", "pytorch_model.bin alone.*never opened.*safetensors"),
        ("pytorch_model-00001-of-00002.bin", "pickle"),
        ("epoch=3.ckpt", "pickle"),
        ("tf_model.h5", "tf_model.h5"),
        ("flax_model.msgpack", "flax_model"),
        ("model.gguf", "gguf"),
        ("model.safetensors", "git lfs pull"),
        (None, "no weights"),
    ],
)
def test_weights_in_another_form_are_a_sentence(file, words, tmp_path) -> None:
    folder, tensors = tiny_folder(tmp_path / "x")
    (folder / "model.safetensors").unlink()
    if file == "model.safetensors":
        (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    elif file:
        torch.save(tensors, folder / file)
    with pytest.raises(lc.BaseError, match=words):
        lc.load_base(folder)


@pytest.mark.parametrize("name", ["gpt2.safetensors", "model.fp16.safetensors"])
def test_weights_under_another_name_are_asked_about(name, tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(lc.BaseError, match=f"Is {name} meant. Call it model.safetensors"):
        lc.load_base(folder)


def test_what_is_named_instead_of_a_model_s_folder(tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "models--someone--gpt2" / "snapshots" / "abc")
    with pytest.raises(lc.BaseError, match=r"is a file\. Name the folder"):
        lc.load_base(folder / "model.safetensors")
    with pytest.raises(lc.BaseError, match="meant: snapshots/abc"):  # the Hub's own cache
        lc.load_base(tmp_path / "models--someone--gpt2")
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(lc.BaseError, match="It holds an adapter"):
        lc.load_base(folder)
    with pytest.raises(lc.BaseError, match="owner/name"):
        lc.load_base("distilgpt2")
    with pytest.raises(lc.BaseError, match="no base called ''"):
        lc.load_base("")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (" gpt2 ", "gpt2"),
        ("https://huggingface.co/openai-community/gpt2", "gpt2"),
        ("https://huggingface.co/gpt2/tree/main", "gpt2"),
        ("hf.co/someone/small-gpt/", "someone/small-gpt"),
        ("someone/small-gpt", "someone/small-gpt"),
        ("https://example.com/someone/small-gpt", "https://example.com/someone/small-gpt"),
    ],
)
def test_an_address_of_the_hub_is_the_model_s_name(written, name) -> None:
    assert canonical_name(written) == name


@pytest.fixture
def trained(tmp_path, words) -> lc.Classifier:
    folder, _ = tiny_folder(tmp_path / "base")
    settings = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    *_, last = lc.fine_tune(lc.load_base(folder), words, lc.LoRAConfig(rank=2), settings)
    return last.classifier


def test_our_own_whole_model_is_a_base_again(trained, tmp_path) -> None:
    save_merged(trained, tmp_path / "whole")
    base = lc.load_base(tmp_path / "whole")
    assert base.remark == "" and base.tokenizer.n_vocab == VOCAB
    assert same_as_transformers(tmp_path / "whole", base)


def test_folders_with_odd_names(tmp_path, monkeypatch) -> None:
    for name in ("my gpt-2 (копия) é", "gpt2", "a'b\"c", "50% of #1"):
        folder, _ = tiny_folder(tmp_path / name, width=8, layers=1)
        monkeypatch.chdir(tmp_path)
        for spelling in (folder, name, f"./{name}", f"{folder}/"):
            assert lc.load_base(spelling).name == name
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert lc.load_base("~/gpt2").name == "gpt2"
    (tmp_path / "gpt2" / "config.json").unlink()
    with pytest.raises(lc.BaseError, match="openai-community/gpt2"):  # a folder of another kind
        lc.load_base("gpt2")
    with pytest.raises(lc.BaseError, match="no base called"):
        lc.load_base("a\0b")


def test_a_base_s_bytes_are_known_before_its_weights(tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "x")
    base = lc.load_base(folder)
    (folder / "model.safetensors").unlink()
    assert base_bytes(folder) == BYTES_FP32 * lc.count_parameters(base.model).total
    assert base_bytes("bundled") == BYTES_FP32 * lc.count_parameters(lc.load_base().model).total


def test_one_base_has_one_name() -> None:
    assert canonical_name("openai-community/gpt2") == "gpt2"
    assert canonical_name("someone/gpt2") == "someone/gpt2"


def test_equal_adapters_are_equal_bytes(trained, tmp_path) -> None:
    """Also after a way out and in: nothing of the moment or of the process is in the file."""
    first = zip_adapter(trained, tmp_path / "1.zip").read_bytes()
    again = zip_adapter(trained, tmp_path / "2.zip").read_bytes()
    base = lc.load_base(tmp_path / "base")
    back = zip_adapter(lc.load_adapter(tmp_path / "1.zip", base), tmp_path / "3.zip").read_bytes()
    assert first == again == back
    lc.save_adapter(trained, tmp_path / "folder")
    header = (tmp_path / "folder" / "adapter_model.safetensors").read_bytes()[8:40]
    assert header.startswith(b'{"__metadata__":{"format":"pt","')
    assert len(load_file(tmp_path / "folder" / "adapter_model.safetensors")) > 10
