// One call from this page: microphone, offer and answer, the "events" channel, keypad, meters, state.

import { away, here, refresh } from "/console/recent_calls.js";
import { Conversation } from "/console/conversation.js";
import { Devices } from "/console/devices.js";
import { Meter } from "/console/meter.js";

const GATHER_MS = 700;
const OFFER_MS = 10000;
const CONNECT_MS = 10000; // before the gateway gives the call up, which waits for 15 s
const HOPELESS_MS = 4000;
const LOOK_MS = 400;
const SILENT_MS = 1000; // the gateway sends a packet every 20 ms, in silence too
const ASK_MS = 1000;
const RESTART_MS = 3000;
const RETRY_MS = 1000;
const LIVED_MS = 1000; // one that ends at once is not opened anew more often
const PATCH_MS = 3000; // the gateway gives a silent browser up after 15 s; a way that is dead must not cost all of them
const GONE_MS = 30000; // by then it has
const SMALL = "(max-width: 800px)";
const KEYS = {
  1: [697, 1209], 2: [697, 1336], 3: [697, 1477], 4: [770, 1209], 5: [770, 1336], 6: [770, 1477],
  7: [852, 1209], 8: [852, 1336], 9: [852, 1477], "*": [941, 1209], 0: [941, 1336], "#": [941, 1477],
};
const STATES = {
  idle: ["Ready to call", "An automated voice will answer."],
  asking: ["Waiting for your microphone", "Allow it in the browser’s question."],
  connecting: ["Calling…", ""],
  listening: ["Listening", "Say something, or press a key."],
  thinking: ["Thinking…", ""],
  speaking: ["Speaking", "You may interrupt."],
  announcing: ["Speaking", "Listen first, then speak."],
  shaky: ["Connection is shaky", "No sound comes from the gateway."],
  held: ["On hold", ""],
  ended: ["Call ended", ""],
  failed: ["No call", ""],
};
const $ = (id) => document.getElementById(id);

const conversation = new Conversation($("conversation"), $("turns"), $("empty"), $("latency"));
const meters = { mic: new Meter($("mic")), bot: new Meter($("bot")) };
let call = null;
let again = false; // there was a call on this page
const notices = new Map();
const devices = new Devices(
  { audioinput: $("microphone"), audiooutput: $("speaker") },
  $("nameless"),
  notice,
  (kind) => (kind === "audioinput" ? settleMicrophone(call) : settleSpeaker(call)),
);

class Problem extends Error {}

function show(state, detail) {
  $("status").dataset.state = state;
  const [title, usual] = STATES[state] ?? [state, ""];
  if ($("state").textContent !== title) $("state").textContent = title;
  $("detail").textContent = detail ?? usual;
  const up = call !== null;
  $("call").classList.toggle("busy", up);
  $("call-text").textContent = up ? "Hang up" : again ? "Call again" : "Call";
  $("dial").hidden = up;
  const talking = Boolean(call?.since);
  $("mute").hidden = !talking;
  $("timer").hidden = !talking && state !== "ended";
  for (const key of $("pad").children) key.disabled = !talking;
}

function complain(text) {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

// what became of a microphone or a speaker, beside the call's state: it goes on
function notice(kind, text = "") {
  notices.set(kind, text);
  const said = [...notices.values()].filter(Boolean).join(" ");
  if ($("notice").textContent !== said) $("notice").textContent = said;
  $("notice").hidden = !said;
}

// ── placing a call ──────────────────────────────────────────────────────────────────────────────────

// raises a `Problem` that says what a person can do
async function microphone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem(
      "This browser gives pages a microphone only over HTTPS or on localhost. Open the console by https://, or on the gateway’s own machine.",
    );
  }
  try {
    return await devices.microphone();
  } catch (error) {
    throw new Problem(
      {
        NotAllowedError: "The microphone is blocked for this page. Allow it beside the address bar, then call again.",
        NotFoundError: "No microphone was found. Plug one in, then call again.",
        NotReadableError: "Another program holds the microphone. Close it, then call again.",
      }[error.name] ?? `The microphone does not work: ${error.message}`,
    );
  }
}

