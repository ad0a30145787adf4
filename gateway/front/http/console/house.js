// How the house is: asked every five seconds while somebody looks. Its plans are plans.js's matter.

import { Refused, ask, askWho } from "./asking.js";
import { byId, made, say, sign } from "./elements.js";
import { forgetPlan, mayAct, planIs, showUsers } from "./plans.js";
import { fill } from "./rows.js";
import { inFull, moment, roughly } from "./times.js";
import { showTrunks } from "./trunks.js";

const POLL_MS = 5000;
const SOON_S = 30 * 86400; // a certificate that is over by then wants a look
const LITTLE = 0.1; // of the disk

let me = null;
let shownAt = 0; // when the house was as it is shown
let busy = false;
let again = false;

async function refresh() {
  again = busy; // somebody has just changed something: what is under way may not know it yet
  if (busy) return;
  busy = true;
  try {
    await look();
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) {
      blank(error.status === 401 ? "Your login is over." : `${error.message}.`, true);
    } else away(error);
  } finally {
    busy = false;
  }
  if (again) refresh();
}

async function look() {
  me = await askWho(); // each time: a right may be given, or taken back
  mayAct(me.rights);
  if (!me.rights.includes("calls.read")) {
    blank(`${me.name} (${me.role}) may not see the house: that needs the right calls.read.`, true);
    return;
  }
  const house = await ask("/api/house");
  show(house);
  await Promise.all([planIs(house.plan), showTrunks(me.rights), me.rights.includes("users.write") && showUsers()]);
}

function blank(text, login = false) {
  shownAt = 0;
  for (const body of document.querySelectorAll("tbody, #facts")) body.replaceChildren(); // it was for whoever was there
  forgetPlan();
  sign("", "Not shown");
  for (const part of document.querySelectorAll("[data-shown]")) part.hidden = true;
  byId("stale").hidden = true;
  byId("blank").hidden = false;
  if (byId("blank-text").dataset.said === text) return;
  byId("blank-text").dataset.said = text;
  byId("blank-text").textContent = login ? `${text} ` : text;
  if (!login) return;
  const link = made("a", "", "Log in");
  link.href = "/login?then=/house";
  byId("blank-text").append(link);
}

function away(error) {
  const why = error instanceof Refused ? error.message : "The gateway does not answer";
  if (!shownAt) {
    blank(`${why}. It is asked again every five seconds.`);
    return;
  }
  sign("down", "Does not answer");
  say(byId("stale"), `${why}. What stands below is as of ${moment(shownAt)}.`);
  byId("stale").hidden = false;
}

function show(house) {
  shownAt = house.at;
  byId("blank").hidden = byId("stale").hidden = true;
  say(byId("blank-text"), "");
  byId("blank-text").dataset.said = "";
  for (const part of document.querySelectorAll("[data-shown]")) part.hidden = Boolean(part.dataset.shown) && !me.rights.includes(part.dataset.shown);
  sign(house.ready ? "up" : "down", house.ready ? "Ready" : "Takes no calls");
  say(byId("as-of"), moment(house.at));
  say(byId("takes"), house.ready ? "Calls are taken." : "No calls are taken:");
  byId("takes").className = house.ready ? "state" : "state problem";
  list(byId("why"), house.ready ? [] : house.why.length ? house.why : ["nobody says why"]);
  list(byId("parts"), Object.entries(house.parts).map(([part, how]) => `${part} ${how}`),
    (line) => `chip ${line.endsWith(" ready") ? "live" : "failed"}`);
  facts(house);
  fill(byId("places"), Object.entries(house.places).map(([of, { all, free }]) => ({
    key: of, cells: [of, all, { text: free, className: free ? "" : "poor" }],
  })), "Nobody says.");
  fill(byId("halls"), house.halls.map(hall), "No hall has told yet.");
  fill(byId("processes"), house.processes.map((one) => process(one, house.at)), "Nobody says.");
  fill(byId("receivers"), house.receivers.map(({ name, waiting, missed }) => ({
    key: name, cells: [name, waiting, { text: missed, className: missed ? "poor" : "" }],
  })), "Nobody is told.");
  fill(byId("refused"), (house.refused ?? []).map(({ status, reason, count, last_at }) => ({
    key: `${status} ${reason}`, cells: [status, { text: reason, className: "how" }, count, moment(last_at)],
  })), house.refused ? "None." : "The database does not say.");
  byId("alarms-card").hidden = !Object.keys(house.alarms).length;
  fill(byId("alarms"), Object.entries(house.alarms).map(([kind, count]) => ({ key: kind, cells: [kind, count] })), "None.");
}

