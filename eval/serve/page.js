"use strict";
/* Every column is a model with a conversation of its own; what is asked goes to all that are shown. */

const $ = (id) => document.getElementById(id);
const columns = []; /* {model, shown, messages, box, log, speed, detail, abort} */
let busy = 0;

function element(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

function millions(n) {
  return n >= 1e9 ? (n / 1e9).toFixed(2) + " B" : (n / 1e6).toFixed(1) + " M";
}

function headers() {
  const h = { "Content-Type": "application/json" };
  if ($("key").value) h.Authorization = "Bearer " + $("key").value;
  return h;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function problem(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return "the server answered " + response.status;
  }
}

/* ---- columns ---- */

function makeColumn(model, first) {
  const c = { model, shown: true, messages: [], abort: null };
  const id = "column" + columns.length;
  c.box = element("section", "column");
  c.box.setAttribute("aria-labelledby", id);
  const head = element("header"), foot = element("footer"), name = element("h2", "", model.id);
  name.id = id;
  let facts = millions(model.parameters) + " parameters, " + model.blocks + " blocks";
  if (first && first !== model) {
    const share = Math.round(100 * (1 - model.parameters / first.parameters));
    if (share) facts += ", " + Math.abs(share) + " % " + (share > 0 ? "fewer" : "more");
  }
  if (!model.chat) facts += "; no chat template: continues what is typed";
  head.append(name, element("p", "facts", facts));
  c.log = element("div", "log");
  c.log.setAttribute("role", "log");
  c.log.setAttribute("aria-label", "Conversation with " + model.id);
  c.log.tabIndex = 0;
  c.speed = element("p", "speed");
  c.detail = element("p", "facts");
  foot.append(c.speed, c.detail);
  c.box.append(head, c.log, foot);
  c.toggle = element("button", "", model.id);
  c.toggle.type = "button";
  c.toggle.addEventListener("click", () => show(c, !c.shown));
  columns.push(c);
  $("models").append(c.toggle);
  show(c, true);
  clearColumn(c);
}

function show(c, on) {
  if (!on && (c.abort || columns.filter((o) => o.shown).length === 1)) return;
  c.shown = on;
  c.toggle.setAttribute("aria-pressed", on);
  const after = columns.slice(columns.indexOf(c) + 1).find((o) => o.shown && o.box.isConnected);
  const one = columns.filter((o) => o.shown).length === 1;
  $("prompt").placeholder = one ? "Ask" : "Ask all of them";
  if (on) $("columns").insertBefore(c.box, after ? after.box : null);
  else c.box.remove();
}

function clearColumn(c) {
  c.messages = [];
  c.log.replaceChildren();
  c.speed.replaceChildren(element("b", "", "–"), " tokens/s");
  c.detail.textContent = millions(c.model.parameters) + " parameters";
}

/* Follows the end of the text, unless the reader has scrolled away from it. */
function write(c, change) {
  const follow = c.log.scrollHeight - c.log.scrollTop - c.log.clientHeight < 40;
  change();
  if (follow) c.log.scrollTop = c.log.scrollHeight;
}

/* ---- asking ---- */

function body(c) {
  const b = {
    model: c.model.id, stream: true, stream_options: { include_usage: true },
    temperature: Number($("temperature").value) || 0, max_tokens: Math.max(1, Math.floor(Number($("max").value)) || 256),
    seed: Math.floor(Number($("seed").value)) || 0,
  };
  if (!c.model.chat) return { ...b, prompt: c.messages[c.messages.length - 1].content };
  const system = $("system").value.trim();
  return { ...b, messages: (system ? [{ role: "system", content: system }] : []).concat(c.messages) };
}

/* Calls `each` with every event's object. */
async function readEvents(stream, each) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop();
    for (const part of parts)
      if (part.startsWith("data: ") && part !== "data: [DONE]") each(JSON.parse(part.slice(6)));
  }
}

