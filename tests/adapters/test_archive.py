"""Hostile adapters: each is refused with a sentence, in little memory, and touches nothing else."""

from __future__ import annotations

import io
import json
import pickle
import random
import stat
import struct
import tracemalloc
import zipfile

import pytest
import torch
from safetensors.torch import save

import lora_core as lc
from lora_core.adapters.adapter import CONFIG_FILE, WEIGHTS_FILE
from lora_core.adapters.archive import ArchiveError, pack_folder, unpack_archive
from tests.adapters.hostile import members, mutated, safetensors, small_adapter, small_base, zipped

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def small() -> lc.Base:
    return small_base()


@pytest.fixture(scope="module")
def good(small, tmp_path_factory) -> bytes:
    """A valid adapter's zip."""
    return small_adapter(small, tmp_path_factory.mktemp("good") / "adapter.zip")


def refusal(base: lc.Base, folder, archive: bytes, max_bytes: int = MEGABYTE) -> str:
    """The sentence with which an archive is refused."""
    path = folder / "sent.zip"
    path.write_bytes(archive)
    with pytest.raises(lc.AdapterError) as caught:
        lc.load_adapter(path, base, max_bytes=max_bytes)
    message = str(caught.value)
    assert 10 < len(message) < 600
    assert message.rstrip().endswith((".", "?", ")"))
    return message


def test_the_valid_one_loads(small, good, tmp_path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(good)
    assert lc.load_adapter(path, small).labels == ("no", "yes")


def test_a_zipped_folder_and_other_files_beside_are_fine(small, good, tmp_path) -> None:
    files = {f"my adapter/{name}": content for name, content in members(good).items()}
    files["my adapter/training_args.bin"] = pickle.dumps({"never": "opened"})
    files["__MACOSX/my adapter/._adapter_config.json"] = b"\0"
    files[f"__MACOSX/my adapter/{CONFIG_FILE}"] = b"\0"
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(files))
    assert lc.load_adapter(path, small).labels == ("no", "yes")


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt", "C:evil"],
)
def test_names_that_lead_elsewhere(small, good, tmp_path, name) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    assert "elsewhere" in refusal(small, inside, zipped({**members(good), name: b"x"}))
    assert {p.name for p in tmp_path.rglob("*")} == {"inside", "sent.zip"}


def test_a_config_that_leads_elsewhere(small, good, tmp_path) -> None:
    files = members(good)
    files[f"../{CONFIG_FILE}"] = files.pop(CONFIG_FILE)
    assert "elsewhere" in refusal(small, tmp_path, zipped(files))


def test_links(small, good, tmp_path) -> None:
    out = io.BytesIO(good)
    with zipfile.ZipFile(out, "a") as archive:
        link = zipfile.ZipInfo("adapter_model.link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "link" in refusal(small, tmp_path, out.getvalue())


def test_a_bomb_that_is_honest_and_one_that_lies(small, good, tmp_path) -> None:
    """200 MB of zeros in 200 kB; then the same with a declared size of 1 kB."""
    files = {**members(good), WEIGHTS_FILE: bytes(200 * MEGABYTE)}
    bomb = zipped(files)
    assert len(bomb) < MEGABYTE
    del files
    tracemalloc.start()
    assert "larger than 1 MB" in refusal(small, tmp_path, bomb)
    lying = bytearray(bomb)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = -1
        while (at := lying.find(signature, at + 1)) >= 0:
            if struct.unpack_from("<I", lying, at + offset)[0] == 200 * MEGABYTE:
                struct.pack_into("<I", lying, at + offset, 1000)
    refusal(small, tmp_path, bytes(lying))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MEGABYTE


def test_many_members_and_a_huge_table_of_contents(small, good, tmp_path) -> None:
    many = zipped({f"{i}": b"" for i in range(5000)})
    assert "more than 200" in refusal(small, tmp_path, many)
    large = bytearray(good)
    end = large.rfind(b"PK\x05\x06")
    struct.pack_into("<I", large, end + 12, 2**31)
    assert "more than 200" in refusal(small, tmp_path, bytes(large))


def test_twice_the_same_name(small, good, tmp_path) -> None:
    out = io.BytesIO(good)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CONFIG_FILE, "{}")
    assert "twice" in refusal(small, tmp_path, out.getvalue())
    files = {**members(good), f"b/{CONFIG_FILE}": b"{}"}
    assert "more than one" in refusal(small, tmp_path, zipped(files))


def test_nested_pickled_encrypted_unusual_or_no_archives(small, good, tmp_path) -> None:
    assert "another archive" in refusal(small, tmp_path, zipped({"adapter.zip": good}))
    pickled = zipped({"adapter_model.bin": pickle.dumps([1])})
    assert "never opened" in refusal(small, tmp_path, pickled)
    assert "neither" in refusal(small, tmp_path, zipped({"README.md": b"hello"}))
    assert "not a zip" in refusal(small, tmp_path, b"")
    assert "not a zip" in refusal(small, tmp_path, b"<html>404</html>")
    assert "not a zip" in refusal(small, tmp_path, pickle.dumps(list(range(100))))
    unusual = zipped(members(good), zipfile.ZIP_LZMA)
    assert "unusual" in refusal(small, tmp_path, unusual)
    locked = bytearray(good)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := locked.find(signature, at + 1)) >= 0:
            locked[at + offset] |= 1
    assert "encrypted" in refusal(small, tmp_path, bytes(locked))


