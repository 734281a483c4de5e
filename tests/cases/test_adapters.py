"""Adapters as strangers save them, made by `peft` itself; the judge is `peft`'s own answer."""

from __future__ import annotations

import codecs
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2ForSequenceClassification, GPT2Model

import lora_core as lc
from lora_core.adapters.files import CONFIG_FILE, WEIGHTS_FILE, OtherBaseError
from lora_core.classifier import batched_logits
from tests.cases.folders import VOCAB, tiny_folder

IDS = torch.randint(0, 8000, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("srv") / "gpt2-tiny")[0]


@pytest.fixture(scope="module")
def base(folder) -> lc.Base:
    return lc.load_base(folder)


def trained(
    folder: Path, *, name: str = "default", grown: int = 0, **config: object
) -> tuple[peft.PeftModel, Tensor]:
    """An adapter that `peft` has trained, and its logits for `IDS`."""
    torch.manual_seed(0)
    plain = GPT2ForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    if grown:
        plain.resize_token_embeddings(VOCAB + grown)
        plain.config.pad_token_id = VOCAB
    settings = {
        "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8, "fan_in_fan_out": True,
        "target_modules": ["c_attn", "c_proj", "c_fc"], **config,
    }  # fmt: skip
    model = peft.get_peft_model(plain, peft.LoraConfig(**settings), adapter_name=name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        logits = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        F.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        return model, model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def same(adapter: Path, base: lc.Base, logits: Tensor) -> lc.Classifier:
    classifier = lc.load_adapter(adapter, base)
    ours = batched_logits(classifier.model, IDS.tolist())
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=0)
    return classifier


def change_config(adapter: Path, **change: object) -> None:
    path = adapter / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


Names = Callable[[str], str]
STATES: dict[str, tuple[Callable[[str], bool], Names]] = {
    "LoRA and head": (lambda n: "lora_" in n or "modules_to_save" in n, lambda n: n),
    "the whole model": (lambda n: True, lambda n: n),
    "compiled": (lambda n: "lora_" in n or "modules_to_save" in n, lambda n: f"_orig_mod.{n}"),
    "compiled by layers": (
        lambda n: "lora_" in n or "modules_to_save" in n,
        lambda n: n.replace(".attn.", "._orig_mod.attn.").replace("score.", "_orig_mod.score."),
    ),
    "wrapped twice": (
        lambda n: "lora_" in n or "modules_to_save" in n,
        lambda n: f"model.base_model.model.{n}",
    ),
    "sharded data": (
        lambda n: "lora_" in n or "score" in n,
        lambda n: "_fsdp_wrapped_module." + n.replace(".attn.", "._fsdp_wrapped_module.attn."),
    ),
    "ddp": (lambda n: "lora_" in n or "score" in n, lambda n: f"module.{n}"),
    "inside a class of one's own": (
        lambda n: "lora_" in n or "score" in n,
        lambda n: f"net.{n}",
    ),
    "a state inside a dictionary": (
        lambda n: "lora_" in n or "score" in n,
        lambda n: f"state_dict.policy.{n}",
    ),
    "without a prefix": (
        lambda n: "lora_" in n or "modules_to_save" in n,
        lambda n: n.removeprefix("base_model.model."),
    ),
}


@pytest.mark.parametrize("targets", [["c_attn", "c_fc"], ["wte", "c_attn", "c_proj"]])
@pytest.mark.parametrize("name", ["default", "mails"])
@pytest.mark.parametrize("state", STATES)
def test_a_state_that_was_saved_by_hand(state, name, targets, folder, base, tmp_path) -> None:
    """The adapter's name is still in the keys; the base may lie beside it."""
    model, logits = trained(folder, name=name, target_modules=targets)
    model.save_pretrained(tmp_path)
    where = tmp_path if name == "default" else tmp_path / name
    chosen, renamed = STATES[state]
    tensors = {
        renamed(key): tensor.clone().contiguous()
        for key, tensor in model.state_dict().items()
        if chosen(key)
    }
    save_file(tensors, where / WEIGHTS_FILE)
    same(where, base, logits)


