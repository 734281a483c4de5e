"""The Hub's few routes, spoken by a server of our own: names in, an adapter out, a token kept safe.

No test of this file leaves the machine.
"""

from __future__ import annotations

import errno
import logging
import socket
import tempfile
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download

import lora_core as lc
from lora_core.limits import Limits
from lora_core.serving.hub import (
    HubError,
    check_hub_base,
    hub_dataset,
    load_hub_adapter,
    load_hub_task,
    push_adapter,
)
from lora_core.serving.hub_cache import HubCache
from lora_core.serving.hub_files import parts_of
from lora_core.serving.registry import Registry, new_visitor
from lora_core.tasks.file import Reading
from lora_core.ui.context import Lab
from lora_core.ui.panels.own_table import keep_task
from tests.adapters.hostile import small_adapter, small_base
from tests.cases.folders import tiny_folder
from tests.serving.hub_server import hub_in_place

SHARDS = ("dataset", "some/shards")
TOKEN = "hf_" + "s3cr3t" * 5


@pytest.fixture
def hub(monkeypatch):
    with hub_in_place(monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def small() -> lc.Base:
    return small_base()


@pytest.fixture
def classifier(small, tmp_path) -> lc.Classifier:
    small_adapter(small, tmp_path / "a.zip")
    return lc.load_adapter(tmp_path / "a.zip", small)


def test_published_and_brought_back(hub, small, classifier) -> None:
    """A push and a load by name: the same probabilities, and the files a stranger expects."""
    address = push_adapter(classifier, "me/my-adapter", TOKEN)
    assert address == f"{hub.address}/me/my-adapter"
    files = hub.repositories[("model", "me/my-adapter")]
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(files)
    assert hub.created[0]["visibility"] == "private"
    back = load_hub_adapter("me/my-adapter", small)
    assert back.classify("hello").probabilities == classifier.classify("hello").probabilities


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub, classifier, caplog, capfd, tmp_path, monkeypatch
) -> None:
    """Not into files, logs, the environment or messages; and reading sends none at all."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with caplog.at_level(logging.DEBUG):
        push_adapter(classifier, "me/a", f"  {TOKEN}\n")
        hub.status = 403
        with pytest.raises(HubError, match="refused the token") as caught:
            push_adapter(classifier, "me/a", TOKEN)
    assert {header for _, header in hub.authorised} == {f"Bearer {TOKEN}"}
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    printed = capfd.readouterr()
    assert TOKEN not in caplog.text + printed.out + printed.err
    assert not any(TOKEN.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for content in hub.repositories[("model", "me/a")].values():
        assert TOKEN.encode() not in content


def test_the_servers_own_token_is_not_lent(hub, small, classifier, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_host")
    push_adapter(classifier, "me/a", TOKEN)
    hub.authorised.clear()
    load_hub_adapter("me/a", small)
    assert hub.authorised == []


@pytest.fixture
def public_base(hub, tmp_path, monkeypatch) -> str:
    """A base on the Hub, and an empty cache."""
    folder, _ = tiny_folder(tmp_path / "base")
    hub.repositories[("model", "some/small-gpt2")] = {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return "some/small-gpt2"


def test_a_base_is_loaded_without_the_host_s_token(hub, public_base, monkeypatch) -> None:
    """Which may have expired, and then would stand before what is public."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_host")
    assert lc.load_base(public_base).source == public_base
    assert hub.authorised == []


