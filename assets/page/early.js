// Before the first paint: the view that this visitor had, or that the link asks for.
(() => {
  let view = new URLSearchParams(location.search).get("view");
  try { view ??= localStorage.getItem("lora-lab-view"); } catch { /* private */ }
  document.documentElement.dataset.view = view === "full" ? "full" : "simple";
  // What stands below the first three cards appears when these have their height: nothing jumps.
  document.documentElement.dataset.loading = "";
  setTimeout(() => { delete document.documentElement.dataset.loading; }, 10000); // whatever happens
})();
