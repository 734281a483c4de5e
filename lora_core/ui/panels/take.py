"""Step 5, Take it along: the shelf of adapters, downloads, and the way back in."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from lora_core.adapters.adapter import AdapterError, load_adapter, zip_adapter
from lora_core.adapters.card import merged_snippet, peft_snippet
from lora_core.adapters.files import CONFIG_FILE, WEIGHTS_FILE, WHOLE_MODEL, OtherBaseError
from lora_core.adapters.merged import zip_merged
from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.serving.export import runs_csv, runs_json
from lora_core.serving.registry import Run, RunError
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.files import Downloads
from lora_core.ui.names import file_name, long_name
from lora_core.ui.panels import hub
from lora_core.ui.panels.shelf import contents_value, keep, shelf_value
from lora_core.ui.sentences import sentence_of
from lora_core.ui.settings import Settings
from lora_core.ui.text.catalogue import say
from lora_core.ui.text.programs import lora_core_program, peft_program
from lora_core.ui.values import record

MAX_UNPACKED = 64 * 2**20  # bytes of a visitor's adapter, unpacked
# As transformers names them: of a folder with several files like these, none is an adapter's.
_OF_A_MODEL = re.compile(r"config.*\.json|model.*\.(safetensors|json)")
_SCRIPT = "take.js"
_TOOLS = '(await LoraLab.offer("take"))'  # its tools, in the browser
_ERRORS = (LabError, OSError)  # of a disk that is full, for one
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
_PRIVATE: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def build(context: Context) -> None:
    """The panel below its heading."""
    lab, downloads = context.lab, Downloads()
    default = Settings()
    known = default.for_labels(len(lab.task(default.task).labels), lab.registry.limits)
    base = context.controls[Settings.names().index("base")]
    where = [context.visitor, context.ready]
    with gr.Row(elem_classes="take-bench"):
        with gr.Column(scale=6, min_width=320):
            shelf = part("shelf", shelf_value(lab, "", ""), script=_SCRIPT, elem_id="shelf")
            bring = gr.File(
                label=say("take.bring"),
                file_count="multiple",
                height=112,
                elem_id="bring",
                interactive=True,
            )
            note = part("note", {"text": "", "bad": False}, script=_SCRIPT, elem_id="take-note")
        with gr.Column(scale=5, min_width=320):
            about = part("about", about_run(None), script=_SCRIPT, elem_id="take-about")
            with gr.Row(elem_classes="take-actions"):
                adapter = _button("adapter", variant="primary", interactive=False)
                merged = _button("model", interactive=False)
            gr.HTML(
                f'<p class="take-row-title" id="take-runs-title">{say("take.runs")}</p>',
                apply_default_css=False,
            )
            with gr.Row(elem_classes="take-actions small"):
                as_csv = _button("csv")
                as_json = _button("json")
                png = _button("png")
                svg = _button("svg")
                link = _button("copy_link", "link")
            contents = part("contents", contents_value(None), script=_SCRIPT, elem_id="contents")
            programs = part("programs", programs_for(None, known), script=_SCRIPT, elem_id="code")
    with gr.Accordion(say("take.hub"), open=False, elem_classes=["fold", "expert"], elem_id="hub"):
        hub_note = hub.build(context)
    delete = gr.Button(say("mine.delete"), elem_id="take-delete", size="sm", variant="stop")
    made = gr.DownloadButton("made", visible="hidden", elem_id="take-made")

    def delete_all(visitor: str) -> dict[str, Any]:
        try:
            done = not visitor or lab.registry.remove_all(visitor)
        except LabError as error:
            return _problem(error, "delete")
        return _note() if done else _note(RunError(say("mine.rest")))

    asked = f"(visitor) => confirm({json.dumps(say('mine.confirm'))}) ? visitor : ''"
    said = "(note) => { if (note.bad) alert(note.text); location.reload(); }"
    delete.click(delete_all, context.visitor, note, js=asked, **_QUIET).then(
        None, note, None, js=said
    )

    def refresh(visitor: str, ready: str) -> list[Any]:
        run = _find(lab, visitor, ready)
        is_adapter = run is not None and _has_adapter(run)
        return [
            shelf_value(lab, visitor, ready),
            about_run(run),
            contents_value(run),
            gr.update(interactive=is_adapter),
            gr.update(interactive=run is not None),
        ]

    outputs = [shelf, about, contents, adapter, merged]
    gr.on(
        [context.ready.change, context.visitor.change],
        refresh,
        where,
        outputs,
        trigger_mode="always_last",
        **_QUIET,
    )

    def write_programs(visitor: str, ready: str, *values: Any) -> Any:
        try:
            settings = Settings.from_values(*values)
            labels = lab.task(settings.task, visitor).labels
            settings = settings.for_labels(len(labels), lab.registry.limits)
            return programs_for(_find(lab, visitor, ready), settings)
        except LabError:
            return gr.skip()

    # The programs ask for themselves, while they are looked at.
    programs.submit(
        write_programs,
        [*where, *context.controls],
        programs,
        trigger_mode="always_last",
        **_QUIET,
    )

    def act(visitor: str, ready: str, event: gr.EventData) -> list[Any]:
        """A press on the shelf: show another adapter at once, or remove one."""
        sent = record(event._data)
        run_id, what = str(sent.get("id")), sent.get("act")
        try:
            run = lab.registry.get(visitor, run_id)
        except RunError as error:
            return [shelf_value(lab, visitor, ready), ready, _note(error)]
        if what == "show":
            return [shelf_value(lab, visitor, run.id), run.id, _note()]
        name = long_name(run)
        lab.registry.remove(visitor, run.id)
        ready = "" if ready == run.id else ready
        return [shelf_value(lab, visitor, ready), ready, _note(say("take.removed", name=name))]

    pressed = [shelf, context.ready, note]
    shelf.select(act, where, pressed, trigger_mode="multiple", **_QUIET)

    def take_in(visitor: str, ready: str, files: list[str] | None, base_name: str) -> list[Any]:
        """What was dropped, as a run of its own; whatever happens, nothing else is touched."""
        if not files:
            return [gr.skip()] * 4
        try:
            run = bring_in(lab, visitor, files, str(base_name or "bundled"))
        except _ERRORS as error:
            return [gr.skip(), gr.skip(), _problem(error, "bring"), None]
        finally:
            for file in files:
                Path(file).unlink(missing_ok=True)
        here = say("take.brought", name=long_name(run))
        said = _note(f"{here} {_remark(run)}".strip())
        return [shelf_value(lab, visitor, run.id), run.id, said, None]

    inputs = [*where, bring, base]
    brought = [shelf, context.ready, note, bring]
    bring.upload(take_in, inputs, brought, trigger_mode="multiple", **_PRIVATE)

    def download(button: gr.Button, make: Callable[[str, str, Path], Path]) -> None:
        def prepare(visitor: str, ready: str) -> list[Any]:
            try:
                with downloads.making(visitor) as folder:
                    return [str(make(visitor, ready, folder)), _note()]
            except _ERRORS as error:
                return [None, _problem(error, "download")]

        pressed = button.click(prepare, where, [made, note], **_PRIVATE)
        pressed.then(None, made, None, js=f"async (file) => {{ {_TOOLS}.save(file); }}")

    def make_adapter(visitor: str, ready: str, folder: Path) -> Path:
        run = _chosen(lab, visitor, ready)
        assert run.classifier is not None
        return zip_adapter(run.classifier, folder / f"{file_name(run)}.zip")

    def make_model(visitor: str, ready: str, folder: Path) -> Path:
        run = _chosen(lab, visitor, ready)
        assert run.classifier is not None
        return zip_merged(run.classifier, folder / f"{file_name(run)}-model.zip")

    def report(name: str, write: Callable[[Sequence[Run]], str]) -> Callable[..., Path]:
        def make(visitor: str, ready: str, folder: Path) -> Path:
            runs = [run for run in lab.registry.runs(visitor) if run.state != "loaded"]
            if not runs:
                raise RunError(say("take.no_runs"))
            path = folder / name
            path.write_text(write(runs), encoding="utf-8")
            return path

        return make

    download(adapter, make_adapter)
    download(merged, make_model)
    download(as_csv, report("runs.csv", runs_csv))
    download(as_json, report("runs.json", runs_json))
    for button, kind in ((png, "png"), (svg, "svg")):
        script = f"async () => [await {_TOOLS}.figure('{kind}')]"
        button.click(None, None, note, js=script)

    link.click(None, None, note, js=f"async () => [await {_TOOLS}.link()]")
    hub_note.change(refresh, where, outputs, **_QUIET)


def _button(
    name: str,
    key: str = "",
    variant: Literal["primary", "secondary"] = "secondary",
    interactive: bool = True,
) -> gr.Button:
    return gr.Button(
        say(f"take.{name}"),
        elem_id=f"take-{key or name}",
        variant=variant,
        size="sm",
        min_width=90,
        interactive=interactive,
    )


def bring_in(lab: Lab, visitor: str, files: Sequence[str], base_name: str) -> Run:
    """Load a visitor's zip, or the two files of an adapter, over the base that it belongs to.

    The base of step 1 is tried first, then those that the server holds. Raises `AdapterError`,
    `BaseError` or `RunError`.
    """
    archives = [file for file in files if file.lower().endswith(".zip")]
    if archives and len(files) > 1:
        raise AdapterError(say("take.one_zip"))
    if archives:
        return _keep(lab, visitor, Path(archives[0]), base_name)
    named = {
        CONFIG_FILE: _one_of(files, "adapter_config", ".json"),
        WEIGHTS_FILE: _one_of(files, "adapter_model", ".safetensors"),
    }
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        for name, file in named.items():
            shutil.copyfile(file, Path(folder) / name)
        return _keep(lab, visitor, Path(folder), base_name)


def _remark(run: Run) -> str:
    return run.classifier.remark if run.classifier else ""


def _one_of(files: Sequence[str], stem: str, suffix: str) -> str:
    """The file of this kind among those of an adapter's folder, also as a browser renames it.

    A file of the right name goes before one that only ends so; README and tokenizer are left alone.
    """
    ending = [file for file in files if Path(file).suffix.lower() == suffix]
    mine = [file for file in ending if Path(file).name.lower().startswith(stem)] or ending
    if len(mine) == 1:
        return mine[0]
    both = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
    if any(_OF_A_MODEL.fullmatch(Path(file).name.lower()) for file in mine):
        raise AdapterError(WHOLE_MODEL)
    if mine:
        raise AdapterError(say("take.several", n=len(mine), file=f"{stem}{suffix}", both=both))
    if any(Path(file).suffix.lower() in (".bin", ".pt", ".pth") for file in files):
        raise AdapterError(say("take.pickle"))
    raise AdapterError(say("take.two_files", config=CONFIG_FILE, weights=WEIGHTS_FILE))


def _keep(lab: Lab, visitor: str, source: Path, base_name: str) -> Run:
    bases = [lab.base(base_name if lab.bases.known(base_name) else "bundled")]
    bases += [base for base in [lab.base(), *lab.bases.values()] if base is not bases[0]]
    refused: OtherBaseError | None = None
    doubtful: Classifier | None = None  # it fits, and the file names another base
    for base in bases:
        try:
            classifier = load_adapter(source, base, max_bytes=MAX_UNPACKED)
        except OtherBaseError as error:
            refused = refused or error
        else:
            if not classifier.remark:
                return keep(lab, visitor, classifier)
            doubtful = doubtful or classifier
    if doubtful is not None:
        return keep(lab, visitor, doubtful)
    assert refused is not None
    raise refused


def _find(lab: Lab, visitor: str, run_id: str) -> Run | None:
    try:
        run = lab.registry.get(visitor, run_id) if run_id else None
    except RunError:
        return None
    return run if run is not None and run.classifier is not None else None


def _chosen(lab: Lab, visitor: str, run_id: str) -> Run:
    run = _find(lab, visitor, run_id)
    if run is None:
        raise RunError(say("take.nothing"))
    return run


def _has_adapter(run: Run) -> bool:
    """Whether A and B were trained: every run has settings of LoRA, also where they do nothing."""
    return run.lora_config is not None and not (
        run.train_config and run.train_config.method != "lora"
    )


def about_run(run: Run | None) -> dict[str, Any]:
    """What is shown at present, in a line."""
    if run is None or run.classifier is None:
        return {
            "title": say("take.untrained"),
            "text": say("take.untrained_about"),
        }
    adapter = _has_adapter(run)
    first, more = run.classifier.labels[:6], len(run.classifier.labels) - 6
    labels = ", ".join(first)
    if more > 0:
        labels = say("take.labels", labels=labels, more=more)
    return {
        "title": long_name(run),
        "text": say("take.about_adapter" if adapter else "take.about_model", labels=labels),
    }


def programs_for(run: Run | None, settings: Settings) -> dict[str, Any]:
    """The programs: use what is shown, and train the present settings again."""
    labels: Sequence[str] = (say("take.label_one"), say("take.label_two"))
    source, adapter, tokenizer = "assets/base", True, "."
    if run is not None and run.classifier is not None:
        labels, source = run.classifier.labels, run.classifier.base_source
        adapter = _has_adapter(run)
        tokenizer = "." if run.classifier.base_name == "bundled" else source
    use = peft_snippet(labels, source) if adapter else merged_snippet(tokenizer)
    return {
        "programs": [
            {"key": "use", "title": say("take.use_peft" if adapter else "take.use_transformers"),
             "note": say("take.use_note"), "code": use},
            {"key": "lora_core", "title": say("take.train_here"),
             "note": say("take.train_here_note"), "code": lora_core_program(settings)},
            {"key": "peft", "title": say("take.train_peft"),
             "note": say("take.train_peft_note"), "code": peft_program(settings)},
        ]
    }  # fmt: skip


def _note(message: object = "") -> dict[str, Any]:
    """A line beside the control; an error is told apart by more than its colour."""
    return {"text": str(message), "bad": isinstance(message, Exception)}


def _problem(error: Exception, where: str) -> dict[str, Any]:
    return {"text": sentence_of(error, where), "bad": True}
