// The recordings of a call: while one plays, the cursor goes with it; a time within one can be sought.

import { byId, made } from "./elements.js";
import { clock, lasted, offset } from "./times.js";

export class Player {
  constructor(moved) {
    this.moved = moved; // told the time of the call that is heard
    this.known = [];
  }

  show(course, mayHear) {
    const { recordings } = course;
    const left = (course.call.events ?? []).some((event) => event.kind === "recorded" && !event.data.error);
    byId("heard").hidden = !(recordings?.length || (left && !mayHear));
    if (!mayHear) {
      byId("recordings").replaceChildren(made("p", "unsure", "The caller left a recording. Who hears it needs the right recordings.read: log in with a token that has it."));
      return;
    }
    const key = JSON.stringify(recordings);
    if (key === this.key || this.known.some(({ audio }) => !audio.paused)) return; // who hears one hears it on
    this.key = key;
    this.known = recordings.map((one) => this.made(one, course));
    byId("recordings").replaceChildren(...this.known.map(({ item }) => item));
  }

  made(recording, course) {
    const audio = made("audio");
    audio.controls = true;
    audio.preload = "none";
    audio.src = recording.href;
    audio.setAttribute("aria-label", `Recording of ${clock(recording.began_at)}`);
    const follow = () => {
      this.moved(recording.began_at + audio.currentTime);
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", follow);
    audio.addEventListener("seeked", () => this.moved(recording.began_at + audio.currentTime));
    const about = `from ${offset(recording.began_at - course.zero)} on, ${lasted(recording.duration_s)}`;
    const problem = made("p", "unsure", "");
    audio.addEventListener("error", () => { problem.textContent = "It cannot be played: it is gone, or the login is over."; });
    return { audio, recording, item: made("div", "recording", made("p", "", about), audio, problem) };
  }

  // goes there in the recording that has that time
  seek(at) {
    const there = ({ recording: { began_at: began, duration_s: length } }) => at >= began && at <= began + length;
    const found = this.known.find(there);
    if (!found) return;
    if (found.audio.preload === "none") found.audio.preload = "auto";
    found.audio.currentTime = at - found.recording.began_at;
  }
}
