// Tables whose rows are changed in place: what is read, selected or scrolled to stays where it is.

import { made, say } from "./elements.js";

// A cell is a text, { text, className, title, chip }, or { button: { text, label, act } }; a row is { key, cells }. Every text is set as text.
export function fill(body, rows, none) {
  const table = body.closest("table");
  const names = [...table.tHead.rows[0].cells].map((th) => th.textContent);
  if (table.getAttribute("role") !== "table") dress(table);
  const had = new Map([...body.rows].map((tr) => [tr.dataset.key, tr]));
  const wanted = rows.length ? rows : [{ key: "", cells: [{ text: none, className: "none" }] }];
  const keys = new Set(wanted.map(({ key }) => String(key)));
  for (const [key, tr] of had) if (!keys.has(key)) tr.remove(); // first: a row that moves loses the focus
  let place = body.firstElementChild;
  for (const { key, cells } of wanted) {
    const tr = had.get(key) ?? made("tr");
    tr.dataset.key = key;
    tr.setAttribute("role", "row");
    cells.forEach((cell, index) => put(tr, index, cell, names[index]));
    while (tr.cells.length > cells.length) tr.lastElementChild.remove();
    tr.lastElementChild.colSpan = names.length - cells.length + 1;
    if (tr === place) place = place.nextElementSibling;
    else body.insertBefore(tr, place);
  }
}

// On a small screen rows are blocks: what they are is said by roles then.
function dress(table) {
  table.setAttribute("role", "table");
  for (const part of [table.tHead, ...table.tBodies]) part.setAttribute("role", "rowgroup");
  for (const th of table.tHead.rows[0].cells) th.setAttribute("role", "columnheader");
  table.tHead.rows[0].setAttribute("role", "row");
}

function put(tr, index, cell, name) {
  const { text, className = "", title = "", chip = "", button } = typeof cell === "object" ? cell : { text: String(cell) };
  const tag = index === 0 && !className.includes("none") ? "th" : "td";
  let box = tr.cells[index];
  if (box?.localName !== tag) {
    const other = made(tag);
    other.setAttribute("role", tag === "th" ? "rowheader" : "cell");
    if (tag === "th") other.scope = "row";
    else if (index) other.dataset.name = name;
    if (box) box.replaceWith(other);
    else tr.append(other);
    box = other;
  }
  if (box.className !== className) box.className = className;
  if (box.title !== title) box.title = title;
  if (button) {
    press(box, button);
    return;
  }
  let holder = box;
  if (chip) {
    holder = box.querySelector(".chip");
    if (!holder) {
      holder = made("span");
      box.replaceChildren(holder);
    }
    holder.className = `chip ${chip}`;
  } else if (box.firstElementChild) box.replaceChildren();
  say(holder, text);
}

function press(box, { text, label, act }) {
  let button = box.querySelector("button"); // the same one: it may have the focus
  if (!button) {
    button = made("button");
    button.type = "button";
    box.replaceChildren(button);
  }
  say(button, text);
  button.setAttribute("aria-label", label);
  button.onclick = act;
}