function tell(c, t, final) {
  const seconds = (t.last - t.first) / 1000;
  const speed = t.tokens > 1 && seconds > 0 ? ((t.tokens - 1) / seconds).toFixed(1) : "–";
  c.speed.replaceChildren(element("b", "", speed), " tokens/s ", element("span", "ended", final));
  c.detail.textContent = millions(c.model.parameters) + " parameters · " + t.tokens + " tokens" +
    (t.first ? " · first after\u00a0" + ((t.first - t.start) / 1000).toFixed(2) + "\u00a0s" : "");
}

async function answer(c) {
  const reply = element("p", "reply waiting"), t = { start: performance.now(), first: 0, last: 0, tokens: 0 };
  let text = "", final = "";
  write(c, () => c.log.append(reply));
  c.abort = new AbortController();
  try {
    const url = c.model.chat ? "/v1/chat/completions" : "/v1/completions";
    const r = await fetch(url, { method: "POST", headers: headers(), body: JSON.stringify(body(c)), signal: c.abort.signal });
    if (!r.ok) throw new Error(await problem(r));
    await readEvents(r.body, (e) => {
      if (e.error) throw new Error(e.error.message);
      const choice = e.choices[0];
      if (e.usage) t.tokens = e.usage.completion_tokens;
      if (!choice) return;
      const piece = choice.delta ? choice.delta.content : choice.text;
      if (choice.finish_reason) final = choice.finish_reason === "length" ? "cut at the limit" : "";
      if (!piece) return;
      t.last = performance.now();
      if (!t.first) t.first = t.last;
      t.tokens++;
      text += piece;
      write(c, () => { reply.textContent = text; });
      tell(c, t, "");
    });
    tell(c, t, final);
  } catch (e) {
    if (e.name === "AbortError") {
      tell(c, t, "stopped");
    } else {
      reply.classList.add("bad");
      if (!text) reply.textContent = e.message;
      else write(c, () => c.log.append(element("p", "reply bad", e.message)));
    }
  }
  if (text) c.messages.push({ role: "assistant", content: text });
  else c.messages.pop(); /* an exchange without an answer would break the turns of some templates */
  reply.classList.remove("waiting");
  c.abort = null;
}

function setBusy(on) {
  busy = on;
  $("send").hidden = on;
  $("stop").hidden = !on;
  $("clear").disabled = on;
  for (const c of columns) c.box.setAttribute("aria-busy", on && c.shown);
}

async function ask() {
  const text = $("prompt").value.trim(), asked = columns.filter((c) => c.shown);
  if (busy || !text || !asked.length) return;
  setBusy(true);
  $("prompt").value = "";
  grow();
  for (const c of asked) {
    c.messages.push({ role: "user", content: text });
    write(c, () => c.log.append(element("p", "mine", text)));
    c.log.scrollTop = c.log.scrollHeight;
  }
  if ($("order").value === "once") await Promise.all(asked.map(answer));
  else
    for (const c of asked)
      if (busy) await answer(c);
      else c.messages.pop();
  setBusy(false);
  $("prompt").focus();
}

function stop() {
  if (!busy) return;
  busy = false;
  for (const c of columns) if (c.abort) c.abort.abort();
}

/* ---- the page ---- */

function grow() {
  const p = $("prompt");
  p.style.height = "auto";
  p.style.height = p.scrollHeight + 2 + "px";
}

async function load() {
  try {
    const r = await fetch("/v1/models", { headers: headers() });
    if (!r.ok) {
      if (r.status === 401) $("settings").open = true;
      notice(await problem(r));
      return;
    }
    const models = (await r.json()).data;
    for (const m of models) makeColumn(m, models[0]);
    $("models").hidden = models.length === 1;
    notice("");
  } catch {
    notice("The server does not answer.");
  }
}

$("ask").addEventListener("submit", (e) => { e.preventDefault(); ask(); });
$("prompt").addEventListener("input", grow);
$("prompt").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); ask(); }
});
document.addEventListener("keydown", (e) => {
  if (e.key !== "Escape") return;
  if ($("settings").open) $("settings").open = false;
  else stop();
});
document.addEventListener("click", (e) => { if (!$("settings").contains(e.target)) $("settings").open = false; });
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => { for (const c of columns) clearColumn(c); $("prompt").focus(); });
$("key").addEventListener("change", () => { if (!columns.length) load(); });
load();
