// The picture of a call: lanes one below the other over one axis of time, drawn on a canvas. Only what is in view
// is drawn, and what falls on one pixel is drawn once.

import { spans, stages, waited } from "./course_moments.js";
import { offset } from "./times.js";

const FLOOR_DB = -60;
const LANES = [ // name, title, height in rem
  ["ruler", "", 1.5],
  ["caller", "Caller", 3.4],
  ["voice", "Our voice", 3.4],
  ["words", "Words", 3.5],
  ["latency", "Answer time", 1.9],
  ["events", "Events", 1.9],
  ["came", "Loss from caller", 2.5],
  ["went", "Loss to caller", 2.5],
  ["mark", "Mark", 1.5],
  ["consent", "Consent", 1.7],
  ["sip", "SIP", 1.7],
  ["log", "Log", 1.5],
  ["recording", "Recording", 1.3],
];
const BARE = ["ruler", "sip", "log"];
const NARROW_PX = 620;
const COLOURS = ["ink", "soft", "line", "well", "card", "teal", "teal-wash", "red", "red-wash", "amber", "blue", "blue-wash", "violet", "green"];
export const STAGE_COLOURS = ["amber", "blue", "teal", "violet", "green", "soft"];
const MOST_LOSS = 20; // percent that fill their lane
const MOST_JITTER = 100; // ms that do

export class Lanes {
  constructor(canvas, names) {
    this.canvas = canvas;
    this.names = names;
    this.paper = canvas.getContext("2d");
    this.moments = {};
    this.course = null;
    this.boxes = new Map();
  }

  // what is drawn from now on
  show(course, moments) {
    this.course = course;
    this.moments = Object.groupBy ? Object.groupBy(moments, (one) => one.lane) : grouped(moments);
    this.longest = Math.max(0, ...(this.moments.words ?? []).map((one) => one.until - one.at)); // spans reach so far back
    this.stageNames = [...new Set((this.moments.words ?? []).flatMap((one) => stages(one.data).map(([name]) => name)))];
    this.holds = spans(course.call.events ?? [], "hold", (data) => data.sending === false || data.receiving === false, course.end);
    this.points = course.sound.quality?.length ? course.sound.quality : (course.call.events ?? []).filter((one) => one.kind === "quality").map((one) => ({ at: one.at, ...one.data }));
    const isBare = !course.sound.parts.length && !course.call.events?.length; // it was not taken, or is forgotten
    this.lay(LANES.filter(([name]) => (name === "recording" ? course.recordings?.length : !isBare || BARE.includes(name))));
  }

  lay(shown) {
    this.rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.isNarrow = this.canvas.parentElement.clientWidth < NARROW_PX * this.rem / 16;
    const strip = this.isNarrow ? 1.15 * this.rem : 0;
    let top = 0;
    this.boxes.clear();
    const labels = [];
    for (const [name, title, rems] of shown) {
      const height = rems * this.rem;
      const head = title ? strip : 0;
      this.boxes.set(name, { top: top + head, height, whole: top, title });
      if (title) {
        const label = document.createElement("span");
        label.textContent = title;
        label.style.top = `${top + (this.isNarrow ? 0 : Math.max(0, height / 2 - .7 * this.rem))}px`;
        labels.push(label);
      }
      top += head + height;
    }
    this.height = top;
    this.shownLanes = shown;
    this.names.replaceChildren(...labels);
    this.names.classList.toggle("narrow", this.isNarrow);
  }

  // its own size, after the window's changed; the axis gets its place in it
  fit(axis) {
    if (this.shownLanes) this.lay(this.shownLanes);
    const width = this.canvas.parentElement.clientWidth;
    const sharp = window.devicePixelRatio || 1;
    axis.left = this.isNarrow ? 2 : 7.2 * this.rem;
    axis.width = Math.max(40, width - axis.left - 4);
    [this.canvas.width, this.canvas.height] = [Math.round(width * sharp), Math.round(this.height * sharp)];
    [this.canvas.style.width, this.canvas.style.height] = [`${width}px`, `${this.height}px`];
    this.paper.setTransform(sharp, 0, 0, sharp, 0, 0);
    const style = getComputedStyle(this.canvas);
    this.ink = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = (rems, weight = 400) => `${weight} ${rems * this.rem}px ${style.fontFamily}`;
    this.size = { width, height: this.height };
  }