def test_the_base_that_lies_beside_must_be_this_one(folder, base, tmp_path) -> None:
    model, _ = trained(folder)
    model.save_pretrained(tmp_path)
    tensors = {n: t.clone().contiguous() for n, t in model.state_dict().items()}
    tensors["base_model.model.transformer.h.1.ln_2.weight"] += 0.5
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(OtherBaseError, match=r"h\.1\.ln_2\.weight"):
        lc.load_adapter(tmp_path, base)


def test_two_adapters_in_one_file_are_a_sentence(folder, base, tmp_path) -> None:
    model, _ = trained(folder)
    model.save_pretrained(tmp_path)
    model.add_adapter("second", model.peft_config["default"])
    tensors = {n: t.clone().contiguous() for n, t in model.state_dict().items() if "lora_" in n}
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(lc.AdapterError, match=r"several adapters.*default.*second"):
        lc.load_adapter(tmp_path, base)


@pytest.mark.parametrize(
    ("named", "doubt"),
    [
        ("/home/someone/models/gpt2-tiny", False),
        ("models/gpt2-tiny", False),
        ("./gpt2-tiny/", False),
        ("C:\\models\\gpt2-tiny", False),
        ("gpt2-tiny", False),
        (None, False),
        ("", False),
        ("checkpoints/run7", True),
        ("gpt2", True),
        ("openai-community/gpt2", True),
        ("../gpt2-medium", True),
    ],
)
def test_the_tensors_decide_which_base_it_is(named, doubt, folder, base, tmp_path) -> None:
    model, logits = trained(folder)
    model.save_pretrained(tmp_path)
    change_config(tmp_path, base_model_name_or_path=named)
    remark = same(tmp_path, base, logits).remark
    assert (f"{named}" in remark.replace("\\\\", "\\")) if doubt else remark == ""


def test_a_base_of_our_own_under_any_name(folder, base, words, tmp_path) -> None:
    """Ours carries the digest of the weights: another folder may hold the same base."""
    settings = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    *_, last = lc.fine_tune(base, words, lc.LoRAConfig(rank=2), settings)
    lc.save_adapter(last.classifier, tmp_path / "adapter")
    change_config(tmp_path / "adapter", base_model_name_or_path="openai-community/gpt2-xl")
    moved, tensors = tiny_folder(tmp_path / "elsewhere" / "renamed")
    assert lc.load_adapter(tmp_path / "adapter", lc.load_base(moved)).remark == ""
    tensors["transformer.ln_f.bias"] += 1e-3
    save_file(tensors, moved / "model.safetensors")
    with pytest.raises(OtherBaseError, match="another base"):
        lc.load_adapter(tmp_path / "adapter", lc.load_base(moved))


@pytest.mark.parametrize(
    "patterns",
    [
        {"rank_pattern": {"h.0.attn.c_attn": 8, r"h\.1\..*c_fc": 2}},
        {"alpha_pattern": {r".*mlp\.c_(fc|proj)": 32}},
        {
            "rank_pattern": {"^transformer.h.0.attn.c_attn": 2},
            "alpha_pattern": {"^transformer.h.0.attn.c_attn": 5},
        },
        {"alpha_pattern": {r"h\.[0]\.attn\.c_attn$": 3, r"1\.\w+\.c_attn": 9}},
        {"alpha_pattern": {r"(?:mlp|attn)\.c_proj": 7.5}, "use_rslora": True},
        {"rank_pattern": {r"\d+\.mlp\.c_fc": 1}, "alpha_pattern": {"fc": 50}},
        {"rank_pattern": {r"(?=h)h\.0\.mlp\.c_fc": 2}},  # RE2 has no look-ahead: the tensor says it
    ],
)  # fmt: skip
def test_patterns_as_peft_documents_them(patterns, folder, base, tmp_path) -> None:
    model, logits = trained(folder, **patterns)
    model.save_pretrained(tmp_path)
    same(tmp_path, base, logits)


def test_an_expression_that_means_to_take_for_ever_does_not(folder, base, tmp_path) -> None:
    model, logits = trained(folder)
    model.save_pretrained(tmp_path)
    evil = {r"(([a-z0-9._]+)+)+!": 4}
    change_config(tmp_path, rank_pattern=evil, alpha_pattern=evil)
    same(tmp_path, base, logits)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_a_configuration_that_an_editor_of_windows_wrote(mark, folder, base, tmp_path) -> None:
    model, logits = trained(folder)
    model.save_pretrained(tmp_path)
    path = tmp_path / CONFIG_FILE
    text = path.read_text().replace("\n", "\r\n")
    path.write_bytes(mark + text.encode("utf-8" if len(mark) == 3 else "utf-16-le"))
    same(tmp_path, base, logits)


