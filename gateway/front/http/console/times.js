// Times as people read them. Moments are seconds since the epoch and are shown in the browser's zone.

const two = (n) => String(n).padStart(2, "0");

function timeOfDay(at) {
  const then = new Date(at * 1000);
  return `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}`;
}

// 17:31:05; of another day with that, and of another year with that, too
export function moment(at, now = Date.now() / 1000) {
  const [then, today] = [new Date(at * 1000), new Date(now * 1000)];
  if (then.toDateString() === today.toDateString()) return timeOfDay(at);
  const isThisYear = then.getFullYear() === today.getFullYear();
  const day = then.toLocaleDateString([], { day: "numeric", month: "short", ...(isThisYear ? {} : { year: "numeric" }) });
  return `${day}, ${timeOfDay(at)}`;
}

// 17:31:05.250
export function clock(at) {
  return `${timeOfDay(at)}.${String(new Date(at * 1000).getMilliseconds()).padStart(3, "0")}`;
}

// day and time as the browser writes them in full
export const inFull = (at) => new Date(at * 1000).toLocaleString();

// seconds of a call as m:ss or h:mm:ss, with so many places behind the point
export function offset(seconds, places = 2) {
  const scale = 10 ** places;
  const rounded = Math.round(Math.abs(seconds) * scale) / scale;
  const sign = seconds < 0 && rounded > 0 ? "−" : "";
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(places).padStart(places ? places + 3 : 2, "0");
  return hours ? `${sign}${hours}:${two(minutes)}:${rest}` : `${sign}${minutes}:${rest}`;
}

// how long something took: 12.3 s, 4:05
export const lasted = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : offset(seconds, 0));

// how long something has been so, in its largest unit: 3 d, 5 h
export function roughly(seconds) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [unit, name] of steps) if (seconds >= unit) return `${Math.floor(seconds / unit)} ${name}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}
