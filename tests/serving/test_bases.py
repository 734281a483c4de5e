"""Bases of a server: each loaded once, measured before it is loaded, let go when nobody uses it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter

import pytest

import lora_core as lc
from lora_core.base import checkpoint
from lora_core.base.gpt2_names import gpt2_config
from lora_core.limits import Limits
from lora_core.serving import bases as module
from lora_core.serving.bases import Bases
from lora_core.serving.registry import Registry, new_visitor
from lora_core.serving.store import Store
from lora_core.ui.context import Lab
from tests.cases.folders import tiny_folder
from tests.serving.registry import wait


@pytest.fixture
def folders(tmp_path) -> list[str]:
    """Four bases of about 1.6 MB in memory each."""
    made = [tiny_folder(tmp_path / f"base-{i}", seed=i)[0] for i in range(4)]
    return [str(folder) for folder in made]


@pytest.fixture
def loads(monkeypatch) -> Counter:
    """How often each base was really loaded."""
    counted: Counter = Counter()
    real = module.load_base

    def load(name):
        counted[name] += 1
        return real(name)

    monkeypatch.setattr(module, "load_base", load)
    return counted


def test_ten_threads_load_a_base_once(folders, loads) -> None:
    bases, together = Bases(), threading.Barrier(20)
    got: list[lc.Base] = []

    def ask(name: str) -> None:
        together.wait()
        got.append(bases.get(name))

    threads = [threading.Thread(target=ask, args=(folders[i % 2],)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == {folders[0]: 1, folders[1]: 1}
    assert len({id(base) for base in got}) == 2 and len(got) == 20


def test_the_longest_unused_goes_when_room_is_needed(folders, loads) -> None:
    bases = Bases(Limits(bases_mb=4))  # two of 1.6 MB fit
    bases.get(folders[0])
    bases.get(folders[1])
    bases.get(folders[0])  # used again: the other one is older now
    bases.get(folders[2])
    assert list(bases) == [folders[0], folders[2]]
    assert bases.bytes < 4e6
    bases.get(folders[1])
    assert list(bases) == [folders[2], folders[1]] and loads[folders[1]] == 2


def test_what_is_in_use_stays_and_counts(folders, loads) -> None:
    """A classifier holds the base's tensors, whether or not anybody holds the base."""
    bases = Bases(Limits(bases_mb=4))
    classifiers = [bases.get(name).classifier_model(2) for name in folders[:2]]
    with pytest.raises(lc.BaseError, match=r"no room.*base-0.*base-1.* in use"):
        bases.get(folders[2])
    assert loads[folders[2]] == 0
    del classifiers[0]
    assert bases.get(folders[2]).name == "base-2"


def test_a_base_that_is_too_large_is_refused_before_it_is_loaded(folders, loads, tmp_path) -> None:
    large, _ = tiny_folder(tmp_path / "large", width=64, layers=1)
    (large / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(lc.BaseError, match=r"takes \d MB of memory; this server lends 1 MB"):
        Bases(Limits(bases_mb=1)).get(str(large))
    assert not loads


def test_gpt2_xl_is_refused_by_its_size_alone(monkeypatch, loads, tmp_path) -> None:
    """Its shape comes from a file of a kilobyte; no weights are asked for."""
    config = lc.GPT2_CONFIGS["gpt2-xl (1558M)"]
    (tmp_path / "config.json").write_text(json.dumps(gpt2_config(config, 50256)))
    monkeypatch.setattr(checkpoint, "download_config", lambda repository: tmp_path)
    with pytest.raises(lc.BaseError, match=r"takes 6,2.. MB"):
        Bases(Limits(bases_mb=2000)).get("gpt2-xl")
    assert not loads


def test_a_load_that_fails_can_be_tried_again(folders, loads, tmp_path) -> None:
    weights = tmp_path / "base-0" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"broken")
    bases = Bases(Limits(bases_mb=4))
    for _ in range(3):
        with pytest.raises(lc.BaseError, match="cannot be read"):
            bases.get(folders[0])
    assert bases.bytes == 0
    weights.write_bytes(content)
    assert bases.get(folders[0]).name == "base-0"


