// What is pressed or dropped before the page is ready: the server has not named this visitor yet, nor
// do the link's settings stand, and what is asked for now would be done as nobody. So it is kept, and
// done once when the page is ready. Where that takes long, or fails, the page says so.
(() => {
  const { on, emit, state, t } = LoraLab;
  const ALONE = "#guide-start, #copy, #theme, #pin, #unpin, #take-png, #take-svg, #take-link"; // need no server
  const SOON = 1000; // ms: who waits no longer than that is told nothing
  const kept = new Map(); // what to do, by the id of what was pressed: it may be drawn anew meanwhile
  let telling = null;

  function keep(event, id, act) {
    event.stopImmediatePropagation();
    event.preventDefault();
    if (state.unnamed) return;
    kept.set(id, act);
    document.getElementById(id).setAttribute("aria-busy", "true");
    telling ??= setTimeout(() => emit("kept", t("page.kept")), SOON);
  }

  /** Those that were kept, which are not any more: [what it stands at, what to do]. */
  function taken() {
    clearTimeout(telling);
    const all = [...kept].map(([id, act]) => [document.getElementById(id), act]).filter(([place]) => place);
    kept.clear();
    for (const [place] of all) place.removeAttribute("aria-busy");
    return all;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[id]");
    if (state.restored || !button?.id || button.closest(".lab-part") || button.matches(ALONE)) return;
    keep(event, button.id, (again) => again.click());
  }, true);

  /** Files that were chosen or dropped: Gradio reads them from its input, now and later. */
  function bring(event, files) {
    const place = state.restored ? null : event.target.closest?.(".block[id]");
    if (!place?.querySelector("input[type=file]") || !files?.length) return;
    keep(event, place.id, (again) => {
      const input = again.querySelector("input[type=file]");
      input.files = files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }
  document.addEventListener("change", (event) => { if (event.target.type === "file") bring(event, event.target.files); }, true);
  document.addEventListener("drop", (event) => bring(event, event.dataTransfer?.files), true);

  on("restored", () => {
    emit("kept", "");
    const all = taken();
    setTimeout(() => { for (const [place, act] of all) act(place); }); // no animation frame: a tab in the background has none
  });
  on("unnamed", () => { taken(); emit("kept", t("page.unnamed")); });
})();