def test_a_cache_that_cannot_be_written_is_named(hub, public_base, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/dev/null/cache")
    with pytest.raises(lc.BaseError, match=r"cannot be kept in /dev/null/cache.*HF_HOME"):
        lc.load_base(public_base)


def things(first: int = 0, last: int = 30, header: str = "text,label") -> bytes:
    rows = "".join(f"the {word} number {i},{label}\n" for i in range(first, last)
                   for word, label in (("apple", "fruit"), ("hammer", "tool")))  # fmt: skip
    return f"{header}\n{rows}".encode()


def size_of(task: lc.Task) -> int:
    return len(task.train) + len(task.validation) + len(task.test)


def test_all_shards_of_a_split_are_one_table(hub) -> None:
    hub.repositories[("dataset", "some/shards")] = {
        "data/train-00000-of-00002.csv": things(0, 30),
        "data/train-00001-of-00002.csv": things(30, 60),
        "data/test-00000-of-00001.csv": things(60, 70),
    }
    assert size_of(load_hub_task("some/shards")) == 120
    assert size_of(load_hub_task("some/shards", split="test")) == 20
    with pytest.raises(HubError, match="no split 'dev' there"):
        load_hub_task("some/shards", split="dev")


def test_which_configuration_is_said_and_can_be_chosen(hub) -> None:
    hub.repositories[("dataset", "some/tasks")] = {
        "emoji/train.csv": things(),
        "hate/train.csv": things(0, 50),
    }
    task = load_hub_task("some/tasks")
    assert size_of(task) == 60 and "2 configurations: emoji, hate" in task.warnings[0]
    assert size_of(load_hub_task("some/tasks", configuration="hate")) == 100
    with pytest.raises(HubError, match="no configuration 'love'"):
        load_hub_task("some/tasks", configuration="love")


GLUE = {  # as GLUE is: its first configuration is a test whose labels are not told
    "ax/test-00000-of-00001.csv": things(header="sentence,label").replace(b"fruit", b"-1"),
    "cola/train-00000-of-00001.csv": things(0, 40, "sentence,label"),
    "cola/test-00000-of-00001.csv": things(0, 10, "sentence,label"),
    "sst2/train-00000-of-00001.csv": things(0, 50, "sentence,label"),
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (GLUE, "cola"),
        ({"id2label.json": b"{}", "spam.csv": b""}, "spam"),
        ({"default/test.csv": b"", "more/train.csv": b""}, "default"),
    ],
    ids=["glue", "labels", "default"],
)
def test_the_configuration_that_is_guessed_can_be_trained_on(files, expected) -> None:
    assert parts_of(files)[1] == expected
    configs = [
        {"config_name": name, "data_files": [{"split": name, "path": f"{name}/*"}]}
        for name in ("test", "train", "other")
    ]
    names = [f"{config['config_name']}/a.csv" for config in configs]
    assert parts_of(names, {"configs": configs})[1] == "train"
    configs[2]["default"] = True
    assert parts_of(names, {"configs": configs})[1] == "other"


def test_a_refusal_says_which_configuration_was_taken(hub) -> None:
    hub.repositories[("dataset", "some/tasks")] = {
        "a/train.csv": b"text,label\nhello,\nthere,\n",
        "b/train.csv": things(),
    }
    with pytest.raises(lc.TaskError, match=r"2 configurations: a, b\. “a” was taken\. No row has"):
        load_hub_task("some/tasks")


def test_how_a_file_is_written_can_be_said(hub) -> None:
    rows = things(header="text,label").decode().replace(",", "|").replace("apple", "Äpfel")
    hub.repositories[("dataset", "some/odd")] = {"train.csv": rows.encode("mac_roman")}
    task = load_hub_task("some/odd", reading=Reading(encoding="mac_roman", separator="|"))
    assert any("Äpfel" in example.text for example in task.train)
    with pytest.raises(lc.TaskError):
        load_hub_task("some/odd", reading=Reading(separator=";"))


def test_another_format_of_the_same_split_can_be_chosen(hub) -> None:
    """The preferred one need not be the one that is meant."""
    hub.repositories[("dataset", "some/both")] = {
        "train.csv": things(0, 30),
        "train.jsonl": b'{"text": "a note", "label": "not a row"}\n' * 3,
    }
    assert size_of(load_hub_task("some/both")) == 60
    with pytest.raises(lc.TaskError):
        load_hub_task("some/both", split="train (JSONL)")


def test_what_was_fetched_is_not_fetched_again(hub) -> None:
    hub.repositories[SHARDS] = {"a/train-0.csv": things(0, 30), "a/train-1.csv": things(30, 60)}
    cache = HubCache()
    for expected in (["a/train-0.csv", "a/train-1.csv"],) * 2:
        with hub_dataset("some/shards").files("a", "train", cache=cache) as paths:
            assert [path.read_bytes() for path in paths] == [things(0, 30), things(30, 60)]
        assert hub.fetched == expected
    hub.repositories[SHARDS] = {"a/train-0.csv": things(0, 40)}  # published anew
    with hub_dataset("some/shards").files("a", "train", cache=cache) as paths:
        assert [path.read_bytes() for path in paths] == [things(0, 40)]


