// The picture of a call and what one does with it: a cursor, zoom and pan by pointer, wheel and keys.

import { Lanes } from "./course_lanes.js";
import { button, byId, foreign, isNew, made } from "./elements.js";
import { TimeAxis } from "./time_axis.js";
import { clock, offset } from "./times.js";

const STEP = 1.6; // of the zoom
const TAP_PX = 5;
const NEAR_S = .25;
const MOST_HERE = 6; // moments that are told at the cursor

export class Stage {
  constructor(chosen, sought) {
    this.chosen = chosen; // told which moment was chosen in the picture
    this.sought = sought; // told the time that was
    this.element = byId("stage");
    this.lanes = new Lanes(byId("lanes"), byId("names"));
    this.axis = new TimeAxis(() => this.later());
    this.cursor = null;
    this.moments = [];
    this.pointers = new Map();
    this.listen();
  }

  show(course, moments) {
    this.course = course;
    this.moments = moments;
    byId("axis").hidden = false;
    this.lanes.show(course, moments);
    this.lanes.fit(this.axis);
    this.axis.extend(course.begin, course.end);
    this.element.setAttribute("aria-valuemin", String(Math.floor(course.begin - course.zero)));
    this.element.setAttribute("aria-valuemax", String(Math.ceil(course.end - course.zero)));
    if (this.cursor === null) this.put(course.causes[0]?.since ?? course.zero);
    else this.tell();
  }

  // the cursor to a time; what plays there goes there, too
  go(at, seek = true) {
    this.axis.approach(at);
    this.put(at);
    if (seek) this.sought(at);
  }

  put(at) {
    if (!this.course) return;
    this.cursor = Math.min(Math.max(at, this.course.begin), this.course.end);
    this.axis.reveal(this.cursor);
    this.later();
    this.tell();
  }

