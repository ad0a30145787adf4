// Elements of the console's pages. What a stranger wrote becomes text in an element of its own, never markup.

const LONGEST = 600; // characters that are shown of what somebody else wrote

export const byId = (id) => document.getElementById(id);

// an element; children are elements or texts
export function made(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// what somebody else wrote: its direction is its own, and ends with it
export function foreign(text, longest = LONGEST) {
  const whole = String(text ?? "");
  const element = made("bdi", "foreign", whole.length > longest ? `${whole.slice(0, longest)}…` : whole);
  element.dir = "auto";
  return element;
}

export function button(text, act, label = "") {
  const element = made("button", "quiet", text);
  element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("click", act);
  return element;
}

// sets a text where it is another one: a screen reader is told of changes alone
export function say(element, text) {
  const said = String(text ?? "");
  if (element.textContent !== said) element.textContent = said;
}

// the same, of an element that hides while it has nothing to say
export function sayOrHide(element, text) {
  element.hidden = !text;
  say(element, text);
}

// whether an element shows something else than what this key stands for: a living call's page keeps the focus
export function isNew(element, shown) {
  const key = JSON.stringify(shown);
  if (keys.get(element) === key) return false;
  keys.set(element, key);
  return true;
}

const keys = new WeakMap();

// the sign in the page's head, of the gateway or of what it tells: "up", "down", or "" for neither
export function sign(how, text) {
  byId("gateway").className = `gateway ${how}`;
  say(byId("gateway-text"), text);
}
