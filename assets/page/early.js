// Before the first paint: the view that this visitor had, or that the link asks for.
(() => {
  let view = new URLSearchParams(location.search).get("view");
  try { view ??= localStorage.getItem("lora-lab-view"); } catch { /* private */ }
  document.documentElement.dataset.view = view === "full" ? "full" : "simple";
})();
