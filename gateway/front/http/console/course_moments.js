// What happened in a call, as moments in order of time: { at, until, lane, group, tone, mark, what, text }.
// `what` is ours; `text` holds what others wrote, and is shown as text only. Events of kinds that are not known
// here are moments too, told as they stand.

import { POOR_MOS } from "./told_call.js";

export const GROUPS = {
  all: "all but log lines",
  talk: "the conversation",
  call: "the call and its keys",
  sound: "sound and its quality",
  trust: "mark and consent",
  wire: "SIP messages",
  bad: "what was wrong",
  log: "log lines",
};

export const LATE_MS = 3000; // an answer after more is late

const value = (one) => {
  if (typeof one === "number") return Number.isInteger(one) ? String(one) : String(Math.round(one * 1000) / 1000);
  return typeof one === "object" && one !== null ? JSON.stringify(one) : String(one);
};

// an event's data in words: name value, name value
export function facts(data, without = []) {
  const told = Object.entries(data ?? {}).filter(([name, one]) => one !== null && !without.includes(name));
  return told.map(([name, one]) => `${name.replaceAll("_", " ")} ${value(one)}`).join(", ");
}

const percent = (share) => `${(Math.round(share * 10) / 10).toString()} %`;

// loss, jitter and score in words; `far_`: our sound at the caller's
export function rated(data, prefix = "") {
  const said = [];
  const get = (name) => data[prefix + name];
  if (typeof get("loss_percent") === "number") said.push(`${percent(get("loss_percent"))} lost`);
  else if (typeof get("lost") === "number") said.push(`${get("lost")} lost`);
  if (typeof get("jitter_ms") === "number") said.push(`jitter ${Math.round(get("jitter_ms"))} ms`);
  if (typeof get("mos") === "number") said.push(`MOS ${get("mos").toFixed(1)}`);
  return said.join(", ");
}

export const isPoor = (data, prefix = "") =>
  data[`${prefix}mos`] < POOR_MOS || data[`${prefix}loss_percent`] >= 5 || data[`${prefix}jitter_ms`] >= 30;

function bargedIn(data) {
  const heard = (Array.isArray(data.heard_s) ? data.heard_s : []).filter(Number.isFinite);
  const said = [];
  if (Number.isFinite(data.onset_to_cut_s)) said.push(`our voice was cut ${data.onset_to_cut_s.toFixed(2)} s after the caller began`);
  if (heard.length) said.push(`${Math.max(...heard).toFixed(1)} s of it had been heard`);
  return said.join(", ") || facts(data);
}

const quality = (what) => (data) => ({
  lane: "", group: "sound", what,
  tone: isPoor(data) || isPoor(data, "far_") ? "bad" : "",
  text: [rated(data) && `from there ${rated(data)}`, rated(data, "far_") && `to there ${rated(data, "far_")}`].filter(Boolean).join("; "),
});

const called = { ringing: "It rings", answered: "Answered", confirmed: "Acknowledged", transferred: "Handed over", transferring: "Is handed over" };
const call = (what, tone = "", mark = "") => (data) => ({ lane: "events", group: "call", what, tone, mark: mark || what, text: facts(data) });
const trust = (what, tone, lane = "consent") => (data) => ({ lane, group: "trust", what, tone, text: facts(data) });

