// Level meters: -60 to 0 dBFS, drawn each frame, told to assistive technology four times a second.

const FLOOR_DB = -60;

export class Meter {
  constructor(element) {
    this.element = element;
    this.bar = element.firstElementChild;
    this.shown = FLOOR_DB;
    this.analyser = null;
  }

  attach(context, stream) {
    this.source?.disconnect();
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.source = context.createMediaStreamSource(stream);
    this.source.connect(this.analyser);
  }

  detach() {
    this.source?.disconnect();
    this.analyser = this.source = null;
    this.shown = FLOOR_DB;
    this.draw();
    this.tell();
  }

  measure() {
    let power = 0;
    if (this.analyser) {
      this.analyser.getFloatTimeDomainData(this.samples);
      for (const sample of this.samples) power += sample * sample;
      power /= this.samples.length;
    }
    const db = Math.max(FLOOR_DB, power ? 10 * Math.log10(power) : FLOOR_DB);
    this.shown = Math.max(db, this.shown - 1.2); // falls 70 dB a second
    this.draw();
  }

  draw() {
    this.bar.style.transform = `scaleX(${1 - this.shown / FLOOR_DB})`;
  }

  tell() {
    const value = Math.round(this.shown);
    this.element.setAttribute("aria-valuenow", value);
    this.element.setAttribute("aria-valuetext", value <= FLOOR_DB ? "silent" : `${value} decibels`);
  }
}