  later() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.lanes.draw(this.axis);
      [this.element.dataset.from, this.element.dataset.to] = [this.axis.from, this.axis.to].map((at) => (at - (this.course?.zero ?? 0)).toFixed(3));
      const x = this.cursor === null ? -1 : this.axis.x(this.cursor);
      const seen = x >= this.axis.left - 1 && x <= this.axis.left + this.axis.width + 1;
      byId("cursor").hidden = !seen;
      byId("cursor").style.transform = `translateX(${x}px)`;
    });
  }

  // what is at the cursor, in words
  tell() {
    const { course, cursor } = this;
    const when = offset(cursor - course.zero, 2);
    const said = [this.levels(cursor)].filter(Boolean);
    const reach = Math.max(.03, Math.min(NEAR_S, 4 * this.axis.pixel));
    const away = (one) => Math.max(one.at - cursor, cursor - Math.max(one.until, one.at), 0);
    const near = this.moments.filter((one) => one.group !== "log" && away(one) <= reach);
    const here = near.sort((a, b) => away(a) - away(b)).slice(0, MOST_HERE).sort((a, b) => a.at - b.at);
    this.element.setAttribute("aria-valuenow", (cursor - course.zero).toFixed(2));
    if (!isNew(byId("now"), [cursor, said, here.map(({ at, what, text, more }) => [at, what, text, more])])) return;
    const list = made("ul", "", ...here.map((one) => {
      const item = made("li", one.tone, made("b", "", one.name ?? one.what), " ", foreign(one.text, 240), one.more ? made("small", "", one.more) : "");
      item.append(" ", button("Log", () => this.chosen(one), `Log lines near ${when}`));
      return item;
    }));
    byId("now").replaceChildren(made("p", "", made("b", "", when), ` (${clock(cursor)}) `, said.join(", ")), list);
    const words = here.map((one) => `${one.what}: ${String(one.text).slice(0, 120)}`);
    this.element.setAttribute("aria-valuetext", [when, ...said, ...words].join("; "));
  }

  levels(at) {
    const { sound } = this.course;
    const part = sound.parts.find((one) => at >= one.began_at && at < one.began_at + one.flags.length * sound.step_s);
    if (!part) return "";
    const n = Math.min(part.flags.length - 1, Math.floor((at - part.began_at) / sound.step_s));
    const set = Object.keys(sound.flag_names).filter((name) => part.flags[n] & sound.flag_names[name]);
    const loud = (level, none) => (level === null || level === undefined ? none : level <= -96 ? "silence" : `${level} dBFS`.replace("-", "−"));
    const flagged = set.length ? ` (${set.map((name) => name.replaceAll("_", " ")).join(", ")})` : "";
    return `caller ${loud(part.caller[n], "nothing came")}, our voice ${loud(part.voice[n], "nothing was sent")}${flagged}`;
  }

  moment(way) {
    const found = this.moments.filter((one) => one.group !== "log");
    return way > 0 ? found.find((one) => one.at > this.cursor + .0005) : found.findLast((one) => one.at < this.cursor - .0005);
  }

  listen() {
    const { element, axis } = this;
    const middle = () => (this.cursor !== null && this.cursor >= axis.from && this.cursor <= axis.to ? this.cursor : (axis.from + axis.to) / 2);
    const span = () => axis.to - axis.from;
    byId("in").addEventListener("click", () => axis.zoom(1 / STEP, middle()));
    byId("out").addEventListener("click", () => axis.zoom(STEP, middle()));
    byId("whole").addEventListener("click", () => axis.whole());
    byId("earlier").addEventListener("click", () => axis.pan(-span() / 3));
    byId("later").addEventListener("click", () => axis.pan(span() / 3));
    element.addEventListener("keydown", (event) => {
      if (!this.course || event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = {
        ArrowLeft: () => (event.shiftKey ? axis.pan(-span() / 5) : this.move(this.cursor - span() / 100)),
        ArrowRight: () => (event.shiftKey ? axis.pan(span() / 5) : this.move(this.cursor + span() / 100)),
        ArrowUp: () => this.move(this.cursor + span() / 10),
        ArrowDown: () => this.move(this.cursor - span() / 10),
        Home: () => this.move(this.course.begin),
        End: () => this.move(this.course.end),
        PageUp: () => this.move(this.moment(-1)?.at ?? this.course.begin),
        PageDown: () => this.move(this.moment(1)?.at ?? this.course.end),
        "+": () => axis.zoom(1 / STEP, middle()),
        "=": () => axis.zoom(1 / STEP, middle()),
        "-": () => axis.zoom(STEP, middle()),
        0: () => axis.whole(),
        Enter: () => { const one = this.moment(-1); if (one) this.chosen(one); },
      };
      if (!Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      keys[event.key]();
    });
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.drag(event));
    for (const over of ["pointerup", "pointercancel"]) element.addEventListener(over, (event) => this.up(event));
    new ResizeObserver(() => this.refit()).observe(element.parentElement);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", () => this.refit());
  }

  refit() {
    if (!this.course) return;
    this.lanes.fit(this.axis);
    this.later();
  }

  move(at) {
    this.put(at);
    this.sought(this.cursor);
  }

  place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    const { axis } = this;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!sideways && !event.ctrlKey && document.activeElement !== this.element) return; // the page scrolls
    event.preventDefault();
    const turned = (event.deltaX && sideways ? event.deltaX : event.deltaY) * (event.deltaMode === 1 ? 16 : 1);
    if (sideways) axis.pan(turned * axis.pixel);
    else axis.zoom(Math.exp(Math.max(-200, Math.min(200, turned)) / 300), axis.at(this.place(event)[0]));
  }

  down(event) {
    if (event.button !== 0) return;
    this.pointers.set(event.pointerId, { x: event.clientX, from: event.clientX, moved: false });
    this.element.setPointerCapture(event.pointerId);
  }

  drag(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const { axis } = this;
    const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId).map(([, one]) => one);
    if (others.length) { // two fingers
      const before = Math.max(10, Math.abs(pointer.x - others[0].x));
      const after = Math.max(10, Math.abs(event.clientX - others[0].x));
      const left = this.element.getBoundingClientRect().left;
      axis.zoom(before / after, axis.at((event.clientX + others[0].x) / 2 - left));
      for (const one of this.pointers.values()) one.moved = true;
    } else if (pointer.moved || Math.abs(event.clientX - pointer.from) > TAP_PX) {
      pointer.moved = true;
      axis.pan((pointer.x - event.clientX) * axis.pixel);
    }
    pointer.x = event.clientX;
  }

  up(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!pointer || pointer.moved || event.type === "pointercancel" || !this.course) return;
    const [x, y] = this.place(event);
    const found = this.lanes.momentAt(this.axis, x, y);
    const within = found && found.until > found.at && this.axis.x(found.at) < x - 7;
    const at = found && !within ? found.at : this.axis.at(Math.max(x, this.axis.left));
    this.move(at);
  }
}