  laneAt(y) {
    for (const [name, box] of this.boxes) if (y >= box.whole && y < box.top + box.height) return name;
    return "";
  }

  // the moment that is drawn there, within some pixels
  momentAt(axis, x, y, reach = 7) {
    const near = (this.moments[this.laneAt(y)] ?? []).filter((one) => axis.x(one.at) - reach <= x && Math.max(axis.x(one.until), axis.x(one.at)) + reach >= x);
    const box = this.boxes.get(this.laneAt(y));
    const rows = near.filter((one) => one.row === undefined || (y - box.top < box.height / 2) === (one.row === 0));
    const far = (one) => Math.abs(axis.x(one.at) - x) - (axis.x(one.until) > x && axis.x(one.at) <= x ? 1000 : 0);
    return (rows.length ? rows : near).sort((a, b) => far(a) - far(b))[0];
  }

  draw(axis) {
    if (!this.course || !this.size) return;
    const has = (lane) => this.boxes.has(lane);
    const { paper } = this;
    paper.clearRect(0, 0, this.size.width, this.size.height);
    this.grid(axis);
    paper.save();
    paper.beginPath();
    paper.rect(axis.left, 0, axis.width, this.size.height);
    paper.clip();
    if (has("words")) {
      for (const side of ["caller", "voice"]) this.levels(axis, side);
      this.words(axis);
      this.latency(axis);
      this.events(axis);
      this.rated(axis, "came", "");
      this.rated(axis, "went", "far_");
      this.consent(axis);
      this.signs(axis, "mark");
    }
    this.ticks(axis, "sip");
    this.ticks(axis, "log");
    if (has("recording")) this.recordings(axis);
    paper.restore();
  }

  // those of a lane that are in view
  *inView(axis, lane) {
    const all = this.moments[lane] ?? [];
    const reach = lane === "words" ? this.longest : 0;
    const slack = 20 * axis.pixel;
    for (let n = first(all, axis.from - reach - slack); n < all.length && all[n].at <= axis.to + slack; n += 1) yield all[n];
  }

  grid(axis) {
    const { paper, ink, course } = this;
    const { times, places } = axis.ticks(course.zero);
    paper.font = this.font(.75);
    paper.textBaseline = "middle";
    const ruler = this.boxes.get("ruler");
    for (const at of times) {
      const x = Math.round(axis.x(at)) + .5;
      this.rect(x - .5, ruler.height, 1, this.size.height - ruler.height, ink.line);
      const text = offset(at - course.zero, places);
      const half = paper.measureText(text).width / 2;
      paper.fillStyle = ink.soft;
      paper.textAlign = "center";
      paper.fillText(text, Math.min(Math.max(x, axis.left + half), axis.left + axis.width - half), ruler.height / 2);
    }
    paper.textAlign = "left";
    for (const [name, box] of this.boxes) if (name !== "ruler") this.rect(0, box.whole, this.size.width, 1, ink.line);
  }

  rect(x, y, width, height, colour) {
    this.paper.fillStyle = colour;
    this.paper.fillRect(x, y, width, height);
  }

  // text within a width; what does not fit is cut off, and where nearly nothing would be read there is none
  label(text, x, y, width, colour, rems = .75, weight = 400) {
    const { paper } = this;
    if (width < 14 || !text) return;
    paper.save();
    paper.beginPath();
    paper.rect(x, y - this.rem, width, 2 * this.rem);
    paper.clip();
    paper.font = this.font(rems, weight);
    paper.fillStyle = colour;
    paper.fillText(String(text).slice(0, 240), x, y);
    paper.restore();
  }