def test_the_host_chooses_what_is_offered(folders, loads, base) -> None:
    bases = Bases(offered=["openai-community/gpt2", folders[0]], held={"bundled": base})
    assert bases.menu() == ["bundled", "gpt2", folders[0]]
    assert bases.get("bundled") is base
    assert bases.get(folders[0]).name == "base-0"
    for name in (folders[1], "gpt2-medium", "someone/base"):
        with pytest.raises(lc.BaseError, match=r"does not offer.*bundled, gpt2"):
            bases.get(name)
    assert Bases(offered=[], held={"bundled": base}).menu() == ["bundled"]
    assert "gpt2-xl" in Bases(held={"bundled": base}).menu()


def test_a_visitor_names_no_folder_of_the_server(folders, base) -> None:
    lab = Lab(None, Bases(held={"bundled": base}))  # type: ignore[arg-type]
    for name in (folders[0], "/etc", "someone/base"):
        with pytest.raises(lc.BaseError, match="no base called"):
            lab.base(name)
        with pytest.raises(lc.BaseError, match="no base called"):
            lab.shape(name)
    assert lab.shape("gpt2") == lc.GPT2_CONFIGS["gpt2-small (124M)"] and "gpt2" not in lab.bases
    assert lab.base("bundled") is base


def test_a_stored_run_finds_its_base_by_the_name_that_it_has_itself(
    folders, loads, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for offered in (folders, ["./base-1", "base-2/../base-2"], None):
        bases = Bases(offered=offered)
        base = bases.get(offered[1] if offered else folders[1])
        assert bases.again(base.name if offered else folders[1]) is base
    assert Bases(offered=folders).again("bundled").name == "bundled"
    for name in ("base-9", "", "openai/other"):
        with pytest.raises(lc.base.checkpoint.BaseError, match="does not offer"):
            Bases(offered=folders).again(name)


def test_of_folders_of_one_name_none_is_taken_for_another(tmp_path, task, base) -> None:
    names = ["one/mine", "two/mine", "three/bundled"]
    offered = [str(tiny_folder(tmp_path / name, seed=i)[0]) for i, name in enumerate(names)]
    config, ann = lc.TrainConfig(steps=2, batch_size=4, evaluations=1), new_visitor()

    def begin(menu: list[str]) -> Registry:
        bases = Bases(offered=menu, held={"bundled": base})
        store = Store(tmp_path / "data")
        registry = Registry(workers=1, store=store, bases=bases.again)
        for name in [] if registry.runs(ann) else ["bundled", *menu]:
            one = bases.get(name)
            assert bases.loaded(one.name) is one and one.name in bases.menu()
            wait(registry.submit(ann, one, task, lc.LoRAConfig(rank=2), config))
        return registry

    with begin(offered) as registry:
        sources = [run.base.source for run in registry.runs(ann)]
        said = [run.classifier.classify("win cash") for run in registry.runs(ann)]
    assert sources == ["assets/base", *offered]
    change = "UPDATE runs SET record = json_set(record, '$.base', 'mine') WHERE number IN (2, 3)"
    for statement in ("SELECT 1", change):  # as it is, and as a version before wrote it
        with sqlite3.connect(tmp_path / "data" / "runs.sqlite") as db:
            db.execute(statement)
        with begin(offered[::-1]) as registry:
            again = registry.runs(ann)
            assert [run.classifier.classify("win cash") for run in again] == said
            assert [run.base.source for run in again] == sources


def test_what_was_kept_over_a_base_goes_with_it(folders) -> None:
    bases = Bases(Limits(bases_mb=4))
    models = {name: bases.get(name).classifier_model(2) for name in folders[:1]}
    bases.when_let_go.append(lambda name: models.pop(name, None))
    bases.get(folders[1])
    bases.get(folders[2])
    assert folders[0] not in bases and not models


def test_the_digest_is_that_of_the_moment_it_was_loaded(folders) -> None:
    bases = Bases()
    base = bases.get(folders[0])
    before = base.digest()
    base.model.final_norm.bias.data += 1
    assert bases.digest(base) == before != base.digest()