async function gathered(connection) {
  if (connection.iceGatheringState === "complete") return;
  await new Promise((done) => {
    setTimeout(done, GATHER_MS); // the gateway learns our address from our checks anyway
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && done());
  });
}

async function refused(response) {
  const problem = await response.json().catch(() => ({}));
  const wait = problem.retry_after_s ?? response.headers.get("Retry-After");
  if (response.status === 401) here ? location.reload() : location.assign("/login");
  const later = `Try again${wait ? ` in ${wait} seconds` : " soon"}.`;
  if (response.status === 503 && /busy|full/.test(problem.detail)) return `All lines are busy. ${later}`;
  if (response.status === 503) return `The gateway takes no call now (${problem.detail ?? "it does not say why"}). ${later}`;
  if (response.status === 429) return `Too many calls from here. Try again in ${wait ?? 60} seconds.`;
  if (response.status === 404) return `Nobody answers at “${$("number").value}”.`;
  if (response.status === 403) return `The gateway does not take this call: ${problem.detail ?? "not allowed"}.`;
  return `The gateway refused the call: ${problem.detail ?? `HTTP ${response.status}`}.`;
}

// the dialplan leaves the separators of a number out, too
function dialled() {
  const written = $("number").value.trim();
  const bare = written.replace(/[-.()\s]/g, "");
  return (/^\+?[0-9*]+$/.test(bare) ? bare : written) || "demo";
}

async function place() {
  complain();
  for (const kind of notices.keys()) notice(kind);
  if (!$("number").reportValidity()) return;
  conversation.clear();
  const mine = (call = { ended: false });
  try {
    mine.audio = new AudioContext();
    mine.audio.resume();
    show("asking");
    takeUp(mine, await microphone());
    if (mine.ended) throw null;
    show("connecting");
    settleSpeaker(mine);
    await connect(mine);
  } catch (error) {
    if (!mine.ended) finish(mine, "failed", error instanceof Problem ? error.message : `The call failed: ${error?.message ?? error}`);
    release(mine);
  }
}

