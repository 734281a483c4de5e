// Before the first paint: the view that this visitor had, or that the link asks for.
(() => {
  let view = new URLSearchParams(location.search).get("view");
  try { view ??= localStorage.getItem("lora-lab-view"); } catch { /* private */ }
  document.documentElement.dataset.view = view === "full" ? "full" : "simple";
  // The page appears when all of its first screen is drawn (lab.js): until then it takes its place
  // unseen, and nothing jumps.
  const page = document.documentElement;
  page.dataset.loading = "";
  let seconds = 20; // after Gradio has begun to draw: then it is shown, whatever is missing
  const timer = setInterval(() => {
    if (document.querySelector(".bench")) seconds -= 1;
    if (seconds > 0 && "loading" in page.dataset) return;
    delete page.dataset.loading;
    clearInterval(timer);
  }, 1000);
  // A script that does not arrive leaves parts that do nothing when they are pressed: the page says so.
  function incomplete() {
    if (!document.body) { addEventListener("DOMContentLoaded", incomplete); return; }
    if (document.getElementById("incomplete")) return;
    const line = document.createElement("p");
    line.id = "incomplete";
    line.setAttribute("role", "alert");
    line.textContent = window.LabSentences["page.incomplete"];
    document.body.prepend(line);
  }
  addEventListener("error", ({ target }) => { if (target instanceof HTMLScriptElement) incomplete(); }, true);
  addEventListener("vite:preloadError", incomplete); // of Gradio's own
})();
