// The list of calls: what is searched, how it is sorted and which page is seen stands in the address, so that it can
// be shared, and Back goes where one was. What happens in calls is told by the stream of events.

import { Refused, ask, askWho, loginAddress } from "./asking.js";
import { COLUMNS, Rows, heads } from "./calls_rows.js";
import { byId, say, sayOrHide, sign } from "./elements.js";

const PAGE = 50;
const ANSWER_MS = 15000;
const TYPED_MS = 350; // who writes on is not searched for yet
const SOON_MS = 2000; // it is asked so often at most, whatever happens
const AGAIN_MS = 5000;
const WRITTEN_MS = 700; // what was told stands in the registry by then
const TELLS = ["call.offered", "call.answered", "call.ended", "call.refused"];
const TEXTS = ["caller", "called", "id", "route", "voice", "least_s", "most_s"];
const OF_REFUSED = ["caller", "called", "id", "since", "until", "cursor"];
const OF_CALLS = [...OF_REFUSED, "route", "voice", "least_s", "most_s", "poor", "state", "failed", "how", "sort"];
const form = byId("search");
const field = form.elements;
const rows = new Rows(byId("rows"));

let view = ""; // which list is shown: calls or refused
let page = null; // what was told last
let isSecond = false; // the field that is typed in has changed the address already
let asking = null;
let asked = 0;
let timer = 0;
let typed = 0;

// ── the address ────────────────────────────────────────────────────────────────────────────────────────

const address = () => new URLSearchParams(location.search);
const viewOf = (query) => (query.get("view") === "refused" ? "refused" : "calls");
const known = (query) => (viewOf(query) === "refused" ? OF_REFUSED : OF_CALLS);

function go(query, { replace = false } = {}) {
  const kept = new URLSearchParams([...query].filter(([, value]) => value !== ""));
  const text = kept.size ? `?${kept}` : "";
  if (text !== location.search) history[replace ? "replaceState" : "pushState"](null, "", location.pathname + text);
}

// the form as it stands, in the address's words; a search begins on its first page
function written() {
  const query = new URLSearchParams();
  if (view === "refused") query.set("view", "refused");
  for (const name of TEXTS) query.set(name, field[name].value.trim());
  for (const name of ["since", "until"]) {
    const at = new Date(field[name].value).getTime() / 1000;
    if (Number.isFinite(at)) query.set(name, String(at));
  }
  if (field.poor.checked) query.set("poor", "true");
  const [name, value] = field.end.value.split("=");
  if (name) query.set(name, value);
  query.set("sort", field.sort.value);
  for (const one of [...query.keys()]) if (one !== "view" && !known(query).includes(one)) query.delete(one);
  return query;
}

// the form says what the address says; a blank that one has just written stays
function read() {
  const query = address();
  const put = (input, value) => {
    if (input !== document.activeElement || input.value.trim() !== value) input.value = value;
  };
  for (const name of TEXTS) put(field[name], query.get(name) ?? "");
  for (const name of ["since", "until"]) put(field[name], local(query.get(name)));
  field.poor.checked = query.get("poor") === "true";
  const end = ["state", "failed", "how"].filter((name) => query.get(name)).map((name) => `${name}=${query.get(name)}`)[0] ?? "";
  if (![...field.end.options].some((option) => option.value === end)) field.end.append(new Option(end.split("=")[1], end));
  field.end.value = end;
  field.sort.value = query.get("sort") ?? "";
  const further = ["id", "route", "voice", "least_s", "most_s", "poor"].filter((name) => query.get(name) && known(query).includes(name));
  byId("further-count").textContent = further.length ? ` (${further.length} set)` : "";
  byId("clear").hidden = ![...query.keys()].some((name) => !["view", "sort", "cursor"].includes(name));
}