  // a short text over what is drawn, with a ground of its own
  plate(text, x, y, colour, weight) {
    const { paper } = this;
    paper.font = this.font(.7, weight);
    const width = paper.measureText(text).width;
    this.rect(x - 1, y - .55 * this.rem, width + 4, 1.1 * this.rem, this.ink.card);
    paper.fillStyle = colour;
    paper.fillText(text, x + 1, y);
  }

  levels(axis, side) {
    const { ink, course, boxes } = this;
    const { top, height } = boxes.get(side);
    const names = course.sound.flag_names;
    const bit = (name) => names[name] ?? 0;
    const floor = top + height - 3;
    const tall = height - 6;
    if (side === "voice") for (const [from, to] of this.holds) this.rect(axis.x(from), top + 1, Math.max(2, axis.x(to) - axis.x(from)), height - 2, ink.well);
    for (const part of course.sound.parts) {
      const step = course.sound.step_s;
      const length = part.flags.length;
      const begin = Math.max(Math.floor(axis.left), Math.floor(axis.x(part.began_at)));
      const end = Math.min(axis.left + axis.width, axis.x(part.began_at + length * step));
      for (let x = begin; x < end; x += 1) {
        const low = Math.max(0, Math.floor((axis.at(x) - part.began_at) / step));
        const high = Math.min(length, Math.max(low + 1, Math.floor((axis.at(x + 1) - part.began_at) / step)));
        let loudest = null;
        let flags = 0;
        for (let n = low; n < high; n += 1) {
          const level = part[side][n];
          if (level !== null && level !== undefined && (loudest === null || level > loudest)) loudest = level;
          flags |= part.flags[n];
        }
        if (low >= length) continue;
        if (loudest === null) {
          if (x % 4 === 0) this.rect(x, floor, 2, 1, ink.soft); // nothing came, or went
        } else {
          const share = Math.max(0, 1 - loudest / FLOOR_DB);
          const speaks = side === "caller" ? flags & bit("speech") : flags & bit("playing");
          this.rect(x, floor - share * tall, 1, share * tall + 1, speaks ? (side === "caller" ? ink.blue : ink.teal) : ink.soft);
        }
        if (side === "caller" && flags & bit("speech")) this.rect(x, top + 1, 1, 3, ink.blue);
        if (side === "voice") {
          if (flags & bit("ducked")) this.rect(x, top + 1, 1, 4, ink.amber);
          if (flags & (bit("muted") | bit("not_marked") | bit("underrun"))) this.rect(x, floor - 1, 1, 4, ink.red);
          if (flags & bit("held") && x % 3 === 0) this.rect(x, top + 6, 1, 3, ink.soft);
        }
      }
    }
  }

  words(axis) {
    const { ink, boxes } = this;
    const { top, height } = boxes.get("words");
    const row = height / 2 - 2;
    const all = [...this.inView(axis, "words")];
    const nextOf = [Infinity, Infinity];
    for (const one of all.reverse()) { // each knows how much room it has
      const x = axis.x(one.at);
      const width = Math.max(3, axis.x(one.until) - x);
      const y = top + 2 + one.row * (row + 1);
      const isBot = one.row === 1;
      this.rect(x, y, width, row, isBot ? ink["teal-wash"] : ink["blue-wash"]);
      this.rect(x, y, 3, row, isBot ? ink.teal : ink.blue);
      if (one.data.interrupted) this.rect(x + width - 3, y, 3, row, ink.amber);
      const from = Math.max(x, axis.left);
      const room = Math.min(nextOf[one.row], axis.left + axis.width) - from; // words may be longer than their sound
      this.label(one.text, from + 6, y + row / 2 + 1, room - 8, ink.ink, .75);
      nextOf[one.row] = x;
    }
  }