async function connect(mine) {
  const connection = (mine.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers: await iceServers() }));
  for (const track of mine.stream.getAudioTracks()) connection.addTrack(track, mine.stream);
  mine.channel = connection.createDataChannel("events");
  mine.channel.addEventListener("message", (event) => happened(mine, JSON.parse(event.data)));
  mine.channel.addEventListener("close", () => over(mine));
  connection.addEventListener("track", ({ streams: [stream] }) => {
    $("voice").srcObject = stream;
    hear();
    meters.bot.attach(mine.audio, stream);
  });
  connection.addEventListener("connectionstatechange", () => moved(mine));
  await connection.setLocalDescription();
  await gathered(connection);
  const number = encodeURIComponent(dialled());
  let response;
  try {
    response = await fetch(`/api/call?dialled=${number}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: connection.localDescription.sdp,
      signal: AbortSignal.timeout(OFFER_MS),
    });
  } catch (error) {
    throw new Problem(
      error.name === "TimeoutError"
        ? `The gateway did not answer within ${OFFER_MS / 1000} seconds. Is the network up?`
        : "The gateway does not answer. Is it still running?",
    );
  }
  if (!response.ok) throw new Problem(await refused(response));
  mine.location = response.headers.get("Location");
  if (mine.ended) {
    leave(mine); // given up while the gateway answered
    throw null;
  }
  mine.answer = await response.text();
  await connection.setRemoteDescription({ type: "answer", sdp: mine.answer });
  mine.giveUp = setTimeout(() => mine.since || noSound(mine), isBlind(connection) ? HOPELESS_MS : CONNECT_MS);
}

// STUN and TURN of the operator's; without an answer, none
async function iceServers() {
  try {
    const response = await fetch("/api/ice", { signal: AbortSignal.timeout(ASK_MS) });
    return response.ok ? (await response.json()).iceServers : [];
  } catch {
    return [];
  }
}

// another network, or a NAT that forgot us: ICE begins anew, and the call goes on (RFC 9725 §4.3.3)
async function comeBack(mine) {
  const { connection } = mine;
  if (mine.restarting || mine.ended || !mine.answer || connection.signalingState !== "stable") return;
  mine.restarting = true;
  let again = RETRY_MS;
  try {
    await connection.setLocalDescription(await connection.createOffer({ iceRestart: true }));
    await gathered(connection);
    const said = /^a=(ice-ufrag:|ice-pwd:|candidate:)|^m=audio|^a=mid:/;
    const lines = connection.localDescription.sdp.split("\r\n").filter((line) => said.test(line));
    const response = await fetch(mine.location, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*" },
      body: [...new Set(lines), ""].join("\r\n"),
      signal: AbortSignal.timeout(PATCH_MS),
    });
    if (!response.ok) throw new Error(response.status);
    mine.answer = withIce(mine.answer, await response.text());
    await connection.setRemoteDescription({ type: "answer", sdp: mine.answer });
    again = RESTART_MS;
  } catch {
    if (connection.signalingState === "have-local-offer") await connection.setLocalDescription({ type: "rollback" });
  } finally {
    setTimeout(() => (mine.restarting = false), again);
  }
}

// the answer with the ICE lines of a fragment in each of its sections
function withIce(answer, fragment) {
  const ours = /^a=(ice-ufrag:|ice-pwd:|candidate:|end-of-candidates)/;
  const anew = fragment.split("\r\n").filter((line) => ours.test(line));
  return answer
    .split("\r\n")
    .filter((line) => !ours.test(line))
    .flatMap((line) => (line.startsWith("a=mid:") ? [line, ...anew] : [line]))
    .join("\r\n");
}

// a browser that sees no network at all never begins to send
function isBlind(connection) {
  return !connection.localDescription?.sdp.includes("a=candidate:");
}

// sound never came: says why, as far as a page can know
function noSound(mine) {
  if (mine.ended) return;
  let why =
    "No sound could be exchanged with the gateway. A firewall, a VPN or a NAT between this browser and the gateway stops UDP. " +
    "For its operator: VOICEGATE_HOST must not be loopback, and behind a NAT VOICEGATE_PUBLIC_ADDRESS must be set.";
  if (isBlind(mine.connection)) {
    why =
      "This browser found no network to send sound by. Connect this machine to a network; " +
      "without one, only Chromium can call, started with --allow-loopback-in-peer-connection.";
  } else if (here) {
    why =
      "No sound could be exchanged with the gateway, which talks with browsers on its own machine only. " +
      "If this browser is elsewhere (a tunnel, a container, a virtual machine), start the gateway with VOICEGATE_HOST=0.0.0.0. " +
      "If it is on the same machine, a VPN, a firewall or a privacy add-on stops its UDP.";
  }
  mine.why = "?why=no-sound";
  if (mine.location) leave(mine);
  finish(mine, "failed", why);
}

// the voice's last state; it may have come before the browser says that it is connected
function showAgain(mine) {
  if (mine.state) show(mine.state);
  else show("connecting", "Connected");
}

function moved(mine) {
  const state = mine.connection.connectionState;
  if (state === "connected" && !mine.since) {
    clearTimeout(mine.giveUp);
    mine.since = mine.heardAt = Date.now();
    again = true;
    mine.watch = setInterval(() => watch(mine), LOOK_MS);
    showAgain(mine);
    refresh();
  } else if (state === "disconnected" && mine.since) {
    shaky(mine);
  } else if (state === "failed") {
    if (mine.since) shaky(mine);
    else noSound(mine);
  } else if (state === "closed") {
    over(mine);
  }
}

// ── whether the gateway is still there ──────────────────────────────────────────────────────────────

async function watch(mine) {
  let packets = 0;
  for (const stats of (await mine.connection.getStats()).values()) {
    if (stats.type === "inbound-rtp") packets += stats.packetsReceived ?? 0;
  }
  if (mine.ended) return;
  if (packets !== mine.packets) {
    mine.packets = packets;
    mine.heardAt = Date.now();
    mine.elsewhere = false;
    if (mine.shaky) {
      mine.shaky = false;
      showAgain(mine);
    }
  } else if (mine.elsewhere || Date.now() - mine.heardAt > SILENT_MS) {
    shaky(mine);
  }
}

// the machine went to another network: the first look that sees no sound acts on it
function elsewhere() {
  if (call?.since) call.elsewhere = true;
}

function shaky(mine) {
  if (!mine.shaky) {
    mine.shaky = true;
    show("shaky");
  }
  if (!(Date.now() - mine.askedAt < ASK_MS)) ask(mine);
  const silent = Date.now() - mine.heardAt;
  if (silent > GONE_MS) finish(mine, "ended", LOST);
  else if (mine.elsewhere || silent > 2 * SILENT_MS) comeBack(mine);
}

// the Location has the call's id, a dot, and what proves that the call is ours
const idOf = (mine) => mine.location.split("/").pop().replace(/\.[^.]*$/, "");

// the gateway knows at once when a line died, and what ended a call
async function ask(mine) {
  if (mine.asking || mine.ended) return;
  mine.asking = true;
  mine.askedAt = Date.now();
  try {
    const response = await fetch(`/api/calls/${idOf(mine)}`, {
      signal: AbortSignal.timeout(ASK_MS),
    });
    if (response.status === 404) return finish(mine, "ended", "failed: the gateway does not know this call any more");
    if (!response.ok) return;
    const { ended_at: endedAt, how } = await response.json();
    if (endedAt !== undefined) finish(mine, "ended", how);
  } catch {
    if (mine.shaky && !mine.ended) {
      show("shaky", "Neither sound nor an answer comes from the gateway.");
      away();
    }
  } finally {
    mine.asking = false;
  }
}

// its connection closed without a word of why
async function over(mine) {
  if (mine.ended) return;
  await ask(mine);
  finish(mine, "ended", LOST);
}

function hear() {
  $("voice").play().then(
    () => ($("hear").hidden = true),
    (error) => ($("hear").hidden = error.name !== "NotAllowedError"),
  );
}

// ── during a call ───────────────────────────────────────────────────────────────────────────────────

function happened(mine, event) {
  if (mine.ended) return;
  if (event.kind === "said") conversation.said(event);
  else if (event.kind === "heard") conversation.heard(event);
  else if (event.kind === "note") conversation.note(event.text);
  else if (event.kind === "latency") conversation.took(event);
  else if (event.kind === "state") {
    if (event.state === "ended") return finish(mine, "ended", event.how);
    if (event.state === "thinking") conversation.turn();
    mine.state = event.state;
    if (!mine.shaky) show(event.state);
  }
}

function press(key) {
  if (!call?.since || call.channel?.readyState !== "open" || !(key in KEYS)) return;
  call.channel.send(JSON.stringify({ dtmf: key }));
  conversation.note(`You pressed ${key}`);
  const button = [...$("pad").children].find((one) => one.dataset.key === key);
  button.classList.add("down");
  setTimeout(() => button.classList.remove("down"), 150);
  const gain = call.audio.createGain();
  gain.gain.value = 0.04;
  gain.connect(call.audio.destination);
  for (const hz of KEYS[key]) {
    const tone = call.audio.createOscillator();
    tone.frequency.value = hz;
    tone.connect(gain);
    tone.start();
    tone.stop(call.audio.currentTime + 0.12);
  }
}

// a microphone is the call's from now on
function takeUp(mine, { stream, id }) {
  mine.stream = stream;
  mine.microphone = id;
  const [track] = stream.getAudioTracks();
  track.enabled = $("mute").getAttribute("aria-pressed") !== "true";
  const lived = Date.now() + LIVED_MS;
  track.addEventListener("ended", () => {
    // the list says whether it is gone; whatever it says, the call looks for one that lives
    setTimeout(() => mine.stream === stream && !mine.ended && devices.look(), Math.max(0, lived - Date.now()));
  });
  meters.mic.attach(mine.audio, stream);
}

const DEAF = "No microphone works: the voice cannot hear you. Plug one in, or choose another.";

// another microphone in a call: chosen, or the default since this one is gone
function settleMicrophone(mine) {
  if (!mine?.connection || mine.settling) return;
  mine.settling = true;
  settled(mine).finally(() => (mine.settling = false));
}

async function settled(mine) {
  for (;;) {
    const [track] = mine.stream.getAudioTracks();
    const stopped = track.readyState !== "live";
    if (mine.ended || (!stopped && mine.microphone === devices.wanted("audioinput"))) return;
    track.stop(); // some systems open one at a time
    let found;
    try {
      found = await devices.microphone();
    } catch {
      if (!mine.ended) notice("audioinput", DEAF);
      return; // until a device comes
    }
    if (mine.ended) return found.stream.getTracks().forEach((one) => one.stop());
    if (notices.get("audioinput") === DEAF) notice("audioinput", "You are heard again.");
    else if (stopped && !notices.get("audioinput")) notice("audioinput", "The microphone stopped, and was opened again.");
    takeUp(mine, found);
    await mine.connection.getSenders()[0].replaceTrack(found.stream.getAudioTracks()[0]);
  }
}

function settleSpeaker(mine) {
  devices.play($("voice"), mine?.audio);
}

function mute() {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  for (const track of call.stream.getAudioTracks()) track.enabled = !muted;
  $("mute").setAttribute("aria-pressed", muted);
  $("mute").textContent = muted ? "Muted" : "Mute";
}

// ── ending it ───────────────────────────────────────────────────────────────────────────────────────

function hangUp() {
  const mine = call;
  if (mine.channel?.readyState === "open") mine.channel.send(JSON.stringify({ bye: true }));
  if (mine.location && (mine.shaky || mine.channel?.readyState !== "open")) leave(mine);
  finish(mine, "ended", "caller hung up");
}

function leave(mine) {
  fetch(mine.location + (mine.why ?? ""), { method: "DELETE", keepalive: true }).catch(() => {});
}

const LOST = "failed: the connection to the gateway was lost";
const HOW = {
  "hung up": "The voice hung up.",
  "caller hung up": "You hung up.",
  "hung up by the console": "An operator ended the call.",
  "hung up: the longest duration was reached": "The call had reached its longest duration.",
};
const BROKE = "failed: ";

function finish(mine, state, how = "") {
  if (mine.ended) return;
  mine.ended = true;
  if (call !== mine) return;
  call = null;
  const broke = how.startsWith(BROKE);
  if (state === "failed") complain(how);
  else if (broke) complain(`The call broke off: ${how.slice(BROKE.length)}.`);
  show(state, state === "failed" || broke ? "" : (HOW[how] ?? how));
  $("hear").hidden = true;
  conversation.end();
  setTimeout(() => release(mine), 200); // what was sent last must leave
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  setTimeout(refresh, 300);
}

function release(mine) {
  clearTimeout(mine.giveUp);
  clearInterval(mine.watch);
  for (const track of mine.stream?.getTracks() ?? []) track.stop();
  mine.connection?.close();
  if (call === null || call === mine) {
    meters.mic.detach();
    meters.bot.detach();
    $("voice").srcObject = null;
  }
  if (mine.audio && mine.audio.state !== "closed") mine.audio.close();
}

$("call").addEventListener("click", () => (call ? hangUp() : place()));
$("mute").addEventListener("click", mute);
$("hear").addEventListener("click", () => {
  call?.audio?.resume();
  hear();
});
$("pad").addEventListener("click", (event) => press(event.target.closest("button")?.dataset.key));
$("number").addEventListener("keydown", (event) => event.key === "Enter" && !call && place());
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in KEYS) press(event.key);
});
window.addEventListener("online", elsewhere);
navigator.connection?.addEventListener("change", elsewhere);
window.addEventListener("pagehide", () => call && hangUp());

let frame = 0;
function draw() {
  for (const meter of Object.values(meters)) {
    if (meter.analyser) meter.measure();
    if (meter.analyser && frame % 15 === 0) meter.tell();
  }
  frame += 1;
  if (call?.since) {
    const seconds = Math.floor((Date.now() - call.since) / 1000);
    $("timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
  requestAnimationFrame(draw);
}
$("keys").open = !matchMedia(SMALL).matches; // a small screen has other things to show first
show("idle");
draw();
