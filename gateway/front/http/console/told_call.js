// What the API tells of a call, in the words of the console's lists.

export const POOR_MOS = 3.6; // below it many users are dissatisfied (G.107)

export const lives = (call) => call.ended_at === undefined && !["ended", "unknown"].includes(call.state);

// the form of its chip and what stands there
export function stateOf(call) {
  if (lives(call)) return ["live", call.state ?? "live"];
  if (call.state === "unknown") return ["", "unknown"];
  return /^(failed|lost)/.test(call.how ?? "") ? ["failed", "failed"] : ["", "ended"];
}

// the MOS of the worse way, while it lives or as the registry has it; undefined: nobody knows
export function soundOf(call) {
  const known = [call.mos, call.far_mos].filter((mos) => mos !== undefined);
  if (!known.length && call.sounded !== undefined) known.push(call.sounded);
  return known.length ? Math.min(...known) : undefined;
}

export const soundInFull = (call) =>
  [["From the caller", call.mos], ["to the caller", call.far_mos], ["worst ten seconds", call.mos_worst]]
    .filter(([, mos]) => mos !== undefined).map(([what, mos]) => `${what}: ${mos.toFixed(1)}`).join(", ");
