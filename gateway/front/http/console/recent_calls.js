// The operator's list of running and recent calls, and whether the gateway is up.

const POLL_MS = 2000;
const TOLD_MS = 15000; // while the gateway tells what happens, it is asked this seldom
const TELLS = ["call.offered", "call.answered", "call.ended", "turn.said", "quality"];
const ANSWER_MS = 3000;
const SHOWN = 30;
export const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname); // the gateway's own machine, mostly
const byId = (id) => document.getElementById(id);

const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${hours ? two(Math.floor(whole / 60) % 60) : Math.floor(whole / 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
};

const cell = (text, className = "") => {
  const td = document.createElement("td");
  td.textContent = text ?? "";
  td.className = className;
  return td;
};

const POOR_MOS = 3.6; // below it many users are dissatisfied (G.107)

function sound(call) {
  const known = [call.mos, call.far_mos].filter((mos) => mos !== undefined);
  const worse = known.length ? Math.min(...known) : undefined;
  const td = cell(worse?.toFixed(1), worse < POOR_MOS ? "poor" : "");
  td.title = [
    ["From the caller", call.mos],
    ["to the caller", call.far_mos],
    ["worst ten seconds", call.mos_worst],
  ].filter(([, mos]) => mos !== undefined).map(([what, mos]) => `${what}: ${mos.toFixed(1)}`).join(", ");
  return td;
}

const opened = new Set(); // calls whose headers an operator reads; rows are made anew every two seconds

// what a trusted peer says of the call (P-Asserted-Identity, Diversion …), as it stands; strangers may have written it
function said(call) {
  const headers = Object.entries(call.headers ?? {});
  if (!headers.length) return [];
  const details = document.createElement("details");
  details.className = "said";
  details.open = opened.has(call.call_id);
  details.addEventListener("toggle", () => opened[details.open ? "add" : "delete"](call.call_id));
  const summary = document.createElement("summary");
  summary.textContent = headers.length === 1 ? "1 header" : `${headers.length} headers`;
  summary.setAttribute("aria-label", `${summary.textContent} that the peer sent with call ${call.call_id}`);
  const list = document.createElement("dl");
  for (const [name, value] of headers) {
    const [term, told] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, told.textContent] = [name, value];
    told.dir = "auto";
    list.append(term, told);
  }
  details.append(summary, list);
  return [details];
}

function row(call, now) {
  const tr = document.createElement("tr");
  const live = call.ended_at === undefined;
  const failed = !live && String(call.how ?? "").startsWith("failed");
  const chip = document.createElement("span");
  chip.className = `chip ${live ? "live" : ""} ${failed ? "failed" : ""}`;
  chip.textContent = live ? (call.state ?? "live") : failed ? "failed" : "ended";
  const state = cell("");
  state.append(chip);
  const began = call.started_at ? new Date(call.started_at * 1000) : null;
  const lasted = call.started_at ? clock((call.ended_at ?? now) - call.started_at) : "";
  const time = cell("");
  const link = document.createElement("a");
  link.href = `/calls/${encodeURIComponent(call.call_id)}`; // its page, drawn to time
  link.textContent = began ? began.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "page";
  time.append(link);
  if (began) time.title = began.toLocaleString();
  const end = cell("");
  if (live && me.rights.includes("calls.end")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Hang up";
    button.setAttribute("aria-label", `Hang up call ${call.call_id}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      await fetch(`/api/calls/${encodeURIComponent(call.call_id)}`, { method: "DELETE", signal: AbortSignal.timeout(ANSWER_MS) }).catch(() => {});
      refresh();
    });
    end.append(button);
  }
  const from = cell(call.caller ?? call.source ?? "");
  from.title = [call.source, call.transport].filter(Boolean).join(", ");
  from.append(...said(call));
  const to = cell(call.called ?? "");
  to.title = call.route ? `route ${call.route}` : "";
  tr.title = `call ${call.call_id}`;
  tr.append(state, from, to, time, cell(lasted), cell(call.turns), sound(call), cell(live ? "" : call.how, "how"), end);
  return tr;
}

// who asks, and what it may do here; asked once: a page that logs in is loaded anew
let me = { rights: [], token_id: "" };
fetch("/api/me", { signal: AbortSignal.timeout(ANSWER_MS) })
  .then((response) => (response.ok ? response.json() : me))
  .then((told) => {
    me = told;
    byId("logout").hidden = !me.token_id;
    byId("login").hidden = Boolean(me.token_id);
    refresh();
  })
  .catch(() => {});

let busy = false;
let asked = 0;
export async function refresh() {
  if (busy) return;
  busy = true;
  asked = Date.now();
  try {
    const [ready, listed] = await Promise.all([
      fetch("/readyz", { signal: AbortSignal.timeout(ANSWER_MS) }),
      fetch(`/api/calls?limit=${SHOWN}`, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(ANSWER_MS) }),
    ]);
    if (listed.status === 401) return location.assign("/login");
    const state = await ready.json();
    gateway(state.ready, state.ready ? "Ready" : notReady(state.parts ?? {}));
    if (!listed.ok) return;
    const { calls } = await listed.json();
    const table = byId("calls");
    if (table.contains(document.activeElement)) return; // keep an operator's focus on a button
    known = calls;
    const live = calls.filter((call) => call.ended_at === undefined).length;
    byId("calls-count").textContent = live ? `${live} running` : "";
    draw();
  } catch {
    away();
  } finally {
    busy = false;
  }
}

let known = [];

function draw() {
  const table = byId("calls");
  if (table.contains(document.activeElement)) return; // keep an operator's focus on a button
  const rows = known.slice(0, SHOWN).map((call) => row(call, Date.now() / 1000));
  if (!rows.length) {
    const none = document.createElement("tr");
    none.append(cell("No calls yet.", "none"));
    none.firstChild.colSpan = 9;
    rows.push(none);
  }
  table.replaceChildren(...rows);
}

export function away() {
  gateway(false, "The gateway does not answer");
}

function notReady(parts) {
  const named = (how) => Object.keys(parts).filter((name) => parts[name] === how).join(", ");
  const [down, slow] = [named("down"), named("slow")];
  return [down || !slow ? `Not ready${down ? `: ${down}` : ""}` : "", slow ? `Slow: ${slow}` : ""].filter(Boolean).join("; ");
}

function gateway(up, text) {
  byId("gateway").className = `gateway ${up ? "up" : "down"}`;
  if (byId("gateway-text").textContent !== text) byId("gateway-text").textContent = text;
}

// What happens is told on the stream of events; while that is closed, the page asks again and again.
let stream = null;
let listened = 0;
let soon = 0;

function listen() {
  listened = Date.now();
  stream = new EventSource(`/api/events?${TELLS.map((type) => `type=${type}`).join("&")}`);
  for (const type of TELLS) stream.addEventListener(type, happened);
}

function happened() {
  if (soon) return;
  soon = setTimeout(() => { soon = 0; if (!document.hidden) refresh(); }, Math.max(100, asked + POLL_MS - Date.now()));
}

setInterval(() => {
  if (document.hidden) return;
  const waited = Date.now() - asked;
  if (stream.readyState === EventSource.CLOSED && Date.now() - listened > TOLD_MS) listen();
  if (stream.readyState !== EventSource.OPEN || waited > TOLD_MS) refresh();
  else draw(); // the clocks of running calls go on
}, POLL_MS);
listen();
document.addEventListener("visibilitychange", () => document.hidden || refresh());
refresh();