def test_a_named_adapter_lies_in_a_folder_of_its_name(folder, base, tmp_path) -> None:
    model, logits = trained(folder, name="mails")
    model.save_pretrained(tmp_path)
    same(tmp_path, base, logits)
    model.add_adapter("letters", model.peft_config["mails"])
    model.save_pretrained(tmp_path)
    with pytest.raises(lc.AdapterError, match="holds 2 adapters, in 'letters', 'mails'"):
        lc.load_adapter(tmp_path, base)
    same(tmp_path / "mails", base, logits)


@pytest.mark.parametrize("targets", [["c_attn"], ["wte", "c_attn"]])
def test_a_vocabulary_that_has_grown(targets, folder, base, tmp_path) -> None:
    """A [PAD] token was added, and `peft` saved the embeddings along: those tokens are not ours."""
    model, logits = trained(folder, grown=2, target_modules=targets)
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    same(tmp_path, base, logits)


def test_embeddings_that_were_trained_are_a_sentence(folder, base, tmp_path) -> None:
    model, _ = trained(folder, modules_to_save=["wte"])
    model.save_pretrained(tmp_path)
    with pytest.raises(lc.AdapterError, match=r"embeddings.*trained as well"):
        lc.load_adapter(tmp_path, base)


@pytest.mark.parametrize("key", ["arrow_config", "megatron_config", "layer_replication"])
@pytest.mark.parametrize("empty", [{}, [], None])
def test_settings_that_are_empty_change_nothing(key, empty, folder, base, tmp_path) -> None:
    model, logits = trained(folder)
    model.save_pretrained(tmp_path)
    change_config(tmp_path, **{key: empty})
    same(tmp_path, base, logits)


def test_a_note_of_git_lfs_is_no_file_of_weights(folder, base, tmp_path) -> None:
    model, _ = trained(folder)
    model.save_pretrained(tmp_path)
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / WEIGHTS_FILE).write_text(note)
    with pytest.raises(lc.AdapterError, match="git lfs pull"):
        lc.load_adapter(tmp_path, base)


