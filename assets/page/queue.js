// The page's connection to its server: under the address where the page really is, and so that no
// answer is lost while the page is busy.
//
// A proxy may publish the page under a prefix that it does not tell the server. The page knows it:
// it is the address it was opened at. The server is told with each request.
//
// Gradio's client (6.31) listens to the answers of its queue on one connection. The server ends it
// with `close_stream` as soon as nothing is pending, and the client opens another with its next
// request, unless it believes that the old one still stands. So a request that is joined after
// that farewell was sent, but before it was read, is answered where nobody listens, for ever. Both
// travel on different connections, and a page that is being drawn reads late: it happens.
//
// Here the client gets one stream that never says farewell. Behind it a connection is made whenever
// something is pending, and ends when nothing is. Must run before Gradio's own scripts (head.py).
(() => {
  // In another site's frame a browser may refuse all storage; then the page forgets its visitor at
  // a reload, and works otherwise.
  for (const name of ["localStorage", "sessionStorage"]) {
    try { window[name].getItem(""); } catch {
      const kept = new Map();
      const storage = {
        getItem: (key) => kept.get(String(key)) ?? null,
        setItem: (key, value) => { kept.set(String(key), String(value)); },
        removeItem: (key) => { kept.delete(String(key)); },
        clear: () => kept.clear(),
      };
      Object.defineProperty(window, name, { configurable: true, value: storage });
    }
  }

  const base = new URL(".", document.baseURI);
  const prefix = base.pathname.slice(0, -1);
  if (window.gradio_config) window.gradio_config.root = base.href.slice(0, -1);

  const browsersFetch = window.fetch.bind(window);

  function plainFetch(input, options) {
    if (!prefix) return browsersFetch(input, options);
    const request = new Request(input, options);
    if (request.url.startsWith(base.href)) request.headers.set("X-Forwarded-Prefix", prefix);
    return browsersFetch(request);
  }

  const sessions = new Map();
  const BROKEN = "broken_connection"; // Gradio's word for it

  /** What is known of a session: joined events without an answer, answers that came first, and the
   *  stream that the client reads. */
  function sessionOf(hash) {
    if (!sessions.has(hash)) sessions.set(hash, { pending: new Set(), early: new Set(), line: null });
    return sessions.get(hash);
  }

  async function join(input, options) {
    const answer = await plainFetch(input, options);
    if (!answer.ok) return answer;
    const { event_id: event } = await answer.clone().json();
    const session = sessionOf(JSON.parse(options.body).session_hash);
    if (!session.early.delete(event)) session.pending.add(event);
    read(session);
    return answer;
  }

  /** The client's stream. It ends when the client does not want it any more. */
  function open(request) {
    const session = sessionOf(new URL(request.url).searchParams.get("session_hash"));
    const line = { request, reading: false, controller: null };
    const body = new ReadableStream({ start(controller) { line.controller = controller; } });
    request.signal.addEventListener("abort", () => {
      if (session.line === line) session.line = null;
      line.controller.error(request.signal.reason);
    });
    session.line = line;
    read(session);
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  async function read(session) {
    const { line } = session;
    if (!line || line.reading) return;
    line.reading = true;
    try {
      while (session.line === line && session.pending.size) {
        const answer = await plainFetch(line.request.clone());
        if (!answer.ok) throw new Error(answer.status);
        for await (const text of messages(answer.body)) relay(session, line, text);
      }
    } catch {
      // What was pending is lost, and the client says so; what it asks for later is not.
      relay(session, line, `data: ${JSON.stringify({ msg: BROKEN, message: LoraLab.t("fault.lost") })}`);
    }
    line.reading = false;
  }

  /** The texts between blank lines, each a message of server-sent events. */
  async function* messages(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      yield* parts;
    }
  }

  const encoder = new TextEncoder();

  function relay(session, line, text) {
    if (session.line !== line) return;
    // Most messages are none of these, and long: they are not parsed twice.
    const kind = /"(close_stream|process_completed|unexpected_error|broken_connection)"/.test(text)
      ? JSON.parse(text.replace(/^data:/, "")) : {};
    if (kind.msg === "close_stream") return;
    if (kind.msg === "process_completed" && !session.pending.delete(kind.event_id))
      session.early.add(kind.event_id);
    if (["unexpected_error", BROKEN].includes(kind.msg)) session.pending.clear(); // the end of all
    line.controller.enqueue(encoder.encode(`${text}\n\n`));
  }

  window.fetch = (input, options) => {
    const { pathname } = new URL(input instanceof Request ? input.url : input, location.href);
    if (pathname.endsWith("/queue/join")) return join(input, options);
    if (pathname.endsWith("/queue/data") && input instanceof Request) return Promise.resolve(open(input));
    return plainFetch(input, options);
  };
})();
