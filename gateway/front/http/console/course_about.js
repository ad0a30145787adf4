// What stands above and below the picture of a call: who and when, why it was bad, how long answers took.

import { button, byId, foreign, isNew, made } from "./elements.js";
import { LATE_MS, rated, stageName, stages, waited } from "./course_moments.js";
import { STAGE_COLOURS } from "./course_lanes.js";
import { clock, inFull, lasted, offset } from "./times.js";

const ENDS = { ended: "ended", refused: "refused", unknown: "no end is known" };

function rowsOf(course) {
  const { call } = course;
  const ended = call.ended_at ?? (course.isLive ? Date.now() / 1000 : undefined);
  const refused = call.refused;
  return [
    ["From", [call.caller || "(nobody)", call.name].filter(Boolean).join(" · ")],
    ["To", call.called],
    ["When", call.started_at && inFull(call.started_at)],
    ["How long", call.started_at && ended ? lasted(ended - call.started_at) : ""],
    ["How it ended", refused ? `refused: ${refused.status} ${refused.reason}` : call.how],
    ["Times", refused?.count > 1 ? `${refused.count} calls alike, the first one ${inFull(refused.first_at)}` : ""],
    ["Came from", [call.source, call.transport, call.trunk && `trunk ${call.trunk}`, call.user && `user ${call.user}`].filter(Boolean).join(", ")],
    ["Route", [call.route, call.dialplan && `of ${call.dialplan.split("/").pop()}`].filter(Boolean).join(" ")],
    ["Plan", call.plan],
    ["Voice", call.voice],
    ["Codec", [call.codec, call.srtp && `encrypted (${call.srtp})`].filter(Boolean).join(", ")],
    ["Sound from the caller", rated(call)],
    ["Sound to the caller", rated(call, "far_")],
    ["Call", call.call_id],
  ].filter(([, told]) => told);
}

export function showAbout(course) {
  const { call } = course;
  byId("about").hidden = false;
  const who = call.transport === "webrtc" ? "a browser" : String(call.name || call.caller || call.source || "nobody");
  byId("about-title").replaceChildren("Call from ", foreign(who, 80));
  document.title = `Call from ${who.slice(0, 60)} – voicegate`;
  const failed = String(call.how ?? "").startsWith("failed") || call.state === "refused";
  byId("state").className = `chip ${course.isLive ? "live" : ""} ${failed ? "failed" : ""}`;
  byId("state").textContent = course.isLive ? (call.state ?? "live") : failed && call.state !== "refused" ? "failed" : ENDS[call.state] ?? "ended";
  const parts = rowsOf(course).map(([name, told]) => made("div", "", made("dt", "", name), made("dd", "", foreign(told))));
  for (const [name, told] of Object.entries(call.headers ?? {})) {
    parts.push(made("div", "", made("dt", "", foreign(name, 64)), made("dd", "", foreign(told))));
  }
  byId("facts").replaceChildren(...parts);
}

export function showVerdict(course, go) {
  byId("verdict").hidden = false;
  if (!isNew(byId("causes"), [course.causes, course.not_known, course.isLive, course.hasTime, course.zero])) return;
  const list = made("ol", "causes");
  for (const cause of course.causes) {
    const since = cause.since < cause.at - .0005 ? ` since ${offset(cause.since - course.zero)}` : "";
    const item = made("li", "",
      made("p", "what", cause.what),
      made("p", "evidence", made("b", "", cause.event), ` at ${clock(cause.at)}${since}: `, foreign(cause.number)),
      made("p", "remedy", cause.remedy));
    if (course.hasTime) item.append(button(`Go to ${offset(cause.since - course.zero)}`, () => go(cause.since), `Go to ${offset(cause.since - course.zero)}: ${cause.what}`));
    list.append(item);
  }
  const wrong = course.causes.length > 0;
  byId("verdict").classList.toggle("wrong", wrong);
  byId("verdict-title").textContent = wrong ? (course.call.state === "refused" ? "Why it was not taken" : course.isLive ? "What is wrong so far" : "Why it was bad") : course.isLive ? "Nothing is wrong so far" : course.not_known.length ? "Nothing was wrong, as far as is known" : "Nothing was wrong";
  const unsure = course.not_known.map((what) => made("p", "unsure", `Not known: ${what}`));
  byId("causes").replaceChildren(...(wrong ? [list] : []), ...unsure);
}

// each answer as a bar of its stages, all to one scale; in the colours of the picture
export function showAnswers(course, moments, go) {
  const answers = moments.filter((one) => one.lane === "words" && waited(one.data) !== undefined);
  byId("answers").hidden = !answers.length;
  if (!answers.length || !isNew(byId("waterfall"), answers.map((one) => [one.at, one.data]))) return;
  const names = [...new Set(moments.filter((one) => one.lane === "words").flatMap((one) => stages(one.data).map(([name]) => name)))];
  const colour = (name) => `stage-${STAGE_COLOURS[names.indexOf(name) % STAGE_COLOURS.length]}`;
  const wholes = answers.map((one) => waited(one.data));
  const longest = Math.max(...wholes);
  const sorted = [...wholes].sort((a, b) => a - b);
  byId("median").textContent = `median ${(sorted[Math.floor((sorted.length - 1) / 2)] / 1000).toFixed(2)} s, longest ${(longest / 1000).toFixed(2)} s`;
  const key = made("ul", "key", ...names.map((name) => made("li", "", made("i", colour(name)), stageName(name))));
  const list = made("ol", "bars");
  for (const one of answers.slice(-200)) {
    const whole = waited(one.data);
    const bar = made("span", "bar");
    for (const [name, ms] of stages(one.data)) {
      const part = made("i", colour(name));
      part.style.width = `${100 * ms / longest}%`;
      bar.append(part);
    }
    const split = stages(one.data).map(([name, ms]) => `${stageName(name)} ${Math.round(ms)}`).join(" + ");
    const when = offset(one.at - course.zero);
    const item = made("li", whole > LATE_MS ? "late" : "",
      button(when, () => go(one.at - whole / 1000), `Go to the answer at ${when}`), bar,
      made("span", "took", made("b", "", `${Math.round(whole)} ms`), ` = ${split}`));
    list.append(item);
  }
  byId("waterfall").replaceChildren(key, list);
}