def test_a_pickle_where_tensors_should_be(small, good, tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch_file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, torch_file)
    for weights in (pickle.dumps(Trap()), torch_file.getvalue()):
        files = {**members(good), WEIGHTS_FILE: weights}
        assert "pickle" in refusal(small, tmp_path, zipped(files))
    files = members(good)
    files["adapter_model.bin"] = pickle.dumps(Trap())
    del files[WEIGHTS_FILE]
    refusal(small, tmp_path, zipped(files))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 9 * MEGABYTE) + b" " * (9 * MEGABYTE),  # a header of nothing
        safetensors(b"{" * 100_000),
        safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        safetensors({"a": {"dtype": "F32", "shape": [2**31] * 2, "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        safetensors({}),
        safetensors({"__metadata__": {"lora_lab": "{" * 9000}}),
    ],
    ids=lambda weights: f"{len(weights)} bytes",
)  # fmt: skip
def test_weights_that_are_none(small, good, tmp_path, weights) -> None:
    tracemalloc.start()
    refusal(small, tmp_path, zipped({**members(good), WEIGHTS_FILE: weights}), 16 * MEGABYTE)
    assert tracemalloc.get_traced_memory()[1] < 64 * MEGABYTE
    tracemalloc.stop()


def test_too_many_tensors(small, good, tmp_path) -> None:
    weights = save({f"t{i}": torch.zeros(1) for i in range(10_001)})
    files = {**members(good), WEIGHTS_FILE: weights}
    assert "too many" in refusal(small, tmp_path, zipped(files), 4 * MEGABYTE)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[1, 2]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"peft_type": "LORA", "r": ' + b"9" * 6000 + b"}",
        b"{}",
        b'{"peft_type": ["LORA"]}',
    ],
    ids=lambda value: repr(value[:20]),
)
def test_configurations_that_are_none(small, good, tmp_path, config) -> None:
    refusal(small, tmp_path, zipped({**members(good), CONFIG_FILE: config}))


def test_a_configuration_of_two_megabytes(small, good, tmp_path) -> None:
    config = json.dumps({"peft_type": "LORA", "x": "x" * 2 * MEGABYTE}).encode()
    sent = zipped({**members(good), CONFIG_FILE: config})
    assert "larger than 1 MB" in refusal(small, tmp_path, sent)


def test_a_long_word_from_a_stranger_is_cut(small, good, tmp_path) -> None:
    config = {**json.loads(members(good)[CONFIG_FILE]), "peft_type": "<b>" + "x" * 100_000}
    files = {**members(good), CONFIG_FILE: json.dumps(config).encode()}
    assert len(refusal(small, tmp_path, zipped(files))) < 300


def test_facts_that_lie_are_not_believed(small, good, tmp_path) -> None:
    """Settings, scores and head are taken from the header only where the tensors agree."""
    files = members(good)
    size = struct.unpack("<Q", files[WEIGHTS_FILE][:8])[0]
    header = json.loads(files[WEIGHTS_FILE][8 : 8 + size])
    facts = json.loads(header["__metadata__"]["lora_lab"])
    facts["lora"]["rank"], facts["lora"]["alpha"] = 64, 9999.0
    facts["scores"] = {"validation_accuracy": "1.0", "x": 1e300, "y": float("nan"), "z": True}
    facts["head"] = {"bias": "AAAA"}
    facts["train"] = {"steps": -5}
    header["__metadata__"]["lora_lab"] = json.dumps(facts)
    files[WEIGHTS_FILE] = safetensors(header, files[WEIGHTS_FILE][8 + size :])
    path = tmp_path / "lying.zip"
    path.write_bytes(zipped(files))
    lying = lc.load_adapter(path, small)
    path.write_bytes(good)
    honest = lc.load_adapter(path, small)
    assert lying.lora_config == lc.LoRAConfig(rank=2, alpha=16.0) == honest.lora_config
    assert lying.scores == {}
    assert lying.train_config is None
    same = honest.classify("hello").probabilities
    assert lying.classify("hello").probabilities == pytest.approx(same, abs=1e-5)


def test_five_hundred_mutations(small, good, tmp_path) -> None:
    """Each is refused with a sentence, or loads and answers with probabilities; nothing else."""
    chance = random.Random(8)
    outcomes = {"refused": 0, "loaded": 0}
    path = tmp_path / "mutated.zip"
    before = small.digest()
    for _ in range(500):
        path.write_bytes(mutated(good, chance))
        try:
            classifier = lc.load_adapter(path, small, max_bytes=MEGABYTE)
        except lc.AdapterError as error:
            assert 10 < len(str(error)) < 900
            outcomes["refused"] += 1
        else:
            answer = classifier.classify("hello")
            assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)
            outcomes["loaded"] += 1
    assert min(outcomes.values()) > 50  # the mutations are neither all fatal nor all harmless
    assert small.digest() == before


def test_a_packed_folder_comes_back_the_same(tmp_path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_bytes(b"hello")
    (tmp_path / "in" / "deep" / "b.bin").write_bytes(bytes(range(256)) * 9000)
    first = pack_folder(tmp_path / "in", tmp_path / "1.zip").read_bytes()
    assert pack_folder(tmp_path / "in", tmp_path / "2.zip").read_bytes() == first
    assert members(first) == {"a.txt": b"hello", "deep/b.bin": bytes(range(256)) * 9000}
    (tmp_path / "out").mkdir()
    assert unpack_archive(tmp_path / "1.zip", tmp_path / "out", {"a.txt": 5}) == ["a.txt"]
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"hello"
    with pytest.raises(ArchiveError, match="larger"):
        unpack_archive(tmp_path / "1.zip", tmp_path / "out", {"a.txt": 4})