function hall({ name, calls, at_most, full, strain, told_ago_s }) {
  const used = Object.entries(strain).map(([measure, share]) => `${measure.replace(/_s$/, "").replaceAll("_", " ")} ${Math.round(share * 100)} %`);
  const silent = told_ago_s > 3 ? `silent for ${roughly(told_ago_s)}; ` : "";
  const most = at_most === null ? "no bound" : at_most;
  return { key: name, cells: [name, calls, full ? { text: `${most}, full`, className: "poor" } : most, { text: silent + used.join(", "), className: "how" }] };
}

function process({ name, state, since, restarts, memory_bytes, error }, now) {
  return {
    key: name,
    cells: [
      name,
      { text: state === "failing" ? "dies again and again" : state, chip: state === "up" ? "live" : "failed" },
      since === null ? "" : { text: `${moment(since)} (${roughly(now - since)})`, title: inFull(since) },
      restarts === null ? "" : { text: restarts, className: restarts ? "poor" : "" },
      size(memory_bytes),
      { text: error, className: "how" },
    ],
  };
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

function facts(house) {
  const { build, engine, certificates, disk } = house;
  const where = engine.at.length ? ` at ${engine.at.join(", ")}` : "";
  const told = [
    ["Version", [build.version, build.commit && `commit ${build.commit}`, `Python ${build.python}`].filter(Boolean).join(", ")],
    ["Calls now", house.calls],
    ["Telephones", `${house.registered} registered${house.unreachable ? `, ${house.unreachable} not reachable` : ""}`, house.unreachable],
    ["Engine", `${engine.kind}${engine.model ? ` (${engine.model})` : ""}${where}`],
    ["Certificates", certificates.map((one) => ending(one, house.at)).join("; ") || "none: TLS is off", certificates.some(({ ends_at }) => ends_at !== null && ends_at - house.at < SOON_S)],
    ["Disk of the data directory", disk ? `${size(disk.free)} free of ${size(disk.all)}` : "cannot be asked", !disk || disk.free < disk.all * LITTLE],
    ["Telemetry", house.collector ? `to ${house.collector}` : "none (VOICEGATE_OTLP_URL)"],
    ["Watermark", house.watermark],
    ["Ledger", [house.ledger, house.ledger_doubt].filter(Boolean).join("; "), house.ledger_doubt],
    ["Consent office", house.office || "for whoever may reload"],
  ];
  const box = byId("facts");
  if (!box.childElementCount) for (const [name] of told) {
    const pair = made("div");
    pair.append(made("dt", "", name), made("dd"));
    box.append(pair);
  }
  told.forEach(([, text, poor], index) => {
    const value = box.children[index].lastElementChild;
    say(value, text === "" ? "not said" : text);
    value.className = poor ? "poor" : "";
  });
}

function ending({ what, ends_at }, now) {
  if (ends_at === null) return `${what} says no end`;
  const left = ends_at - now;
  return left > 0 ? `${what} ends in ${roughly(left)} (${moment(ends_at)})` : `${what} ended on ${moment(ends_at)}`;
}

function list(box, lines, className = () => "") {
  while (box.childElementCount > lines.length) box.lastElementChild.remove();
  lines.forEach((line, index) => {
    const item = box.children[index] ?? box.appendChild(made("li"));
    say(item, line);
    item.className = className(line);
  });
}

setInterval(() => document.hidden || refresh(), POLL_MS);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("house:changed", refresh);
refresh();