  latency(axis) {
    const { ink, boxes } = this;
    const { top, height } = boxes.get("latency");
    let labelled = -Infinity;
    for (const one of this.inView(axis, "words")) {
      const whole = waited(one.data);
      if (whole === undefined) continue;
      let at = one.at - whole / 1000;
      const begin = axis.x(at);
      for (const [name, ms] of stages(one.data)) {
        const x = axis.x(at);
        const width = Math.max(1, axis.x(at + ms / 1000) - x);
        const colour = STAGE_COLOURS[this.stageNames.indexOf(name) % STAGE_COLOURS.length];
        this.rect(x, top + 3, width, height / 2 - 3, ink[colour]);
        at += ms / 1000;
      }
      const tone = one.tone === "bad" ? ink.red : ink.ink;
      if (one.tone === "bad") this.rect(begin, top + 1, Math.max(2, axis.x(one.at) - begin), 2, ink.red);
      if (begin < labelled) continue;
      labelled = begin + 2.6 * this.rem;
      this.label(`${(whole / 1000).toFixed(2)} s`, begin, top + height * .76, 3.2 * this.rem, tone, .7, one.tone === "bad" ? 650 : 400);
    }
  }

  colour(tone) {
    return { bad: this.ink.red, warn: this.ink.amber, good: this.ink.teal }[tone] ?? this.ink.soft;
  }

  events(axis) {
    const { ink, boxes } = this;
    const { top, height } = boxes.get("events");
    for (const [from, to] of this.holds) this.rect(axis.x(from), top + height - 5, Math.max(2, axis.x(to) - axis.x(from)), 3, ink.amber);
    const clusters = [];
    for (const one of this.inView(axis, "events")) {
      const x = axis.x(one.at);
      const before = clusters.at(-1);
      if (before && x - before.x < 2.5) {
        if (one.tone || !before.one.tone) before.one = one;
      } else clusters.push({ x, one });
    }
    clusters.forEach(({ x, one }, n) => {
      const following = clusters[n + 1]?.x ?? Infinity;
      this.rect(x - 1, top + 3, one.tone ? 3 : 2, height - 8, this.colour(one.tone));
      if (following - x > 26) this.label(one.mark ?? one.what, x + 4, top + height / 2, following - x - 6, one.tone === "bad" ? ink.red : ink.ink, .75);
    });
  }

  // loss as bars, jitter as a line, the score in words
  rated(axis, lane, prefix) {
    const { ink, boxes, paper } = this;
    const { top, height } = boxes.get(lane);
    const floor = top + height - 2;
    let before = null;
    let labelled = -Infinity;
    paper.lineWidth = 1.5;
    for (const point of this.points) {
      const since = Math.max(point.at - 15, before?.at ?? point.at - 10);
      const [x, end] = [axis.x(since), axis.x(point.at)];
      const [loss, jitter, mos] = ["loss_percent", "jitter_ms", "mos"].map((name) => point[prefix + name]);
      if (end >= axis.left && x <= axis.left + axis.width) {
        if (loss > 0) {
          const tall = Math.max(2, Math.min(1, loss / MOST_LOSS) * (height - 4));
          this.rect(x, floor - tall, Math.max(1, end - x - 1), tall, loss >= 5 ? ink.red : ink.amber);
        } else if (loss !== undefined) this.rect(x, floor, Math.max(1, end - x - 1), 1, ink.teal);
        if (jitter !== undefined) {
          const y = floor - Math.min(1, jitter / MOST_JITTER) * (height - 4);
          paper.strokeStyle = jitter >= 30 ? ink.red : ink.violet;
          paper.beginPath();
          paper.moveTo(x, y);
          paper.lineTo(end, y);
          paper.stroke();
        }
        const said = [loss > 0 ? `${loss < 10 ? loss.toFixed(1) : Math.round(loss)} %` : "", mos !== undefined ? `MOS ${mos.toFixed(1)}` : ""].filter(Boolean).join(", ");
        if (said && end - labelled > 7 * this.rem) {
          const isPoor = mos < 3.6 || loss >= 5;
          this.plate(said, Math.max(x, axis.left) + 2, top + .8 * this.rem, isPoor ? ink.red : ink.ink, isPoor ? 650 : 400);
          labelled = end;
        }
      }
      before = point;
    }
  }