def test_what_is_kept_of_the_hub_is_little_and_not_for_long() -> None:
    def lies(cache: HubCache, name: str, size: int = 400_000) -> Path:
        with cache.folder(name, "0") as folder:
            (Path(folder) / "train.csv").write_bytes(b"x" * size)
        return Path(folder)

    young = HubCache(seconds=0)
    first = lies(young, "some/a")
    with young.folder("some/b", "0"):
        assert not first.exists()
    small = HubCache(megabytes=1)
    first, second = lies(small, "some/a"), lies(small, "some/b")
    with small.folder("some/a", "0"):  # and is the last one used
        third = lies(small, "some/c")
        assert first.exists() and not second.exists() and third.exists()
    with pytest.raises(OSError), small.folder("some/c", "0"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not third.exists() and first.exists()


def test_columns_of_other_names_are_guessed_said_and_can_be_chosen(hub) -> None:
    hub.repositories[("dataset", "some/sms")] = {"train.csv": things(header="sms,category")}
    task = load_hub_task("some/sms")
    assert task.labels == ("fruit", "tool")
    assert "'sms' was taken for the texts, 'category' for the labels" in task.warnings[0]
    with pytest.raises(lc.TaskError, match="no column 'other'"):
        load_hub_task("some/sms", text_column="other")


@pytest.mark.parametrize(
    ("files", "card", "expected"),
    [
        (["sst2/train/0000.parquet", "sst2/test/0000.parquet"], {},
         {"sst2": {"train": ["sst2/train/0000.parquet"], "test": ["sst2/test/0000.parquet"]}}),
        (["train.csv", "train.parquet", "test.csv"], {},
         {"default": {"test": ["test.csv"], "train": ["train.parquet"],
                      "train (CSV)": ["train.csv"]}}),
        (["part-00000-ab.csv", "part-00001-cd.csv"], {},
         {"default": {"train": ["part-00000-ab.csv", "part-00001-cd.csv"]}}),
        (["x/a.csv", "x/b.csv"],
         {"configs": [{"config_name": "all", "data_files": [{"split": "train", "path": "x/*"}]}]},
         {"all": {"train": ["x/a.csv", "x/b.csv"]}}),
    ],
)  # fmt: skip
def test_files_are_sorted_by_their_card_or_their_names(files, card, expected) -> None:
    assert parts_of(files, card)[0] == expected


def test_a_table_of_the_hub_does_not_hide_a_bundled_task(hub) -> None:
    hub.repositories[("dataset", "some/sms-spam")] = {"train.csv": things()}
    with Registry(Limits()) as registry:
        lab, visitor = Lab(registry), new_visitor()
        own = keep_task(lab, visitor, load_hub_task("some/sms-spam"))
        assert own.name == "my-sms-spam"
        assert lab.task("sms-spam", visitor).labels == ("ham", "spam")


def test_a_table_by_name(hub) -> None:
    rows = "".join(f"the {word} number {i},{label}\n" for i in range(30)
                   for word, label in (("apple", "fruit"), ("hammer", "tool")))  # fmt: skip
    hub.repositories[("dataset", "some/things")] = {
        "README.md": b"# things",
        "data/test.csv": b"text,label\nx,y\n",
        "data/train.csv": ("text,label\n" + rows).encode(),
        "dataset_infos.json": b"{}",
    }
    task = load_hub_task("some/things")
    assert task.labels == ("fruit", "tool")
    assert task.name == "things"
    assert len(task.train) + len(task.validation) + len(task.test) == 60


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"README.md": b"x"}, "no table"),
        ({"train.csv": b"a,b\n1,2\n"}, "(?i)label|column"),
        ({"train.csv": b"x" * 3_000_000}, "MB"),
    ],
)
def test_what_is_no_table(hub, files, word) -> None:
    hub.repositories[("dataset", "some/thing")] = files
    with pytest.raises((HubError, lc.TaskError), match=word):
        load_hub_task("some/thing", Limits(upload_mb=2))


def test_what_is_no_adapter(hub, small) -> None:
    hub.repositories[("model", "some/model")] = {"config.json": b"{}"}
    with pytest.raises(HubError, match=r"not an adapter.*whole model: load it as a base"):
        load_hub_adapter("some/model", small)
    hub.repositories[("model", "some/texts")] = {"README.md": b""}
    with pytest.raises(HubError, match=r"not an adapter in PEFT's format\.$"):
        load_hub_adapter("some/texts", small)
    config = b'{"peft_type": "LORA"}'
    pickle = {"adapter_config.json": config, "adapter_model.bin": b"\x80\x04."}
    for place in ("", "mine/"):
        hub.repositories[("model", "some/pickle")] = {place + f: c for f, c in pickle.items()}
        with pytest.raises(lc.AdapterError, match=r"pickle.*Save the adapter again"):
            load_hub_adapter("some/pickle", small)
    hub.repositories[("model", "some/half")] = {"adapter_config.json": config}
    with pytest.raises(lc.AdapterError, match=r"no adapter_model\.safetensors"):
        load_hub_adapter("some/half", small)
    with pytest.raises(HubError, match="holds an adapter: load it as one"):
        check_hub_base("some/half")