def test_an_adapter_without_a_head_says_what_is_missing(folder, base, tmp_path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    peft.get_peft_model(GPT2Model.from_pretrained(folder), config).save_pretrained(tmp_path)
    with pytest.raises(lc.AdapterError, match="head"):
        lc.load_adapter(tmp_path, base)


def test_a_layer_that_was_trained_in_full_is_a_sentence(folder, base, tmp_path) -> None:
    settings = {"target_modules": ["c_attn"], "modules_to_save": ["score", "c_fc"]}
    trained(folder, **settings)[0].save_pretrained(tmp_path)
    with pytest.raises(lc.AdapterError, match=r"c_fc.*modules_to_save"):
        lc.load_adapter(tmp_path, base)


def test_a_whole_model_is_said_to_be_one(folder, base, tmp_path) -> None:
    trained(folder)[0].merge_and_unload().save_pretrained(tmp_path / "model")
    whole = r"whole model.*as a base"
    with pytest.raises(lc.AdapterError, match=whole):
        lc.load_adapter(tmp_path / "model", base)
    for place in ("", "my model/"):
        with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
            for path in (tmp_path / "model").iterdir():
                archive.write(path, place + path.name)
        with pytest.raises(lc.AdapterError, match=whole):
            lc.load_adapter(tmp_path / "model.zip", base)
    (tmp_path / "model" / "config.json").rename(tmp_path / CONFIG_FILE)  # under a wrong name
    with pytest.raises(lc.AdapterError, match=whole):
        lc.load_adapter(tmp_path, base)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_what_lies_beside_an_adapter_in_half_precision(kind, folder, base, tmp_path) -> None:
    """`peft` saves the embeddings of a grown vocabulary along, in the format that it trained in."""
    model, logits = trained(folder, grown=2, target_modules=["c_attn"])
    model.to(kind).save_pretrained(tmp_path, save_embedding_layers=True)
    ours = batched_logits(lc.load_adapter(tmp_path, base).model, IDS.tolist())
    torch.testing.assert_close(ours, logits, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}},
        {
            "config": {"architecture": "lora", "r": 8},
            "model_class": "GPT2AdapterModel",
            "model_name": "gpt2",
            "model_type": "gpt2",
            "version": "1.0.0",
        },
    ],
    ids=["mlx", "adapterhub"],
)
def test_adapters_of_other_programs_are_named(config, base, tmp_path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(lc.AdapterError, match="another program than PEFT"):
        lc.load_adapter(tmp_path, base)


@pytest.mark.parametrize("task", ["CAUSAL_LM", "TOKEN_CLS", "FEATURE_EXTRACTION"])
def test_an_adapter_for_another_task_is_called_so(task, folder, base, tmp_path) -> None:
    trained(folder)[0].save_pretrained(tmp_path)
    change_config(tmp_path, task_type=task)
    path = tmp_path / WEIGHTS_FILE
    save_file({n: t for n, t in load_file(path).items() if "score" not in n}, path)
    with pytest.raises(lc.AdapterError, match=f"another task .{task}"):
        lc.load_adapter(tmp_path, base)


def test_a_base_of_other_layers_is_another_base(folder, base, tmp_path) -> None:
    """So that a page that holds the right base goes on looking."""
    deep, _ = tiny_folder(tmp_path / "gpt2-deep", layers=3)
    trained(deep)[0].save_pretrained(tmp_path / "deep")
    change_config(tmp_path / "deep", base_model_name_or_path="gpt2-deep")
    with pytest.raises(OtherBaseError, match=r"It has 2 blocks.*gpt2-deep"):
        lc.load_adapter(tmp_path / "deep", base)
    trained(folder)[0].save_pretrained(tmp_path / "llama")
    path = tmp_path / "llama" / WEIGHTS_FILE
    names = {"transformer.h": "model.layers", "attn.c_attn": "self_attn.q_proj"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor
    save_file(tensors, path)
    change_config(tmp_path / "llama", base_model_name_or_path="someone/llama")
    with pytest.raises(OtherBaseError, match=r"another kind of model.*someone/llama"):
        lc.load_adapter(tmp_path / "llama", base)


def test_where_an_adapter_may_lie(folder, base, tmp_path) -> None:
    model, logits = trained(folder)
    where = tmp_path / "outputs" / "run 1" / "checkpoint-500"
    model.save_pretrained(where)
    same(tmp_path / "outputs", base, logits)
    same(where / WEIGHTS_FILE, base, logits)
    same(where / CONFIG_FILE, base, logits)
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for place in ("out/", "out/checkpoint-500/", "out/checkpoint-400/"):
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                archive.write(where / name, place + name)
    same(tmp_path / "run.zip", base, logits)  # the trainer's last state, not its checkpoints
    with pytest.raises(lc.AdapterError, match="no file or folder"):
        lc.load_adapter(tmp_path / "nowhere", base)


def test_files_as_a_browser_renames_them_are_asked_about(folder, base, tmp_path) -> None:
    trained(folder)[0].save_pretrained(tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / "adapter_model (1).safetensors")
    with pytest.raises(lc.AdapterError, match=r"Is 'adapter_model \(1\).safetensors' meant"):
        lc.load_adapter(tmp_path, base)
    (tmp_path / CONFIG_FILE).rename(tmp_path / "adapter_config (1).json")
    with pytest.raises(lc.AdapterError, match=r"Is 'adapter_config \(1\).json' meant"):
        lc.load_adapter(tmp_path, base)


def test_layers_under_the_names_of_another_program_are_shown(folder, base, tmp_path) -> None:
    trained(folder)[0].save_pretrained(tmp_path)
    change_config(tmp_path, peft_type="lora")  # in small letters all the same
    path = tmp_path / WEIGHTS_FILE
    tensors = load_file(path)
    save_file({n.replace("lora_A", "lora_down"): t for n, t in tensors.items()
               if "lora_B" not in n}, path)  # fmt: skip
    with pytest.raises(lc.AdapterError, match=r"lora_down.*no names of PEFT's"):
        lc.load_adapter(tmp_path, base)
