"""Step 5 in a real browser: the shelf, switching, downloads, and the way back in."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import lora_core as lc
from tests.adapters.hostile import members, zipped
from tests.browser.conftest import PATIENCE, wait_for_state
from tests.peers.stranger import TEXTS, adapted, our_logits

SHELF = "#shelf button.shelf-name"


@pytest.fixture(scope="module")
def archives(tmp_path_factory, base) -> dict[str, Path]:
    """Two adapters over the bundled base, as a visitor brings them."""
    from lora_core.adapters.adapter import zip_adapter

    folder = tmp_path_factory.mktemp("archives")
    made = {}
    for name, config, labels in (
        ("first", lc.LoRAConfig(4, 8), ["ham", "spam"]),
        ("second", lc.LoRAConfig(2, 4, targets=("query", "value")), ["red", "green", "blue"]),
    ):
        classifier = adapted(base, config, classes=len(labels), bias=True)
        classifier.labels, classifier.task_name = tuple(labels), f"{name} task"
        made[name] = zip_adapter(classifier, folder / f"{name}.zip")
    return made


def bring(page: Page, *files: Path | dict[str, object]) -> None:
    page.locator("#bring input[type=file]").set_input_files(list(files))


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download(timeout=PATIENCE) as download:
        page.locator(f"#{button}").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_two_adapters_over_one_base(visit, archives) -> None:
    """Brought, counted, switched at once, removed."""
    page = visit()
    expect(page.locator("#shelf")).to_contain_text("The shelf is empty")
    expect(page.locator("#take-adapter")).to_be_disabled()
    bring(page, archives["first"])
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    bring(page, archives["second"])
    expect(page.locator(SHELF)).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#shelf h3")).to_contain_text("2 tasks, 2 runs:")
    expect(page.locator("#shelf li.shown")).to_contain_text("second task")
    expect(page.locator("#take-about")).to_contain_text("red, green, blue", timeout=PATIENCE)
    page.locator(SHELF).first.click()
    expect(page.locator("#shelf li.shown")).to_contain_text("first task", timeout=PATIENCE)
    expect(page.locator("#take-about")).to_contain_text("ham, spam", timeout=PATIENCE)
    widths = [
        box.evaluate("e => e.getBoundingClientRect().width")
        for box in page.locator(".shelf-bar").all()
    ]
    assert widths[0] > 10 * widths[1] > 10 * widths[2] > 0  # to scale: base, rank 4, rank 2
    page.locator("#shelf .shelf-remove").first.click()
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    expect(page.locator("#take-note")).to_contain_text("Removed: first task")


def test_what_goes_out_comes_back(visit, archives, base, tmp_path) -> None:
    """The downloaded zip has the logits of the one that was brought; the whole model is whole."""
    page = visit()
    bring(page, archives["second"])
    expect(page.locator("#take-adapter")).to_be_enabled(timeout=PATIENCE)
    path = saved(page, "take-adapter", tmp_path)
    assert path.name == "second-task-r2.zip"
    before, after = (lc.load_adapter(p, base) for p in (archives["second"], path))
    assert (our_logits(before, TEXTS) == our_logits(after, TEXTS)).all()
    assert after.labels == ("red", "green", "blue")
    whole = saved(page, "take-model", tmp_path)
    with zipfile.ZipFile(whole) as archive:
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(archive.namelist())
    page.locator("#contents summary").click()
    expect(page.locator("#contents tbody tr")).to_have_count(2 * base.config.n_layers + 3)
    page.locator("#code summary").click()
    expect(page.locator("#code pre")).to_contain_text("PeftModel.from_pretrained")


def test_the_two_files_without_a_zip(visit, archives, tmp_path) -> None:
    page = visit()
    files = []
    for name, content in members(archives["first"].read_bytes()).items():
        if name != "README.md":
            (tmp_path / name).write_bytes(content)
            files.append(tmp_path / name)
    bring(page, *files)
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)


def test_what_cannot_be_used_is_said_beside_the_control(visit, archives) -> None:
    """And nothing that was there is lost."""
    page = visit()
    bring(page, archives["first"])
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    files = members(archives["first"].read_bytes())
    config = {**json.loads(files["adapter_config.json"]), "use_dora": True}
    evil = zipped({**files, "adapter_config.json": json.dumps(config).encode()})
    for content, word in (
        (evil, "DoRA"),
        (b"no archive at all", "not a zip"),
        (zipped({**files, "../x": b"x"}), "leads elsewhere"),
    ):
        bring(page, {"name": "a.zip", "mimeType": "application/zip", "buffer": content})
        expect(page.locator("#take-note .bad")).to_contain_text(word, timeout=PATIENCE)
        expect(page.locator(SHELF)).to_have_count(1)
    expect(page.locator("#shelf li.shown")).to_contain_text("first task")


def test_runs_figure_and_link_after_a_real_run(visit, tmp_path) -> None:
    page = visit("steps=10&batch_size=4&rank=2&task=sentiment")
    page.locator("#take-csv").click()
    expect(page.locator("#take-note .bad")).to_contain_text("no runs yet", timeout=PATIENCE)
    page.locator("#start").click()
    wait_for_state(page, "finished")
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    (row,) = csv.DictReader(io.StringIO(saved(page, "take-csv", tmp_path).read_text()))
    assert (row["task"], row["rank"], row["steps"]) == ("sentiment", "2", "10")
    (run,) = json.loads(saved(page, "take-json", tmp_path).read_text())
    assert run["rank"] == 2
    assert [e["event"] for e in run["events"]].count("step") == 10
    assert saved(page, "take-png", tmp_path).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in saved(page, "take-svg", tmp_path).read_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#take-link").click()
    expect(page.locator("#take-note")).to_contain_text("link", timeout=PATIENCE)
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "task=sentiment" in copied and "rank=2" in copied


def test_another_visitor_sees_an_empty_shelf(visit, log, archives, browser, server) -> None:
    page = visit()
    bring(page, archives["first"])
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    other = browser.new_context()
    stranger = other.new_page()
    stranger.goto(server)
    expect(stranger.locator("#shelf")).to_contain_text("The shelf is empty", timeout=PATIENCE)
    other.close()
    log.reload(page)
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)


def test_the_hub_offline_is_a_sentence(visit) -> None:
    page = visit()
    page.locator("#hub button").first.click()
    page.get_by_label("Its name").fill("someone/adapter")
    page.locator("#hub-load").click()
    expect(page.locator("#hub-note .bad")).to_contain_text("cannot be reached", timeout=PATIENCE)
    page.get_by_label("Its name").fill("nonsense")
    page.locator("#hub-load").click()
    expect(page.locator("#hub-note .bad")).to_contain_text("owner/name", timeout=PATIENCE)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out(visit, archives, theme, width) -> None:
    """With the longest rows and every fold open, the panel is as wide as its card."""
    page = visit(f"__theme={theme}")
    page.set_viewport_size({"width": width, "height": 844})
    bring(page, archives["first"])
    expect(page.locator(SHELF)).to_have_count(1, timeout=PATIENCE)
    for summary in ("#contents summary", "#code summary", "#hub button"):
        page.locator(summary).first.click()
    page.wait_for_timeout(500)
    card = page.locator("#take").bounding_box()
    assert card
    for selector in ("#shelf", "#bring", "#take-about", "#contents", "#code", "#hub"):
        box = page.locator(selector).bounding_box()
        assert box and box["x"] >= card["x"] and box["width"] > 0
        assert box["x"] + box["width"] <= card["x"] + card["width"] + 1, selector
    assert page.evaluate("document.documentElement.scrollWidth") <= width
