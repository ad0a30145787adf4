// A call's SIP as a ladder: a column for each party, an arrow for each message; a click opens what it said.

import { button, foreign, made } from "./elements.js";
import { offset } from "./times.js";

const MOST = 400; // messages

// a first line without what all of them have
const shortly = (first) => first.replace(/^SIP\/2\.0 /, "").replace(/ (SIP\/2\.0|HTTP\/1\.[01])$/, "");

export class Ladder {
  constructor(element, go) {
    this.element = element;
    this.go = go;
    this.drawn = 0;
    this.parties = [];
  }

  show(course) {
    const messages = course.ladder.slice(0, MOST);
    const parties = [];
    const put = (name) => parties.includes(name) || parties.push(name);
    for (const { from } of messages) if (from === "caller") put(from);
    for (const { from, to } of messages) if ([from, to].includes("us")) put("us");
    for (const { from, to } of messages) [from, to].forEach(put);
    if (parties.join("\n") !== this.parties.join("\n")) {
      this.parties = parties;
      this.drawn = 0;
      this.element.replaceChildren(this.head());
      this.element.style.minWidth = `${4 + 6.5 * parties.length}rem`;
    }
    for (const message of messages.slice(this.drawn)) this.element.append(...this.row(message, course.zero));
    this.drawn = messages.length;
  }

  columns(element) {
    element.style.gridTemplateColumns = `4rem repeat(${this.parties.length}, minmax(5rem, 1fr))`;
    return element;
  }

  head() {
    const names = this.parties.map((name) => made("b", "party", foreign(name === "us" ? "voicegate" : name, 40)));
    return this.columns(made("div", "rung head", made("span", "", ""), ...names));
  }

  row(message, zero) {
    const [from, to] = [this.parties.indexOf(message.from), this.parties.indexOf(message.to)];
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    const when = offset(message.at - zero);
    const rung = this.columns(made("div", "rung"));
    const time = button(when, () => this.go(message.at), `Go to ${when}`);
    time.style.gridColumn = "1";
    rung.append(time);
    this.parties.forEach((_, n) => {
      const life = made("span", "life");
      life.style.gridColumn = String(n + 2);
      rung.append(life);
    });
    const failed = /^SIP\/2\.0 [4-6]/.test(message.first);
    const arrow = made("button", `arrow ${from <= to ? "right" : "left"} ${failed ? "failed" : ""}`, foreign(shortly(message.first), 90), made("small", "", message.protocol));
    arrow.type = "button";
    arrow.setAttribute("aria-expanded", "false");
    const spanned = Math.max(1, high - low + 1);
    arrow.style.gridColumn = `${low + 2} / span ${spanned}`;
    arrow.style.marginInline = spanned > 1 ? `${50 / spanned}%` : "0";
    const said = made("span", "hidden", `${when}, ${message.from} to ${message.to}: `);
    arrow.prepend(said);
    let text = null;
    arrow.addEventListener("click", () => {
      if (text) text.remove();
      text = text ? null : made("pre", "said-whole", foreign(message.text, 5000));
      if (text) rung.after(text);
      arrow.setAttribute("aria-expanded", String(Boolean(text)));
    });
    rung.append(arrow);
    const gap = message.left_out > 0 ? [made("p", "gap", `${message.left_out} messages are not kept.`)] : [];
    return [...gap, rung];
  }
}