const KINDS = {
  opened: (data) => ({ lane: "events", group: "call", what: "The call came", mark: "came", text: facts(data, ["grant_refused"]) }),
  state: (data) => ({ lane: data.state === "confirmed" || data.state === "ringing" ? "" : "events", group: "call", what: called[data.state] ?? `State ${data.state}`, mark: data.state, text: facts(data, ["state", "answered_at"]) }),
  line: call("A line has it", "", "line"),
  confirmed: (data) => ({ lane: "", group: "call", what: "Acknowledged", text: facts(data) }),
  ended: (data) => ({ lane: "events", group: "call", what: "Ended", mark: "ended", text: data.how ?? "", tone: String(data.how ?? "").startsWith("failed") ? "bad" : "" }),
  dtmf: (data) => ({ lane: "events", group: "call", what: "Key", mark: data.digit ? `key ${data.digit}` : "key", text: data.digit ?? "kept by nobody" }),
  gathered: (data) => ({ lane: "events", group: "call", what: "Keys of a menu", mark: "keys", text: facts(data) }),
  hold: (data) => ({ lane: "events", group: "call", what: data.sending === false || data.receiving === false ? "Held" : "Held no more", mark: data.sending === false || data.receiving === false ? "hold" : "on again", text: facts(data) }),
  transfer: call("Transfer", "", "transfer"),
  transfer_rings: call("The target rings", "", "rings"),
  transfer_failed: call("Transfer failed", "bad", "failed"),
  transfer_refused: call("Transfer refused", "bad", "refused"),
  barge_in: (data) => ({ lane: "events", group: "talk", what: "Barge-in", mark: "barge-in", text: bargedIn(data) }),
  silence: (data) => ({ lane: "events", group: "talk", what: "Silence", mark: "silence", text: facts(data) }),
  goodbye: (data) => ({ lane: "events", group: "talk", what: "Goodbye", mark: "goodbye", text: facts(data) }),
  language: (data) => ({ lane: "events", group: "talk", what: "Language", mark: data.heard ?? "language", text: facts(data) }),
  tool: (data) => ({ lane: "events", group: "talk", what: "Tool", mark: "tool", text: facts(data) }),
  played: (data) => ({ lane: "events", group: "talk", what: "Played", mark: "played", text: facts(data) }),
  not_played: call("Not played", "bad"),
  recorded: (data) => ({ lane: "events", group: "call", what: data.error ? "Not recorded" : "Recorded", mark: "recorded", tone: data.error ? "bad" : "", text: facts(data, ["path"]) }),
  steered: call("By an operator", "warn", "operator"),
  engine_away: call("Engine away", "bad"),
  engine_back: call("Engine back", "good"),
  engine_refused: call("Engine refused", "bad"),
  echo: (data) => ({ lane: "events", group: "sound", what: "Our voice comes back", mark: "echo", tone: "warn", text: facts(data) }),
  rtp_moved: (data) => ({ lane: "events", group: "sound", what: "Sound comes from elsewhere", mark: "moved", tone: "warn", text: facts(data) }),
  quality: quality("Sound"),
  line_quality: quality("Sound of the whole call"),
  target_quality: quality("Sound with the target"),
  disclosed: trust("Told that it is a machine", "good"),
  disclosed_again: trust("Told again that it is a machine", "good"),
  voice_refused: trust("Consent refused, the stock voice stands in", "warn"),
  muted: trust("Consent withdrawn, the call falls silent", "bad"),
  mark_failed: trust("A frame was not marked, silence went out", "bad", "mark"),
  mark_not_found: trust("The mark was not found, the call falls silent", "bad", "mark"),
  route: trust("Route and grant", ""),
  grant: (data) => ({ lane: "consent", group: "trust", tone: "good", what: "May speak", text: facts(data, ["until", "grant"]) }),
};

const STAGES = {
  endpoint: "end of turn", asked: "engine asked", word: "first word", sound: "first sound", frame: "first frame", wire: "on the wire",
  endpointing: "end of turn", engine: "engine", playout: "on the wire",
};
export const stageName = (name) => STAGES[name] ?? name.replaceAll("_", " ");

// how long a caller waited for a turn of ours, ms, from the end of speech to the wire; undefined: it is no answer
export const waited = (turn) => {
  const whole = turn.course_ms?.wire ?? turn.latency_ms?.whole;
  return Number.isFinite(whole) ? whole : undefined;
};

// its stages in the order in which they were over, each with how long it took after the one before, ms
export function stages(turn) {
  const valid = (table) => Object.entries(table ?? {}).filter(([name, ms]) => name !== "whole" && Number.isFinite(ms) && ms >= 0);
  const over = valid(turn.course_ms).sort(([, a], [, b]) => a - b);
  if (over.length) return over.map(([name, ms], n) => [name, ms - (over[n - 1]?.[1] ?? 0)]);
  return valid(turn.latency_ms);
}

function turn({ at, data }) {
  const caller = data.who === "caller";
  const length = (caller ? data.duration_s : data.heard_s ?? data.duration_s) ?? 0;
  const whole = waited(data);
  return {
    at, until: at + Math.max(0, length), lane: "words", group: "talk", row: caller ? 0 : 1, data,
    tone: whole > LATE_MS ? "bad" : "",
    what: caller ? "Caller" : "Our voice",
    text: data.text ?? (data.intent ? `(${data.intent})` : "(words are not kept)"),
    more: [
      length ? `${length.toFixed(1)} s` : "",
      data.interrupted ? "cut short" : "",
      whole !== undefined ? `answered after ${(whole / 1000).toFixed(2)} s` : "",
    ].filter(Boolean).join(", "),
  };
}

function unknown({ kind, data }) {
  const lane = /mark/.test(kind) ? "mark" : /grant|consent|revo|voice/.test(kind) ? "consent" : "events";
  const group = lane === "events" ? "call" : "trust";
  return { lane, group, what: kind.replaceAll("_", " "), mark: kind.replaceAll("_", " "), text: facts(data), tone: "" };
}

