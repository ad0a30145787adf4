// The live text of a call: what the voice says, what it understood, notes, each turn's latency.

const UNSURE = 0.5;
const NEAR_PX = 80;
const seconds = (value) => `${value.toFixed(value < 1 ? 2 : 1)} s`;

const wordsOf = (bubble) => bubble.querySelector(".words");

function span(className, text) {
  const made = document.createElement("span");
  made.className = className;
  made.textContent = text;
  return made;
}

const SPEAKERS = { bot: "Voice: ", you: "You: " }; // read aloud; who sees the page sees sides and colours

export class Conversation {
  constructor(log, list, empty, latency) {
    this.log = log;
    this.list = list;
    this.empty = empty;
    this.latency = latency;
    this.clear();
  }

  clear() {
    this.items = new Map();
    this.lastBot = null;
    this.waiting = null; // a latency whose reply has no bubble yet
    this.latencies = [];
    this.latency.hidden = true;
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  turn() {
    this.lastBot = null;
  }

  add(className, text, before = null) {
    this.empty.hidden = true;
    const item = document.createElement("li");
    item.className = className;
    const speaker = SPEAKERS[className.split(" ")[0]];
    if (speaker) item.append(span("hidden", speaker));
    item.append(span("words", text));
    this.follow(() => this.list.insertBefore(item, before));
    return item;
  }

  // does something to the list; who read its end sees its new end
  follow(change) {
    const near = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_PX;
    change();
    if (near) this.log.scrollTop = this.log.scrollHeight;
  }

  said({ item, text, final }) {
    const key = item ?? "voice";
    let bubble = this.items.get(key);
    if (!bubble) {
      this.end(); // what was cut off stays as it was heard
      bubble = this.add("bot", "");
      this.items.set(key, bubble);
      this.lastBot = bubble;
      if (this.waiting) this.mark(bubble, this.waiting);
      this.waiting = null;
    }
    wordsOf(bubble).textContent = text ?? "";
    wordsOf(bubble).classList.toggle("typing", !final);
    bubble.setAttribute("aria-busy", !final); // read aloud once, whole
    if (final && item === undefined) this.items.delete(key);
    this.log.scrollTop = this.log.scrollHeight;
  }

  heard({ text, duration_s: duration, confidence }) {
    // the reply's first words may have come before what they reply to
    const bubble = this.add(text ? "you" : "you unheard", text || "You spoke", this.lastBot);
    const about = [];
    if (typeof duration === "number") about.push(seconds(duration));
    if (!text) about.push("not transcribed");
    else if (typeof confidence === "number" && confidence < UNSURE) about.push("unsure");
    this.meta(bubble, about.join(", "));
  }

  note(text) {
    if (text) this.add("note", text);
  }

  took(stages) {
    if (typeof stages.whole !== "number") return;
    this.latencies.push(stages.whole);
    const sorted = [...this.latencies].sort((a, b) => a - b);
    const median = sorted[Math.floor((sorted.length - 1) / 2)];
    this.latency.hidden = false;
    this.latency.textContent = `answers after ${seconds(stages.whole)}, median ${seconds(median)}`;
    if (this.lastBot) this.mark(this.lastBot, stages);
    else this.waiting = stages;
  }

  mark(bubble, stages) {
    const parts = ["endpointing", "engine", "playout"].filter((name) => typeof stages[name] === "number");
    const split = parts.map((name) => `${name} ${Math.round(stages[name] * 1000)}`).join(" + ");
    this.meta(bubble, `after ${seconds(stages.whole)}${split ? ` (${split} ms)` : ""}`);
  }

  meta(bubble, text) {
    if (!text) return;
    this.follow(() => {
      const meta = bubble.querySelector(".meta") ?? bubble.appendChild(span("meta", ""));
      meta.textContent = text;
    });
  }

  end() {
    for (const bubble of this.items.values()) {
      wordsOf(bubble).classList.remove("typing");
      bubble.setAttribute("aria-busy", false);
    }
  }
}
