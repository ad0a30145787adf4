// One call from this page: microphone, offer and answer, the "events" channel, keypad, meters, state.

import { refresh } from "/console/calls.js";
import { Conversation } from "/console/conversation.js";
import { Meter } from "/console/meter.js";

const GATHER_MS = 700;
const CONNECT_MS = 15000;
const HOPELESS_MS = 4000;
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
  held: ["On hold", ""],
  ended: ["Call ended", ""],
  failed: ["No call", ""],
};
const $ = (id) => document.getElementById(id);

const conversation = new Conversation($("conversation"), $("empty"), $("latency"));
const meters = { mic: new Meter($("mic")), bot: new Meter($("bot")) };
let call = null;

class Problem extends Error {}

function show(state, detail) {
  $("status").dataset.state = state;
  const [title, usual] = STATES[state] ?? [state, ""];
  if ($("state").textContent !== title) $("state").textContent = title;
  $("detail").textContent = detail ?? usual;
  const up = call !== null;
  $("call").classList.toggle("busy", up);
  $("call-text").textContent = up ? "Hang up" : "Call";
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

// ── placing a call ──────────────────────────────────────────────────────────────────────────────────

async function microphone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem(
      "This browser gives pages a microphone only over HTTPS or on localhost. Open the console by https://, or on the gateway’s own machine.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
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
  const { error = {} } = await response.json().catch(() => ({}));
  const wait = error.retry_after_s ?? response.headers.get("Retry-After");
  if (response.status === 401) location.assign("/login");
  if (response.status === 503) return `All lines are busy. Try again${wait ? ` in ${wait} seconds` : " soon"}.`;
  if (response.status === 429) return `Too many calls from here. Try again in ${wait ?? 60} seconds.`;
  if (response.status === 404) return `Nobody answers at “${$("number").value}”.`;
  if (response.status === 403) return `The gateway does not take this call: ${error.reason ?? "not allowed"}.`;
  return `The gateway refused the call: ${error.reason ?? `HTTP ${response.status}`}.`;
}

async function place() {
  complain();
  if (!$("number").reportValidity()) return;
  conversation.clear();
  const mine = (call = { ended: false });
  try {
    mine.audio = new AudioContext();
    mine.audio.resume();
    show("asking");
    mine.stream = await microphone();
    if (mine.ended) throw null;
    show("connecting");
    meters.mic.attach(mine.audio, mine.stream);
    await connect(mine);
  } catch (error) {
    if (!mine.ended) finish(mine, "failed", error instanceof Problem ? error.message : `The call failed: ${error?.message ?? error}`);
    release(mine);
  }
}

async function connect(mine) {
  const connection = (mine.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
  for (const track of mine.stream.getAudioTracks()) connection.addTrack(track, mine.stream);
  mine.channel = connection.createDataChannel("events");
  mine.channel.addEventListener("message", (event) => happened(mine, JSON.parse(event.data)));
  mine.channel.addEventListener("close", () => finish(mine, "ended"));
  connection.addEventListener("track", ({ streams: [stream] }) => {
    $("voice").srcObject = stream;
    $("voice").play().catch(() => {});
    meters.bot.attach(mine.audio, stream);
  });
  connection.addEventListener("connectionstatechange", () => moved(mine));
  await connection.setLocalDescription();
  await gathered(connection);
  const number = encodeURIComponent($("number").value.trim() || "demo");
  let response;
  try {
    response = await fetch(`/api/call?dialled=${number}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: connection.localDescription.sdp,
    });
  } catch {
    throw new Problem("The gateway does not answer. Is it still running?");
  }
  if (!response.ok) throw new Problem(await refused(response));
  mine.location = response.headers.get("Location");
  if (mine.ended) throw null;
  await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  // a browser that sees no network interface at all (Chromium, offline) never begins to send
  const blind = !connection.localDescription.sdp.includes("a=candidate:");
  const why = blind
    ? "This browser found no network interface. Offline, start Chromium with --allow-loopback-in-peer-connection, or set media.peerconnection.ice.loopback in Firefox."
    : "No sound could be exchanged with the gateway: a firewall may stop UDP.";
  mine.giveUp = setTimeout(() => mine.since || finish(mine, "failed", why), blind ? HOPELESS_MS : CONNECT_MS);
}

function moved(mine) {
  const state = mine.connection.connectionState;
  if (state === "connected" && !mine.since) {
    clearTimeout(mine.giveUp);
    mine.since = Date.now();
    show("connecting", "Connected");
    refresh();
  } else if (state === "failed") {
    finish(mine, mine.since ? "ended" : "failed", "The connection to the gateway was lost.");
  } else if (state === "closed") {
    finish(mine, "ended");
  }
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
    show(event.state);
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
  else if (mine.location) fetch(mine.location, { method: "DELETE", keepalive: true }).catch(() => {});
  finish(mine, "ended", "You hung up.");
}

const HOW = { "hung up": "The voice hung up.", "caller hung up": "You hung up." };

function finish(mine, state, how) {
  if (mine.ended) return;
  mine.ended = true;
  if (call !== mine) return;
  call = null;
  const text = HOW[how] ?? (how ?? "");
  if (state === "failed") complain(text);
  else if (text.startsWith("failed: ")) complain(`The call broke off: ${text.slice(8)}.`);
  show(state, state === "failed" || text.startsWith("failed: ") ? "" : text);
  conversation.end();
  setTimeout(() => release(mine), 200); // what was sent last must leave
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  setTimeout(refresh, 300);
}

function release(mine) {
  clearTimeout(mine.giveUp);
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
$("pad").addEventListener("click", (event) => press(event.target.closest("button")?.dataset.key));
$("number").addEventListener("keydown", (event) => event.key === "Enter" && !call && place());
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in KEYS) press(event.key);
});
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
show("idle");
draw();