// seconds since the epoch as the field for a time has it
function local(text) {
  const then = new Date(Number(text) * 1000);
  if (!text || Number.isNaN(then.getTime())) return "";
  return new Date(then.getTime() - then.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

// ── asking ─────────────────────────────────────────────────────────────────────────────────────────────

// `quietly`: nobody asked for it, something happened
async function load({ quietly = false, says = "" } = {}) {
  if (quietly && asking) return happened(); // what was asked before may not say it yet
  clearTimeout(timer);
  const query = address();
  if (!quietly) {
    clearTimeout(typed);
    turn(viewOf(query));
    read(); // else a field that one writes in would be put back
  }
  const wanted = new URLSearchParams({ limit: PAGE, count: "true" });
  for (const name of known(query)) if (query.get(name)) wanted.set(name, query.get(name));
  if (!quietly) {
    asking?.abort();
    byId("rows").parentElement.setAttribute("aria-busy", "true");
  }
  const mine = (asking = new AbortController());
  asked = Date.now();
  try {
    const told = await ask(`/api/${view}?${wanted}`, { within: ANSWER_MS, signal: mine.signal });
    if (mine.signal.aborted) return;
    if (Array.isArray(told[view])) shown(told, wanted, quietly ? "" : says);
    else problem("What answers is not the gateway. It is asked again.", true);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error instanceof Refused) refused(error, wanted);
    else problem("The gateway does not answer. It is asked again.", true);
  } finally {
    if (asking === mine) asking = null;
  }
}

function refused({ status, problem: told }, wanted) {
  if (status === 401) return location.assign(loginAddress());
  if (status === 403) return problem(`You may not see calls: the right ${told.right ?? "calls.read"} is missing. Log in with a token that has it.`, false);
  if (status === 400 && wanted.get("cursor")) {
    const query = address();
    query.delete("cursor");
    go(query, { replace: true });
    return load({ says: "That page is of another search; this is the first one." });
  }
  if (status === 400) return problem(`That cannot be searched for: ${told.detail ?? "the gateway does not say why"}.`, false);
  problem(`The list cannot be read: ${told.detail ?? `HTTP ${status}`}. It is asked again.`, true);
}

function shown(told, wanted, says) {
  const listed = told[view];
  if (wanted.get("cursor") && told.previous === null) {
    const query = address(); // the way back ends on the first page, which is whole
    query.delete("cursor");
    go(query, { replace: true });
    if (listed.length < PAGE) return void load({ says });
  }
  page = told;
  problem("");
  notice(told.silence ? `${told.silence}: which calls run, and what is known of each beside this, is not said.` : says);
  rows.show(listed, Date.now() / 1000);
  const table = byId("rows").parentElement;
  table.setAttribute("aria-busy", "false");
  table.classList.remove("stale");
  table.hidden = !listed.length;
  byId("none").hidden = listed.length > 0;
  byId("none").textContent = nothing();
  const count = counted(told, listed.length);
  say(byId("count"), count);
  if (says !== "") byId("said").textContent = `${count}, ${listed.length} shown. ${says}`;
  byId("previous").setAttribute("aria-disabled", String(!told.previous));
  byId("next").setAttribute("aria-disabled", String(!told.next));
  byId("previous").parentElement.hidden = !told.previous && !told.next;
}

function nothing() {
  if (!byId("clear").hidden) return view === "refused" ? "No call that was not taken is like that." : "No call is like that.";
  return view === "refused" ? "No call was refused yet." : "No calls yet.";
}

function counted(told, listed) {
  const count = (told.found ?? listed).toLocaleString("en");
  if (told.found_more) return `more than ${count} calls`;
  if (view === "refused") return `${count} refused, alike ones as one`;
  return `${count} ${told.found === 1 ? "call" : "calls"}`;
}

function problem(text, isAgain = false) {
  sayOrHide(byId("problem"), text);
  if (!text) return;
  const table = byId("rows").parentElement;
  table.setAttribute("aria-busy", "false");
  table.classList.add("stale");
  byId("none").hidden = page !== null;
  byId("none").textContent = "";
  table.hidden = page === null;
  if (isAgain) timer = setTimeout(() => load({ quietly: true }), AGAIN_MS);
}

const notice = (text) => sayOrHide(byId("notice"), text);

// the other list: other columns, other fields
function turn(wanted) {
  const sort = address().get("sort") ?? "";
  if (view !== wanted) {
    view = wanted;
    page = null;
    document.body.dataset.view = view;
    rows.set(COLUMNS[view]);
    byId("none").hidden = false;
    byId("none").textContent = "Loading…";
    for (const one of ["calls", "refused"]) {
      if (one === view) byId(`view-${one}`).setAttribute("aria-current", "page");
      else byId(`view-${one}`).removeAttribute("aria-current");
    }
  }
  const had = document.activeElement?.dataset?.sort;
  byId("heads").replaceChildren(...heads(COLUMNS[view], sort, sorted));
  if (had) byId("heads").querySelector(`[data-sort="${had}"]`)?.focus();
}

// ── what an operator does ──────────────────────────────────────────────────────────────────────────────

function search({ typing = false } = {}) {
  clearTimeout(typed);
  go(written(), { replace: typing && isSecond });
  isSecond = typing;
  load({ says: " " });
}

function sorted(sort) {
  field.sort.value = sort;
  search();
}

function turnPage(cursor) {
  if (!cursor) return;
  const query = address();
  query.set("cursor", cursor);
  go(query);
  isSecond = false;
  load({ says: " " }).then(() => byId("list").scrollIntoView({ block: "start" }));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (form.reportValidity()) search();
});
form.addEventListener("input", (event) => {
  if (!TEXTS.includes(event.target.name)) return;
  clearTimeout(typed);
  typed = setTimeout(() => form.checkValidity() && search({ typing: true }), TYPED_MS);
});
form.addEventListener("focusout", () => { isSecond = false; });
form.addEventListener("change", (event) => {
  if (TEXTS.includes(event.target.name)) return;
  if (form.checkValidity()) search();
});
byId("clear").addEventListener("click", () => {
  const query = address();
  go(new URLSearchParams(["view", "sort"].filter((name) => query.get(name)).map((name) => [name, query.get(name)])));
  field.caller.focus();
  load({ says: " " });
});
byId("previous").addEventListener("click", () => turnPage(page?.previous));
byId("next").addEventListener("click", () => turnPage(page?.next));
for (const one of ["calls", "refused"]) {
  byId(`view-${one}`).addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(new URLSearchParams(one === "refused" ? { view: one } : {}));
    load({ says: " " });
  });
}
addEventListener("popstate", () => { isSecond = false; load({ says: " " }); });

