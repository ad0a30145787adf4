// Texts and elements of a call's page. What a stranger wrote becomes text in an element of its own, never markup.

const LONGEST = 600;

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

// whether an element shows something else than what this key stands for: a living call's page keeps the focus
export function isNew(element, shown) {
  const key = JSON.stringify(shown);
  if (keys.get(element) === key) return false;
  keys.set(element, key);
  return true;
}

const keys = new WeakMap();
const two = (n) => String(n).padStart(2, "0");

// the time of day with thousandths
export function clock(at) {
  const then = new Date(at * 1000);
  const ms = String(then.getMilliseconds()).padStart(3, "0");
  return `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}.${ms}`;
}

// seconds of the call as m:ss, with so many places behind the point
export function offset(seconds, places = 2) {
  const scale = 10 ** places;
  const rounded = Math.round(Math.abs(seconds) * scale) / scale;
  const sign = seconds < 0 && rounded > 0 ? "−" : "";
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(places).padStart(places ? places + 3 : 2, "0");
  return hours ? `${sign}${hours}:${two(minutes)}:${rest}` : `${sign}${minutes}:${rest}`;
}

export const lasted = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : offset(seconds, 0));

const value = (one) => {
  if (typeof one === "number") return Number.isInteger(one) ? String(one) : String(Math.round(one * 1000) / 1000);
  return typeof one === "object" && one !== null ? JSON.stringify(one) : String(one);
};

// an event's data in words: name value, name value
export function facts(data, without = []) {
  const told = Object.entries(data ?? {}).filter(([name, one]) => one !== null && !without.includes(name));
  return told.map(([name, one]) => `${name.replaceAll("_", " ")} ${value(one)}`).join(", ");
}
