// Tables whose rows are changed in place: what is read, selected or scrolled to stays where it is.

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
    const tr = had.get(key) ?? document.createElement("tr");
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
    const made = document.createElement(tag);
    made.setAttribute("role", tag === "th" ? "rowheader" : "cell");
    if (tag === "th") made.scope = "row";
    else if (index) made.dataset.name = name;
    if (box) box.replaceWith(made);
    else tr.append(made);
    box = made;
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
      holder = document.createElement("span");
      box.replaceChildren(holder);
    }
    holder.className = `chip ${chip}`;
  } else if (box.firstElementChild) box.replaceChildren();
  say(holder, text);
}

function press(box, { text, label, act }) {
  let button = box.querySelector("button"); // the same one: it may have the focus
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    box.replaceChildren(button);
  }
  say(button, text);
  button.setAttribute("aria-label", label);
  button.onclick = act;
}

// Sets a text where it is another one: a screen reader is told of changes alone.
export function say(element, text) {
  const said = String(text ?? "");
  if (element.textContent !== said) element.textContent = said;
}

export function made(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

const two = (n) => String(n).padStart(2, "0");

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

// 17:31, and with the day where that is another one
export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

export function lasting(seconds) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [unit, name] of steps) if (seconds >= unit) return `${Math.floor(seconds / unit)} ${name}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}