@pytest.mark.parametrize("place", ["mails/", "runs/last/checkpoint-500/"])
def test_an_adapter_in_a_folder_of_its_name(hub, small, classifier, place) -> None:
    """As `peft` publishes one that is not called default."""
    push_adapter(classifier, "me/a", TOKEN)
    files = hub.repositories[("model", "me/a")]
    hub.repositories[("model", "me/b")] = {"README.md": b"# Mine"} | {
        place + file: content for file, content in files.items()
    }
    back = load_hub_adapter("me/b", small)
    assert back.classify("hello").probabilities == classifier.classify("hello").probabilities
    several = {f"{folder}/{f}": c for folder in ("one", "two") for f, c in files.items()}
    hub.repositories[("model", "me/c")] = several
    with pytest.raises(HubError, match="holds 2 adapters, in 'one', 'two'"):
        load_hub_adapter("me/c", small)
    hub.repositories[("model", "me/c")] = several | files  # the one at the top is meant
    assert load_hub_adapter("me/c", small).labels == classifier.labels


def test_a_disk_that_takes_nothing_is_not_a_missing_network(
    hub, small, classifier, monkeypatch
) -> None:
    push_adapter(classifier, "me/a", TOKEN)
    hub.repositories[("dataset", "some/things")] = {"train.csv": things()}
    acts = (
        lambda: load_hub_adapter("me/a", small),
        lambda: load_hub_task("some/things"),
    )

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_download, "http_get", full)
        for act in acts:
            with pytest.raises(HubError, match=r"the disk is full.*TMPDIR"):
                act()
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/nowhere")
    for act in (*acts, lambda: push_adapter(classifier, "me/a", TOKEN)):
        with pytest.raises(HubError, match=r"cannot be written.*/dev/null/nowhere; TMPDIR"):
            act()


def test_what_is_too_large_is_not_downloaded(hub, small, monkeypatch) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 10**10

    hub.repositories[("model", "some/huge")] = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": Huge(),
        "config.json": b"",
        "model.safetensors": Huge(),
    }
    with pytest.raises(HubError, match=r"10,000\.0 MB"):
        load_hub_adapter("some/huge", small)
    with pytest.raises(HubError, match=r"10,000\.0 MB"):
        check_hub_base("some/huge")


def test_a_base_by_name(hub) -> None:
    hub.repositories[("model", "some/base")] = {"config.json": b"{}", "model.safetensors": b"123"}
    check_hub_base("some/base")
    hub.repositories[("model", "some/old")] = {"config.json": b"{}", "pytorch_model.bin": b"123"}
    with pytest.raises(HubError, match="safetensors"):
        check_hub_base("some/old")


@pytest.mark.parametrize(
    "name", ["", "plain", "a/b/c", "../etc/passwd", "a/..", "a b/c", "x" * 300, "-a/b", None, 7]
)
def test_names_that_are_none(hub, small, name) -> None:
    """Refused before anything is asked."""
    hub.status = 500
    with pytest.raises(HubError, match="owner/name"):
        load_hub_adapter(name, small)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "not on the Hub"), (401, "not on the Hub"), (429, "too many"), (500, "500")],
)
def test_what_the_hub_answers(hub, small, status, words) -> None:
    hub.status = status
    with pytest.raises(HubError, match=words):
        load_hub_adapter("some/adapter", small)


def test_no_token_no_push(hub, classifier) -> None:
    for token in ("", "   ", None):
        with pytest.raises(HubError, match="token"):
            push_adapter(classifier, "me/a", token)
    assert hub.created == []


def test_offline_there_is_a_sentence(hub, small, classifier, monkeypatch) -> None:
    """With the network switched off, and with nobody listening."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="cannot be reached"):
        load_hub_adapter("some/adapter", small)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for act in (
        lambda: load_hub_adapter("some/adapter", small),
        lambda: load_hub_task("some/table"),
        lambda: push_adapter(classifier, "me/a", TOKEN),
    ):
        with pytest.raises(HubError, match="cannot be reached"):
            act()


def test_a_hub_that_never_answers_is_given_up(small, classifier, monkeypatch) -> None:
    """As behind a network that lets everything out and nothing back."""
    for module in ("base.download", "serving.hub"):
        monkeypatch.setattr(f"lora_core.{module}.HUB_SILENCE", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(20)  # connections are taken up by the system, and nobody reads them
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        before = time.monotonic()
        with pytest.raises(HubError, match="cannot be reached"):
            push_adapter(classifier, "me/a", TOKEN)
        with pytest.raises(lc.BaseError, match="cannot be reached"):
            lc.load_base("nobody/has-this")
    assert time.monotonic() - before < 20


def test_what_was_loaded_classifies_over_the_shared_base(hub, small, classifier) -> None:
    push_adapter(classifier, "me/a", TOKEN)
    digest = small.digest()
    back = load_hub_adapter("me/a", small, labels=["on", "off"])
    assert back.labels == ("on", "off")
    shared = back.model.token_embedding.weight.data_ptr()
    assert shared == small.model.token_embedding.weight.data_ptr()
    assert small.digest() == digest
    assert torch.isfinite(torch.tensor(list(back.classify("x").probabilities.values()))).all()
