// The API, asked by the console's pages: a JSON answer, or why there is none; and the log-in that it asks for.

import { byId } from "./elements.js";

const ANSWER_MS = 8000;

// `status` is HTTP's, `problem` what came with it (RFC 9457).
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The gateway answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// Throws Refused for a problem, and something else where nobody answers within that many milliseconds, or once `signal` aborts.
export async function ask(path, { within = ANSWER_MS, signal, ...options } = {}) {
  const late = AbortSignal.timeout(within);
  const headers = { Accept: "application/json", ...(options.body ? { "Content-Type": "application/json" } : {}) };
  const response = await fetch(path, { ...options, headers, signal: signal ? AbortSignal.any([signal, late]) : late });
  const told = (await response.json().catch(() => ({}))) ?? {};
  if (!response.ok) throw new Refused(response.status, told);
  return told;
}

// Who asks, and what it may do; the page's head shows the way to log in, or out. Throws as `ask` does.
export async function askWho() {
  const me = await ask("/api/me");
  byId("logout").hidden = !me.token_id;
  byId("login").hidden = Boolean(me.token_id);
  return me;
}

// the log-in, which leads back to this page
export const loginAddress = () => `/login?then=${encodeURIComponent(location.pathname + location.search)}`;
