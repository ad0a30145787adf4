// The operator's list of running and recent calls, and whether the gateway is up.

import { Refused, ask, askWho, loginAddress } from "./asking.js";
import { button, byId, made, sign } from "./elements.js";
import { inFull, moment, offset } from "./times.js";
import { POOR_MOS, lives, soundInFull, soundOf, stateOf } from "./told_call.js";

const POLL_MS = 2000;
const TOLD_MS = 15000; // while the gateway tells what happens, it is asked this seldom
const TELLS = ["call.offered", "call.answered", "call.ended", "turn.said", "quality"];
const ANSWER_MS = 3000;
const SHOWN = 30;
export const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname); // the gateway's own machine, mostly

const cell = (text, className = "") => made("td", className, text ?? "");

function sound(call) {
  const mos = soundOf(call);
  const td = cell(mos?.toFixed(1), mos < POOR_MOS ? "poor" : "");
  td.title = soundInFull(call);
  return td;
}

const opened = new Set(); // calls whose headers an operator reads; rows are made anew every two seconds

// what a trusted peer says of the call (P-Asserted-Identity, Diversion …), as it stands; strangers may have written it
function said(call) {
  const headers = Object.entries(call.headers ?? {});
  if (!headers.length) return [];
  const summary = made("summary", "", headers.length === 1 ? "1 header" : `${headers.length} headers`);
  summary.setAttribute("aria-label", `${summary.textContent} that the peer sent with call ${call.call_id}`);
  const list = made("dl", "", ...headers.flatMap(([name, value]) => [made("dt", "", name), made("dd", "", value)]));
  for (const told of list.querySelectorAll("dd")) told.dir = "auto";
  const details = made("details", "said", summary, list);
  details.open = opened.has(call.call_id);
  details.addEventListener("toggle", () => opened[details.open ? "add" : "delete"](call.call_id));
  return [details];
}

function row(call, now) {
  const tr = made("tr");
  const isLive = lives(call);
  const [form, stands] = stateOf(call);
  const state = made("td", "", made("span", `chip ${form}`, stands));
  const length = call.started_at && call.state !== "unknown" ? offset(Math.max(0, (call.ended_at ?? now) - call.started_at), 0) : "";
  const link = made("a", "", call.started_at ? moment(call.started_at, now) : "page");
  link.href = `/calls/${encodeURIComponent(call.call_id)}`; // its page, drawn to time
  const time = made("td", "", link);
  if (call.started_at) time.title = inFull(call.started_at);
  const end = cell("");
  if (isLive && me.rights.includes("calls.end")) {
    const hangUp = button("Hang up", async () => {
      hangUp.disabled = true;
      await ask(`/api/calls/${encodeURIComponent(call.call_id)}`, { method: "DELETE", within: ANSWER_MS }).catch(() => {});
      refresh();
    }, `Hang up call ${call.call_id}`);
    end.append(hangUp);
  }
  const from = cell(call.caller ?? call.source ?? "");
  from.title = [call.source, call.transport].filter(Boolean).join(", ");
  from.append(...said(call));
  const to = cell(call.called ?? "");
  to.title = call.route ? `route ${call.route}` : "";
  tr.title = `call ${call.call_id}`;
  tr.append(state, from, to, time, cell(length), cell(call.turns), sound(call), cell(isLive ? "" : call.how, "how"), end);
  return tr;
}

// what they may do here is asked once: a page that logs in is loaded anew
let me = { rights: [], token_id: "" };
askWho().then((told) => {
  me = told;
  refresh();
}).catch(() => {});

let busy = false;
let asked = 0;
export async function refresh() {
  if (busy) return;
  busy = true;
  asked = Date.now();
  try {
    const [ready, listed] = await Promise.all([
      ask("/readyz", { within: ANSWER_MS }).catch(answered),
      ask(`/api/calls?limit=${SHOWN}`, { within: ANSWER_MS }).catch(answered),
    ]);
    if (listed.status === 401) return location.assign(loginAddress());
    sign(ready.ready ? "up" : "down", ready.ready ? "Ready" : notReady(ready.parts ?? {}));
    const { calls } = listed;
    if (!calls) return;
    const table = byId("calls");
    if (table.contains(document.activeElement)) return; // keep an operator's focus on a button
    known = calls;
    const live = calls.filter(lives).length;
    byId("calls-count").textContent = live ? `${live} running` : "";
    draw();
  } catch {
    away();
  } finally {
    busy = false;
  }
}

// a refusal is an answer, too, if the gateway gave it
function answered(error) {
  if (error instanceof Refused && Object.keys(error.problem).length) return { ...error.problem, status: error.status };
  throw error;
}

let known = [];

function draw() {
  const table = byId("calls");
  if (table.contains(document.activeElement)) return; // keep an operator's focus on a button
  const rows = known.slice(0, SHOWN).map((call) => row(call, Date.now() / 1000));
  if (!rows.length) {
    const none = cell("No calls yet.", "none");
    none.colSpan = 9;
    rows.push(made("tr", "", none));
  }
  table.replaceChildren(...rows);
}

export function away() {
  sign("down", "The gateway does not answer");
}

function notReady(parts) {
  const named = (how) => Object.keys(parts).filter((name) => parts[name] === how).join(", ");
  const [down, slow] = [named("down"), named("slow")];
  return [down || !slow ? `Not ready${down ? `: ${down}` : ""}` : "", slow ? `Slow: ${slow}` : ""].filter(Boolean).join("; ");
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