// what routes and voices there are is asked when somebody looks
byId("further").addEventListener("toggle", async () => {
  for (const [id, path, names] of [
    ["routes", "/api/dialplans", (told) => told.routes.map((route) => route.name)],
    ["voices", "/api/voices", (told) => told.voices],
  ]) {
    if (byId(id).children.length) continue;
    const told = await ask(path).catch(() => null);
    if (told) byId(id).replaceChildren(...[...new Set(names(told))].map((name) => new Option(name, name)));
  }
}, { once: true });

// ── what happens meanwhile ─────────────────────────────────────────────────────────────────────────────

let stream = null;
let soon = 0;

function listen() {
  stream = new EventSource(`/api/events?${TELLS.map((type) => `type=${type}`).join("&")}`);
  stream.addEventListener("open", () => sign("up", "As it happens"));
  stream.addEventListener("error", () => {
    sign("down", "Not told of changes");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  });
  for (const type of TELLS) stream.addEventListener(type, happened);
}

function happened() {
  if (soon) return;
  soon = setTimeout(() => {
    soon = 0;
    if (!document.hidden) load({ quietly: true });
  }, Math.max(WRITTEN_MS, asked + SOON_MS - Date.now()));
}

setInterval(() => {
  if (!document.hidden && view === "calls") rows.tick(Date.now() / 1000);
}, 1000);
document.addEventListener("visibilitychange", () => document.hidden || load({ quietly: true }));
addEventListener("pagehide", () => stream?.close());
addEventListener("pageshow", (event) => event.persisted && (listen(), load({ quietly: true })));

byId("login").addEventListener("click", () => { byId("login").href = loginAddress(); }); // by then it is another search
askWho().catch(() => {});
listen();
load();
