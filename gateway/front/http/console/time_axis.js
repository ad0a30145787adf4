// The part of a call's time that is shown, and where each time stands in the picture. Seconds since the epoch.

const STEPS = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const SHORTEST = .05;
const TICK_PX = 78;

export class TimeAxis {
  constructor(changed) {
    this.changed = changed;
    this.begin = this.from = 0; // the call's, and the view's
    this.end = this.to = 1;
    this.left = 0; // where it begins in the picture, px
    this.width = 1;
  }

  // the call's own extent; a view of all of it, or of its end, goes on with it
  extend(begin, end) {
    const wasWhole = this.isWhole;
    const span = this.to - this.from;
    const atEnd = this.to >= this.end;
    this.begin = begin;
    this.end = Math.max(end, begin + SHORTEST);
    if (wasWhole) this.look(this.begin, this.end);
    else if (atEnd) this.look(this.end - span, this.end);
    else this.look(this.from, this.to);
  }

  get isWhole() {
    return this.from <= this.begin && this.to >= this.end;
  }

  look(from, to) {
    const span = Math.min(Math.max(to - from, SHORTEST), this.end - this.begin);
    this.from = Math.min(Math.max(from, this.begin), this.end - span);
    this.to = this.from + span;
    this.changed();
  }

  whole() {
    this.look(this.begin, this.end);
  }

  // factor < 1 shows less; the time `around` stays where it is
  zoom(factor, around) {
    const span = Math.min(Math.max((this.to - this.from) * factor, SHORTEST), this.end - this.begin);
    const share = (around - this.from) / (this.to - this.from);
    this.look(around - share * span, around + (1 - share) * span);
  }

  pan(seconds) {
    this.look(this.from + seconds, this.to + seconds);
  }

  // moves the view so that a time is in it
  reveal(at) {
    const span = this.to - this.from;
    if (at < this.from || at > this.to) this.look(at - span / 3, at + 2 * span / 3);
  }

  // the same, near enough to see what is around it
  approach(at, span = 20) {
    if (this.to - this.from > span) this.look(at - span / 3, at + 2 * span / 3);
    else this.reveal(at);
  }

  x(at) {
    return this.left + (at - this.from) / (this.to - this.from) * this.width;
  }

  at(x) {
    return this.from + (x - this.left) / this.width * (this.to - this.from);
  }

  get pixel() {
    return (this.to - this.from) / this.width;
  }

  // times that get a line, and how many places their labels need; they count from `zero`
  ticks(zero) {
    const wanted = TICK_PX * this.pixel;
    const step = STEPS.find((one) => one >= wanted) ?? Math.ceil(wanted / 3600) * 3600;
    const found = [];
    for (let n = Math.ceil((this.from - zero) / step); zero + n * step <= this.to; n += 1) found.push(zero + n * step);
    return { times: found, places: step < .01 ? 3 : step < .1 ? 2 : step < 1 ? 1 : 0 };
  }
}