// after a grant was refused, another voice speaks: the call's first event says so
function refusedGrant({ at, kind, data }) {
  if (kind !== "opened" || !data.grant_refused) return [];
  const what = "Consent refused, the stock voice stands in";
  return [{ at, until: at, lane: "consent", group: "trust", what, text: data.grant_refused, tone: "warn" }];
}

export const wireName = (messages) => (messages.every((one) => one.protocol === "http") ? "HTTP" : "SIP");
const failedAnswer = (first) => /^SIP\/2\.0 ([4-6]\d\d)/.exec(first)?.[1];

function wire(message) {
  const status = failedAnswer(message.first);
  const outward = message.from === "us";
  return {
    at: message.at, until: message.at, lane: "sip", group: "wire", row: outward ? 1 : 0, name: wireName([message]),
    tone: status && !["401", "407", "487"].includes(status) ? "bad" : "",
    what: `${message.from} → ${message.to}`, text: message.first,
  };
}

const LEVELS = { warning: "warn", warn: "warn", error: "bad", critical: "bad" };

function logged(line) {
  return { at: line.at, until: line.at, lane: "log", group: "log", line, tone: LEVELS[line.level] ?? "", what: `${line.level} of ${line.process}`, text: [line.event, facts(line.fields)].filter(Boolean).join(": ") };
}

const WRONG_STEPS = { underrun: "Our voice was not ready in time", not_marked: "Silence went out for what was not marked", muted: "Our voice is muted" };
const APART_S = 1; // what is so near is one moment
const MOST_RUNS = 300;

// steps of the sound track in which something was wrong, those near each other together
function runs({ parts, step_s: step, flag_names: names }) {
  const found = [];
  for (const [name, what] of Object.entries(WRONG_STEPS)) {
    let run = null;
    for (const part of parts) {
      for (let n = 0; n < part.flags.length && found.length < MOST_RUNS; n += 1) {
        if (!(part.flags[n] & names[name])) continue;
        const at = part.began_at + n * step;
        if (!run || at - run.until > APART_S) found.push(run = { at, steps: 0, lane: "steps", group: "sound", tone: "warn", what });
        run.until = at + step;
        run.steps += 1;
      }
    }
  }
  for (const run of found) run.text = run.steps > 1 ? `in ${run.steps} steps of ${step} s` : `in one step of ${step} s`;
  return found;
}

// what the sound track tells beside levels: verdicts on the mark, grants, ducks
function* tracked(sound, events) {
  const isTold = (at) => events.some((one) => one.kind === "grant" && Math.abs(one.at - at) < .5);
  for (const { at, found, score } of sound.marks ?? []) {
    yield { at, until: at, lane: "mark", group: "trust", tone: found ? "good" : "bad", what: found ? "Mark found" : "Mark not found", text: score === undefined ? "" : `score ${score}` };
  }
  for (const { at, until, renewed } of sound.grants ?? []) {
    if (!renewed && isTold(at)) continue;
    yield { at, until: at, lane: "consent", group: "trust", tone: "good", what: renewed ? "Grant renewed" : "Grant", text: until === undefined ? "" : `holds ${Math.round(until - at)} s` };
  }
  for (const { at, seconds, cut } of sound.ducks ?? []) {
    yield { at: at - (seconds ?? 0), until: at, lane: "ducks", group: "talk", tone: "", what: "Our voice is ducked", text: cut ? "and cut: the caller went on" : "and came back" };
  }
}

export function momentsOf({ call, ladder, log, causes, sound }) {
  const found = [];
  const events = call.events ?? [];
  const isTwice = ({ kind, data }) => kind === "state" && data.state === "confirmed" && events.some((one) => one.kind === "confirmed");
  for (const event of events) {
    if (isTwice(event)) continue;
    if (event.kind === "turn") found.push(turn(event));
    else found.push({ at: event.at, until: event.at, ...(Object.hasOwn(KINDS, event.kind) ? KINDS[event.kind](event.data) : unknown(event)), data: event.data, kind: event.kind });
    found.push(...refusedGrant(event));
  }
  found.push(...ladder.map(wire), ...log.map(logged), ...tracked(sound, events), ...runs(sound));
  for (const cause of causes) {
    found.push({ at: cause.since, until: cause.since, lane: "", group: "bad", tone: "bad", what: "Wrong", text: `${cause.what} (${cause.event}: ${cause.number})` });
  }
  return found.sort((a, b) => a.at - b.at);
}

// spans of a kind of event that begins and ends: from the first that `opens` to the next that does not
export function spans(events, kind, opens, end) {
  const found = [];
  let since = null;
  for (const event of events) {
    if (event.kind !== kind) continue;
    if (opens(event.data)) since ??= event.at;
    else if (since !== null) { found.push([since, event.at]); since = null; }
  }
  if (since !== null) found.push([since, end]);
  return found;
}
