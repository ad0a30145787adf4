// The dialplans in force: routes, targets, voices; check, reload, and which route a call would take.
// The users who may log in by telephone, too.

import { ask } from "./asking.js";
import { byId, made, say } from "./elements.js";
import { fill } from "./rows.js";
import { moment } from "./times.js";

const RELOAD_MS = 90000; // as long as the gateway gives itself
let shown = ""; // the version whose routes are shown

export function mayAct(rights) {
  if (byId("plan-acts").hidden === rights.includes("plans.reload")) shown = ""; // targets' addresses come, or go
  byId("plan-acts").hidden = !rights.includes("plans.reload");
  byId("plan-no-right").hidden = rights.includes("plans.reload");
}

export function forgetPlan() {
  shown = "";
  for (const part of ["plan-from", "plan-told", "voices", "tried"]) byId(part).replaceChildren();
}

// The version that is in force now: its routes are asked for when it is another one.
export async function planIs(version) {
  if (version === shown) return;
  try {
    const [plan, { voices }] = await Promise.all([ask("/api/dialplans"), ask("/api/voices").catch(() => ({ voices: null }))]);
    shown = plan.version;
    draw(plan);
    say(byId("voices"), voices ? `Voices: ${voices.join(", ") || "none"}.` : "Which voices there are cannot be asked now.");
  } catch (error) {
    say(byId("plan-version"), version);
    say(byId("plan-from"), `Its routes cannot be asked now: ${error.status ? error.message : "the gateway does not answer"}.`);
  }
}

function draw(plan) {
  say(byId("plan-version"), plan.version);
  const files = [...new Set(plan.routes.map((route) => route.file))];
  say(byId("plan-from"), `From ${files.join(", ") || "no file"}${plan.folder ? ` in ${plan.folder}` : ""}.`);
  fill(byId("routes"), plan.routes.map(route), "No routes.");
  const hows = { trunk: "over a trunk", telephone: "a registered telephone", caller: "the caller is asked to call it" };
  fill(byId("targets"), plan.targets.map(({ name, by, address }) => ({
    key: name,
    cells: [name, hows[by] ?? by, address ? { text: address, className: "how" } : { text: "for whoever may reload", className: "none" }],
  })), "None.");
}

function route(one) {
  return {
    key: one.name,
    cells: [one.name, { text: takes(one), className: "how" }, { text: one.verbs.join(" → "), className: "how" }, `${one.voice}, ${one.language}`, `${one.file}:${one.line}`],
  };
}

function takes(one) {
  if (!one.called.length) return "from another route only";
  const headers = Object.entries(one.headers ?? {}).map(([name, patterns]) => `header ${name} ${patterns.join(" or ")}`);
  return [
    one.emergency ? "emergency calls" : "",
    `called ${one.called.join(", ")}`,
    one.caller?.length ? `caller ${one.caller.join(", ")}` : "",
    one.source?.length ? `from ${one.source.join(", ")}` : "",
    ...headers,
    one.hours?.length ? `hours ${one.hours.join(", ")}${one.zone ? ` (${one.zone})` : ""}` : "",
  ].filter(Boolean).join("; ");
}

// ── check and reload ──

const acts = { check: "/api/dialplans/check", reload: "/api/reload" };
let acting = false;

for (const [name, path] of Object.entries(acts)) byId(name).addEventListener("click", () => act(name, path));

async function act(name, path) {
  if (acting) return;
  acting = true;
  for (const other of Object.keys(acts)) byId(other).setAttribute("aria-disabled", "true"); // a focus stays
  told([made("p", "", name === "check" ? "The plans are tried…" : "The house reads anew…")]);
  try {
    const done = await ask(path, { method: "POST", within: RELOAD_MS });
    if (name === "check") told([made("p", "", done.version === shown ? "It loads, and is what is in force." : `It would load, as version ${done.version}. In force is ${shown}.`)]);
    else told([made("p", "", done.plan === done.was ? `Read anew. The plan is the same: ${done.plan}.` : `Read anew. In force is ${done.plan}; before it was ${done.was}.`), ...notes(done.notes)]);
  } catch (error) {
    told(refused(name, error));
  } finally {
    acting = false;
    for (const other of Object.keys(acts)) byId(other).removeAttribute("aria-disabled");
    dispatchEvent(new Event("house:changed"));
  }
}

