// The page of one call: asks for its course, shows it, and goes on with a call that lives.

import { Refused, ask, askWho, loginAddress } from "./asking.js";
import { showAbout, showAnswers, showVerdict } from "./course_about.js";
import { Ladder } from "./course_ladder.js";
import { momentsOf, wireName } from "./course_moments.js";
import { Player } from "./course_player.js";
import { Stage } from "./course_stage.js";
import { MomentTable } from "./course_table.js";
import { byId, sayOrHide, sign } from "./elements.js";
import { lives } from "./told_call.js";

const ANSWER_MS = 10000;
const SOON_MS = 2000; // a living call is asked for so often at most
const LATER_MS = 4000; // and at least, while the page is seen: levels are told by no event
const SPARE = 10; // a long call's course takes its time: it is asked for in a tenth of it at most
const AWAY_MS = 5000;
const SETTLES_MS = 26000; // words of its last turns may be written down so long after its end
const callId = decodeURIComponent(location.pathname.split("/").pop());
const path = `/api/calls/${encodeURIComponent(callId)}/course`;

const stage = new Stage((moment) => table.open(moment), (at) => player.seek(at));
const go = (at, near = true) => {
  stage.go(at);
  if (near) byId("axis").scrollIntoView({ block: "nearest" });
  if (near) byId("stage").focus({ preventScroll: true });
};
const table = new MomentTable(go);
const ladder = new Ladder(byId("ladder"), go);
const player = new Player((at) => stage.put(at));

let mayHear = false;
let shown = false;
let stream = null;
let timer = 0;
let asked = 0;
let took = 0;
let seenEnd = 0;

function problem(text) {
  sayOrHide(byId("problem"), text);
  document.querySelector("main").setAttribute("aria-busy", "false");
}

const notice = (text) => sayOrHide(byId("notice"), text);

// what a course says, and what follows from it: where it begins and ends, whether it lives
function read(told) {
  const { call } = told;
  const isLive = call.state !== "refused" && lives(call);
  const parts = told.sound.parts;
  const times = [...told.ladder, ...told.log, ...(call.events ?? [])].map((one) => one.at);
  const sounds = parts.flatMap((one) => [one.began_at, one.began_at + one.flags.length * told.sound.step_s]);
  const all = [...times, ...sounds, call.started_at, call.ended_at].filter(Number.isFinite);
  const begin = all.length ? all.reduce((a, b) => Math.min(a, b)) : 0;
  const last = all.length ? all.reduce((a, b) => Math.max(a, b)) : 1;
  const end = isLive ? Math.max(last, Date.now() / 1000) : last;
  return { ...told, isLive, begin, end: Math.max(end, begin + 1), zero: call.started_at || begin, hasTime: times.length > 0 || parts.length > 0 };
}

function show(told) {
  const course = read(told);
  const moments = momentsOf(course);
  showAbout(course);
  showVerdict(course, go);
  const { silence } = course.call;
  const forgotten = !(course.call.events ?? []).length && course.call.state !== "refused";
  notice(silence ? `What happened in this call is not known now: ${silence}. It is asked again.` : forgotten ? "What happened in this call is not kept any more: this is what the registry has of it." : course.sound.ended_early ? "The call was longer than its sound track: its levels are kept for the first hours only." : "");
  if (course.hasTime) stage.show(course, moments);
  player.show(course, mayHear && course.recordings !== null);
  showAnswers(course, moments, go);
  byId("wire").hidden = !course.ladder.length;
  byId("wire-title").textContent = wireName(course.ladder);
  if (course.ladder.length) ladder.show(course);
  byId("moments").hidden = !moments.length;
  if (moments.length) table.show(course, moments);
  shown = true;
  problem("");
  return course;
}

async function load() {
  clearTimeout(timer);
  timer = 0;
  asked = Date.now();
  try {
    const told = await ask(path, { within: ANSWER_MS });
    took = Date.now() - asked;
    const course = show(told);
    if (!course.isLive) seenEnd ||= course.call.state === "unknown" ? -Infinity : Date.now();
    sign("up", course.isLive ? "Live" : "Over");
    if (course.call.silence) again(AWAY_MS);
    else goOn(course);
  } catch (error) {
    if (error instanceof Refused) refused(error);
    else away();
  }
}

function refused({ status, message }) {
  if (status === 401) return location.assign(loginAddress());
  if (status === 404) {
    problem(`No call ${callId.slice(0, 64)} is known here. It may never have come, or its row is gone. The page Calls has the latest.`);
    sign("down", "Not found");
  } else if (status === 403) {
    problem(`You may not read calls: ${message}. Log in with a token that may.`);
    sign("down", "No right");
    byId("login").hidden = false;
  } else {
    problem(`The gateway cannot tell now: ${message}. It is asked again.`);
    sign("down", "Not known now");
    again(AWAY_MS);
  }
}

function away() {
  if (!shown) problem("The gateway does not answer. It is asked again.");
  else notice("The gateway does not answer: this is how the call was. It is asked again.");
  sign("down", "The gateway does not answer");
  again(AWAY_MS);
}

function again(ms) {
  timer ||= setTimeout(() => {
    timer = 0;
    if (document.hidden) again(ms); // nobody looks
    else load();
  }, ms);
}

// while it lives, and a little longer: what is told on the stream of events is asked for
function goOn(course) {
  const goesOn = course.isLive || Date.now() - seenEnd < SETTLES_MS && Date.now() / 1000 - (course.call.ended_at ?? 0) < SETTLES_MS / 1000;
  if (!goesOn) {
    stream?.close();
    stream = null;
    return;
  }
  again(Math.max(LATER_MS, SPARE * took));
  if (stream && stream.readyState !== EventSource.CLOSED) return;
  stream = new EventSource(`/api/events?call_id=${encodeURIComponent(course.call.call_id)}`); // the page's may be the caller's own
  for (const type of ["call.answered", "call.disclosed", "turn.heard", "turn.said", "key", "transfer", "consent.refused", "mark.alarm", "quality", "message.left", "call.ended", "call.note"]) stream.addEventListener(type, happened);
}

function happened() {
  clearTimeout(timer);
  timer = 0;
  again(Math.max(100, asked + Math.max(SOON_MS, SPARE * took) - Date.now()));
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && timer) load(); });
byId("login").href = loginAddress();
askWho()
  .then((me) => { mayHear = me.rights.includes("recordings.read"); })
  .catch(() => {})
  .finally(load);
