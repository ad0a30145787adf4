// The API, asked by the console's pages: a JSON answer, or why there is none.

const ANSWER_MS = 8000;

// `status` is HTTP's, `problem` what came with it (RFC 9457).
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The gateway answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// Throws Refused for a problem, and something else where nobody answers within that many milliseconds.
export async function ask(path, { within = ANSWER_MS, ...options } = {}) {
  const signal = AbortSignal.timeout(within);
  const headers = { Accept: "application/json", ...(options.body ? { "Content-Type": "application/json" } : {}) };
  const response = await fetch(path, { ...options, headers, signal });
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, told ?? {});
  return told;
}