  consent(axis) {
    const { ink, boxes, course } = this;
    const { top, height } = boxes.get("consent");
    const changes = (this.moments.consent ?? []);
    const muted = changes.find((one) => one.tone === "bad")?.at ?? Infinity;
    const stood = changes.find((one) => one.tone === "warn")?.at ?? Infinity;
    const until = course.end;
    const band = (from, to, colour) => to > from && this.rect(axis.x(from), top + 3, Math.max(1, axis.x(to) - axis.x(from)), height - 6, colour);
    if (course.call.voice) {
      band(course.zero, Math.min(stood, muted, until), ink["teal-wash"]);
      band(stood, Math.min(muted, until), ink.well);
      band(muted, until, ink["red-wash"]);
      this.label(stood <= course.zero + 1 ? "stock voice" : course.call.voice, Math.max(axis.left, axis.x(course.zero)) + 4, top + height / 2, 9 * this.rem, ink.ink, .7);
    }
    this.signs(axis, "consent");
  }

  // good ones are round, others crosses: no colour is needed to tell them apart
  signs(axis, lane) {
    const { paper, boxes } = this;
    const { top, height } = boxes.get(lane);
    const middle = top + height / 2;
    let drawn = -Infinity;
    for (const one of this.inView(axis, lane)) {
      const x = axis.x(one.at);
      if (x - drawn < 4 && one.tone !== "bad") continue;
      drawn = x;
      const colour = this.colour(one.tone);
      paper.beginPath();
      if (one.tone === "bad") {
        paper.strokeStyle = colour;
        paper.lineWidth = 2.5;
        for (const way of [1, -1]) { paper.moveTo(x - 5, middle - 5 * way); paper.lineTo(x + 5, middle + 5 * way); }
        paper.stroke();
      } else if (one.tone === "warn") {
        paper.fillStyle = colour;
        paper.moveTo(x, middle - 6); paper.lineTo(x + 6, middle + 5); paper.lineTo(x - 6, middle + 5);
        paper.fill();
      } else {
        paper.fillStyle = colour;
        paper.arc(x, middle, 4, 0, 2 * Math.PI);
        paper.fill();
      }
    }
  }

  // SIP: above the middle what came, below what we sent; the log: the taller the worse
  ticks(axis, lane) {
    const { ink, boxes } = this;
    const { top, height } = boxes.get(lane);
    const middle = top + height / 2;
    if (lane === "sip") this.rect(axis.left, middle, axis.width, 1, ink.line);
    for (const one of this.inView(axis, lane)) {
      const x = Math.round(axis.x(one.at));
      const colour = one.tone ? this.colour(one.tone) : one.lane === "sip" && one.row === 0 ? ink.blue : one.lane === "sip" ? ink.teal : ink.soft;
      if (lane === "sip") this.rect(x - 1, one.row === 0 ? top + 3 : middle, 2, height / 2 - 3, colour);
      else {
        const tall = { bad: 1, warn: .7 }[one.tone] ?? .4;
        this.rect(x - 1, top + height - 2 - tall * (height - 4), one.tone ? 3 : 2, tall * (height - 4), colour);
      }
    }
  }

  recordings(axis) {
    const { ink, boxes, course } = this;
    const { top, height } = boxes.get("recording");
    for (const one of course.recordings) {
      const x = axis.x(one.began_at);
      this.rect(x, top + 4, Math.max(2, axis.x(one.began_at + one.duration_s) - x), height - 8, ink.violet);
    }
  }
}

// the index of the first that is not before a time
function first(moments, at) {
  let [low, high] = [0, moments.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (moments[middle].at < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function grouped(moments) {
  const found = {};
  for (const one of moments) (found[one.lane] ??= []).push(one);
  return found;
}
