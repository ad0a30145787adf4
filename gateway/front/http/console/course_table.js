// The moments of a call as a table: what the picture shows, in words, each with the log lines near it.

import { GROUPS, facts } from "./course_moments.js";
import { button, byId, foreign, made } from "./elements.js";
import { clock, offset } from "./times.js";

const NEAR_S = 1;
const AT_FIRST = 250; // rows; more are made when somebody wants them

// a cell or a row; its role holds on a phone, too, where the sheet gives it another form
function tabular(tag, role, className, ...children) {
  const element = made(tag, className, ...children);
  element.setAttribute("role", role);
  return element;
}

export class MomentTable {
  constructor(go) {
    this.go = go;
    this.most = AT_FIRST;
    this.rows = new Map(); // made ones by what they show: a live call's table grows and stays
    this.which = byId("which");
    this.which.replaceChildren(...Object.entries(GROUPS).map(([name, title]) => {
      const option = made("option", "", title);
      option.value = name;
      return option;
    }));
    this.which.addEventListener("change", () => { this.most = AT_FIRST; this.draw(); });
    byId("more").addEventListener("click", () => { this.most = Infinity; this.draw(); });
  }

  show(course, moments) {
    this.course = course;
    this.moments = moments.map((one, n) => ({ ...one, key: `${one.at}|${one.group}|${one.what}|${one.text}|${one.until}`, n }));
    this.log = course.log;
    this.draw();
  }

  chosen() {
    const group = this.which.value || "all";
    if (group === "bad") return this.moments.filter((one) => one.tone === "bad" || one.tone === "warn");
    if (group === "all") return this.moments.filter((one) => one.group !== "log" || one.tone);
    return this.moments.filter((one) => one.group === group);
  }

  draw() {
    const chosen = this.chosen();
    const shown = chosen.slice(0, this.most);
    const rows = new Map();
    const drawn = shown.map((one) => {
      const key = rows.has(one.key) ? `${one.key}|${one.n}` : one.key;
      const row = this.rows.get(key) ?? this.row(one);
      rows.set(key, row);
      return row;
    });
    for (const [key, row] of this.rows) if (!rows.has(key) && row.classList.contains("open")) rows.set(key, row);
    this.rows = rows;
    const table = byId("rows");
    const following = drawn.flatMap((row) => (row.log ? [row, row.log] : [row]));
    const same = following.length === table.children.length && following.every((row, n) => row === table.children[n]);
    if (!same) table.replaceChildren(...following);
    if (!drawn.length) table.replaceChildren(tabular("tr", "row", "", tabular("td", "cell", "none", "Nothing of that kind.")));
    const left = chosen.length - shown.length;
    byId("more").hidden = left <= 0;
    byId("more").textContent = `Show ${left} more`;
  }

  row(one) {
    const when = offset(one.at - this.course.zero);
    const time = tabular("td", "cell", "time", button(when, () => this.go(one.at, false), `Go to ${when}`), made("small", "", clock(one.at)));
    const words = tabular("td", "cell", "in-words", foreign(one.text));
    if (one.more) words.append(made("small", "", one.more));
    const log = tabular("td", "cell", "opens");
    const row = tabular("tr", "row", one.tone, time, tabular("td", "cell", "what", foreign(one.what, 80)), words, log);
    row.dataset.at = String(one.at);
    const open = button("Log", () => this.toggle(row, one, open), `Log lines near ${when}`);
    open.setAttribute("aria-expanded", "false");
    log.append(open);
    return row;
  }

  toggle(row, one, open) {
    if (row.log) {
      row.log.remove();
      row.log = null;
    } else {
      const cell = tabular("td", "cell", "", this.near(one.at, one.until));
      cell.colSpan = 4;
      row.log = tabular("tr", "row", "log", cell);
      row.after(row.log);
    }
    row.classList.toggle("open", Boolean(row.log));
    open.setAttribute("aria-expanded", String(Boolean(row.log)));
  }

  near(at, until) {
    const lines = this.log.filter((line) => line.at >= at - NEAR_S && line.at <= Math.max(until, at) + NEAR_S).slice(0, 100);
    if (!lines.length) return made("p", "none", "No log line of this call within a second.");
    return made("ul", "lines", ...lines.map((line) => made("li", `level-${/^[a-z]+$/.test(line.level) ? line.level : "info"}`,
      made("span", "at", clock(line.at)), " ", foreign(`${line.process} ${line.level}`, 60), " ", made("b", "", foreign(line.event, 100)), " ", foreign(facts(line.fields), 2000))));
  }

  // shows the row of a moment, with its log lines
  open(one) {
    const found = this.moments.find((other) => other.at === one.at && other.what === one.what && other.text === one.text);
    if (!found) return;
    if (!this.chosen().includes(found)) this.which.value = found.group === "log" ? "log" : "all";
    if (this.chosen().indexOf(found) >= this.most) this.most = Infinity;
    this.draw();
    const row = this.rows.get(found.key);
    if (!row) return;
    if (!row.log) row.querySelector("button[aria-expanded]").click();
    row.querySelector("button").focus();
    row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }
}