function refused(name, error) {
  const problem = error.problem ?? {};
  if (error.status === 401 || error.status === 403) return [made("p", "problem", `${error.message}.`)];
  if (!error.status) return [made("p", "problem", "The gateway does not answer; what it did is not known. What is in force shows below once it does.")];
  const parts = Object.entries(problem.failed ?? { dialplans: error.message });
  const lines = made("ul");
  for (const [part, why] of parts) lines.append(made("li", "", `${part}: ${why}`));
  const stays = name === "check" ? `A reload would not take it. In force stays ${shown}.` : `In force is plan ${problem.plan ?? shown}; ${parts.map(([part]) => part).join(", ")} stay as they were.`;
  const box = made("div", "problem");
  box.append(made("p", "", name === "check" ? "It does not load:" : "Not all was taken:"), lines, made("p", "", stays));
  return [box, ...notes(problem.notes)];
}

function notes(given) {
  return (given ?? []).map((note) => made("p", "notice", note));
}

function told(parts) {
  byId("plan-told").replaceChildren(...parts);
}

// ── which route ──

byId("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
  try {
    tried(await ask(`/api/dialplans/route?${new URLSearchParams(given)}`));
  } catch (error) {
    byId("tried").replaceChildren(made("p", "problem", error.status ? error.message : "The gateway does not answer."));
  }
});

function tried(answer) {
  const parts = [];
  if (answer.route) {
    const { name, file, line, verbs, voice, language } = answer.route;
    parts.push(made("p", "taken", `Route ${name} takes it (${file}:${line}).`));
    parts.push(made("p", "detail", `${takes(answer.route)}. It does: ${verbs.join(" → ")}. Voice ${voice}, language ${language}.`));
  } else parts.push(made("p", "problem", answer.why));
  parts.push(made("p", "detail", `As of ${answer.at.replace("T", " ")}, by plan ${answer.plan}.`));
  if (answer.passed.length) {
    const lines = made("ol");
    for (const { name, why } of answer.passed) {
      const item = made("li");
      item.append(made("b", "", name), `: ${why}`);
      lines.append(item);
    }
    parts.push(made("p", "", answer.route ? "Routes before it, and why they do not:" : "Routes, and why they do not:"), lines);
  }
  byId("tried").replaceChildren(...parts);
}

// ── users ──

export async function showUsers() {
  const [{ users }, { telephones }] = await Promise.all([ask("/api/users"), ask("/api/telephones")]).catch(() => [{}, {}]);
  if (!users) return fill(byId("users"), [], "They cannot be asked now.");
  const rows = users.flatMap((user) => {
    const its = telephones.filter((one) => one.user === user.name);
    const more = [user.legacy && "legacy", user.srtp && `SRTP ${user.srtp}`].filter(Boolean);
    const role = [user.role, ...more].join(", ");
    if (!its.length) return [{ key: user.name, cells: [user.name, role, { text: "not registered", className: "none" }, "", ""] }];
    return its.map((one, index) => ({
      key: `${user.name} ${index}`,
      cells: [user.name, role, { text: `${one.source} by ${one.transport}${one.user_agent ? `, ${one.user_agent}` : ""}`, className: "how" }, reach(one), moment(one.expires_at)],
    }));
  });
  return fill(byId("users"), rows, "No users.");
}

function reach({ lost_at, answers, round_trip_ms }) {
  if (lost_at !== null) return { text: "not reachable", chip: "failed" };
  if (answers === false) return { text: "does not answer", chip: "failed" };
  if (answers) return { text: round_trip_ms === null ? "answers" : `answers in ${Math.round(round_trip_ms)} ms`, chip: "live" };
  return { text: "registered", chip: "" };
}
