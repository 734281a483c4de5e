// Before the first paint: the view that this visitor had, or that the link asks for.
(() => {
  let view = new URLSearchParams(location.search).get("view");
  try { view ??= localStorage.getItem("lora-lab-view"); } catch { /* private */ }
  document.documentElement.dataset.view = view === "full" ? "full" : "simple";
  // The page appears when all of its first screen is drawn (lab.js): until then it takes its place
  // unseen, and nothing jumps.
  document.documentElement.dataset.loading = "";
  setTimeout(() => { delete document.documentElement.dataset.loading; }, 10000); // whatever happens
})();
