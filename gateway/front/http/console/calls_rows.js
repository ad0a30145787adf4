// Rows of the list of calls. A row that is there stays, and is changed where its call changed: nobody who reads
// or has put the focus there loses the place. What a stranger wrote becomes text in an element of its own.

import { foreign, made } from "./elements.js";
import { inFull, moment, offset } from "./times.js";
import { POOR_MOS, lives, soundInFull, soundOf, stateOf } from "./told_call.js";

function lasted(call, now) {
  if (call.state === "unknown" || !call.started_at) return "";
  return offset((call.ended_at ?? now) - call.started_at, 0);
}

// a column: its head, what its cells are called, what it sorts by, and what it shows of a call
const began = {
  head: "Began", name: "began", sort: "began", first: "-began",
  text: (call, now) => moment(call.started_at ?? 0, now),
  title: (call) => inFull(call.started_at ?? 0),
  link: (call) => [`/calls/${encodeURIComponent(call.call_id)}`, call.caller],
};
const party = (head, name, more) => ({ head, name: "number", text: (call) => call[name] ?? "", isForeign: true, ...more });

export const COLUMNS = {
  calls: [
    began,
    { head: "State", name: "where", text: (call) => stateOf(call)[1], chip: (call) => stateOf(call)[0] },
    party("Caller", "caller", { sort: "caller", first: "caller", title: (call) => [call.source, call.transport].filter(Boolean).join(", ") }),
    party("Called", "called"),
    { head: "Lasted", name: "lasted", label: "lasted", sort: "duration", first: "-duration", text: lasted, ticks: true },
    { head: "Route", name: "route", label: "route", text: (call) => call.route ?? "", title: (call) => (call.voice ? `voice ${call.voice}` : "") },
    {
      head: "Sound", name: "sound", label: "sound", text: (call) => soundOf(call)?.toFixed(1) ?? "",
      className: (call) => (soundOf(call) < POOR_MOS ? "poor" : ""), title: soundInFull,
    },
    { head: "How it ended", name: "how", text: (call) => (lives(call) ? "" : call.how ?? ""), isForeign: true },
  ],
  refused: [
    { ...began, head: "Came last", sort: undefined },
    { head: "Status", name: "where", text: (call) => String(call.status), chip: (call) => (call.status >= 500 ? "failed" : "") },
    party("Caller", "caller"),
    party("Called", "called"),
    { head: "Why not", name: "reason", text: (call) => call.reason, isForeign: true },
    party("From", "source", { label: "from", title: (call) => call.transport }),
    { head: "Times", name: "lasted", label: "times", text: (call) => String(call.count), title: (call) => `the first one ${inFull(call.first_at)}` },
  ],
};

export class Rows {
  #body;
  #columns = [];
  #known = new Map(); // by the call's id: its row, cells and the call

  constructor(body) {
    this.#body = body;
  }

  // other columns: nothing of what was there stays
  set(columns) {
    this.#columns = columns;
    this.clear();
  }

  clear() {
    this.#known.clear();
    this.#body.replaceChildren();
  }

  show(calls, now) {
    const focused = document.activeElement;
    let at = this.#body.firstChild;
    const kept = new Map();
    for (const call of calls) {
      const row = this.#known.get(call.call_id) ?? this.#made();
      row.call = call;
      this.#fill(row, now);
      kept.set(call.call_id, row);
      if (row.line === at) at = at.nextSibling;
      else this.#body.insertBefore(row.line, at);
    }
    for (const [id, row] of this.#known) if (!kept.has(id)) row.line.remove();
    this.#known = kept;
    if (focused === document.activeElement) return;
    if (focused.isConnected) focused.focus({ preventScroll: true }); // its row was moved
    else this.#body.closest("[tabindex]")?.focus({ preventScroll: true });
  }

  // the clocks of running calls go on
  tick(now) {
    for (const row of this.#known.values()) if (lives(row.call)) this.#fill(row, now, true);
  }

  #made() {
    const line = made("tr");
    line.setAttribute("role", "row");
    const cells = this.#columns.map((column) => {
      const cell = made("td", column.name);
      cell.setAttribute("role", "cell");
      if (column.label) cell.dataset.label = column.label;
      line.append(cell);
      return cell;
    });
    return { line, cells, call: null };
  }

  #fill(row, now, ticking = false) {
    const { call } = row;
    row.line.title = `call ${call.call_id}`;
    this.#columns.forEach((column, i) => {
      if (ticking && !column.ticks) return;
      const cell = row.cells[i];
      const text = column.text(call, now);
      const kind = column.chip?.(call) ?? "";
      if (cell.dataset.shown !== text || cell.dataset.kind !== kind) {
        cell.dataset.shown = text;
        cell.dataset.kind = kind;
        put(cell, column, call, text, kind);
      }
      const className = [column.name, column.className?.(call)].filter(Boolean).join(" ");
      if (cell.className !== className) cell.className = className;
      const title = column.title?.(call) ?? "";
      if (cell.title !== title) cell.title = title;
    });
  }
}

function put(cell, column, call, text, kind) {
  if (column.link) {
    const [href, whose] = column.link(call);
    const link = cell.querySelector("a") ?? made("a");
    link.href = href;
    link.textContent = text;
    link.setAttribute("aria-label", `${text}, ${whose || "nobody"}`);
    if (!link.isConnected) cell.replaceChildren(link);
  } else if (column.chip) cell.replaceChildren(made("span", `chip ${kind}`, text));
  else if (!text) cell.replaceChildren();
  else cell.replaceChildren(column.isForeign ? foreign(text, 200) : text);
}

// the head of the table; `act` is told what to sort by
export function heads(columns, sort, act) {
  return columns.map((column) => {
    const head = made("th");
    head.scope = "col";
    head.setAttribute("role", "columnheader");
    if (!column.sort) head.append(column.head);
    else {
      const way = sort === column.sort ? "ascending" : sort === `-${column.sort}` ? "descending" : "none";
      head.setAttribute("aria-sort", way);
      const button = made("button", "", column.head);
      button.type = "button";
      button.dataset.sort = column.sort;
      button.addEventListener("click", () => act(turned(column, sort)));
      head.append(button);
    }
    return head;
  });
}

// one way, the other way, and back to what runs first
function turned(column, sort) {
  const other = column.first.startsWith("-") ? column.sort : `-${column.sort}`;
  return sort === column.first ? other : sort === other ? "" : column.first;
}
